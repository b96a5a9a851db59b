"""The fake's schedules: kept and listed. No clock runs in it: `trigger_schedule` alone makes their runs."""

from __future__ import annotations

from dataclasses import dataclass, field

import grpc

from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2 as pb
from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2_grpc
from django_agent_runtime.testing._wire import read_namespace, refuse, refuse_field

CRON_FIELDS = 5


@dataclass
class FakeSchedules(agent_service_pb2_grpc.AgentServiceServicer):
    """The rpcs of AgentService that are about schedules."""

    _schedules: dict[tuple[str, str], pb.Schedule] = field(default_factory=dict)

    def CreateSchedule(  # noqa: N802
        self, request: pb.CreateScheduleRequest, context: grpc.ServicerContext
    ) -> pb.CreateScheduleResponse:
        """See the service definition; of `cron` only the number of fields is looked at."""
        given = request.schedule
        if not given.schedule_id:
            refuse_field(context, "schedule.schedule_id", "must not be empty")
        if not given.cron.startswith("@") and len(given.cron.split()) != CRON_FIELDS:
            refuse_field(context, "schedule.cron", "must have five fields, or begin with @")
        key = read_namespace(context), given.schedule_id
        if key in self._schedules and not request.replace:
            refuse(
                context,
                grpc.StatusCode.ALREADY_EXISTS,
                "SCHEDULE_EXISTS",
                f"there is a schedule {given.schedule_id!r}",
                metadata={"schedule_id": given.schedule_id},
            )
        schedule = pb.Schedule(
            schedule_id=given.schedule_id,
            cron=given.cron,
            time_zone=given.time_zone,
            run=given.run,
            paused=given.paused,
        )
        schedule.create_time.GetCurrentTime()
        self._schedules[key] = schedule
        return pb.CreateScheduleResponse(schedule=schedule)

    def ListSchedules(  # noqa: N802
        self, _request: pb.ListSchedulesRequest, context: grpc.ServicerContext
    ) -> pb.ListSchedulesResponse:
        """See the service definition; always one page."""
        namespace = read_namespace(context)
        schedules = [self._schedules[key] for key in sorted(self._schedules) if key[0] == namespace]
        return pb.ListSchedulesResponse(schedules=schedules)

    def PauseSchedule(  # noqa: N802
        self, request: pb.PauseScheduleRequest, context: grpc.ServicerContext
    ) -> pb.PauseScheduleResponse:
        """See the service definition."""
        schedule = self._find_schedule(request.schedule_id, context)
        schedule.paused = request.paused
        return pb.PauseScheduleResponse(schedule=schedule)

    def DeleteSchedule(  # noqa: N802
        self, request: pb.DeleteScheduleRequest, context: grpc.ServicerContext
    ) -> pb.DeleteScheduleResponse:
        """See the service definition."""
        self._find_schedule(request.schedule_id, context)
        del self._schedules[read_namespace(context), request.schedule_id]
        return pb.DeleteScheduleResponse()

    def TriggerSchedule(  # noqa: N802
        self, request: pb.TriggerScheduleRequest, context: grpc.ServicerContext
    ) -> pb.TriggerScheduleResponse:
        """See the service definition."""
        schedule = self._find_schedule(request.schedule_id, context)
        return pb.TriggerScheduleResponse(run=self._create_scheduled(schedule, request.request_id, context))

    def _create_scheduled(self, schedule: pb.Schedule, request_id: str, context: grpc.ServicerContext) -> pb.Run:
        """Create the run of a schedule, or join the one that `request_id` created."""
        raise NotImplementedError

    def _find_schedule(self, schedule_id: str, context: grpc.ServicerContext) -> pb.Schedule:
        schedule = self._schedules.get((read_namespace(context), schedule_id))
        if schedule is None:
            refuse(
                context,
                grpc.StatusCode.NOT_FOUND,
                "SCHEDULE_NOT_FOUND",
                f"there is no schedule {schedule_id!r}",
                metadata={"schedule_id": schedule_id},
            )
        return schedule

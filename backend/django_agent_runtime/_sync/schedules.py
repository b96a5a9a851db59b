"""Generated from `_async/schedules.py` by `scripts/unasync.py`: edit that file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django_agent_runtime import _channel, _messages
from django_agent_runtime._channel import new_request_id
from django_agent_runtime._codec import check_text
from django_agent_runtime._requests import schedule_run
from django_agent_runtime.exceptions import ScheduleNotFound
from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2 as agent_pb
from django_agent_runtime.types import (
    TASK_TYPE,
    Concurrency,
    EventVisibility,
    NewTask,
    RetryPolicy,
    Run,
    RunTarget,
    Schedule,
)

from .calls import SyncCalls

__all__ = ["SyncSchedules"]


class SyncSchedules(SyncCalls):
    """Schedules."""

    def create_schedule(
        self,
        schedule_id: str,
        cron: str,
        agent_key: str,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - what the runtime calls it
        *,
        time_zone: str = "",
        paused: bool = False,
        replace: bool = False,
        target: RunTarget | str = RunTarget.AGENT,
        task_type: str = TASK_TYPE,
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
        priority: int = 0,
        concurrency: Concurrency | Mapping[str, Any] | None = None,
        deadline: float | None = None,
        run_timeout: float | None = None,
        queue_timeout: float | None = None,
        step_timeout: float | None = None,
        retry: RetryPolicy | Mapping[str, Any] | None = None,
        event_visibility: Mapping[str, EventVisibility | str] | None = None,
    ) -> Schedule:
        """Have an agent given a run at each time of a cron expression.

        Args:
            schedule_id: 1 to 200 bytes.
            cron: Five fields (minute hour day month weekday; 0 and 7 are Sunday), or `@hourly`, `@daily`, `@weekly`,
                `@monthly`, `@yearly`, or `@every 90s`.
            time_zone: An IANA name such as `Europe/Berlin`; empty: UTC.
            paused: Create no runs until `pause_schedule(schedule_id, False)`.
            replace: Replace the schedule that has the id.

        The other arguments say what each run is, as in `create_run`.

        Raises:
            ScheduleExists: There is one with the id, and `replace` is not set. It may be this one: a call that is
                repeated after a lost connection may meet what it began.
            InvalidRequest: The runtime cannot read `cron` or `time_zone`, or the run does not fit.
        """
        task = NewTask(
            task_type=task_type,
            input_data=input,
            agent_id=agent_key,
            description=description,
            metadata=metadata,
            deadline=deadline,
            run_timeout=run_timeout,
            target=target,
            priority=priority,
            concurrency=concurrency,
            queue_timeout=queue_timeout,
            step_timeout=step_timeout,
            retry=retry,
            event_visibility=event_visibility,
        )
        schedule = agent_pb.Schedule(
            schedule_id=check_text("schedule_id", schedule_id),
            cron=check_text("cron", cron),
            time_zone=check_text("time_zone", time_zone),
            run=schedule_run(task, agent_name="agent_key", input_name="input"),
            paused=bool(paused),
        )
        request = agent_pb.CreateScheduleRequest(schedule=schedule, replace=bool(replace))
        response = self._call(_channel.CREATE_SCHEDULE, request)
        return _messages.to_schedule(response.schedule)

    def list_schedules(self) -> list[Schedule]:
        """The schedules of the namespace, by id."""
        schedules: list[Schedule] = []
        request = agent_pb.ListSchedulesRequest()
        while True:
            page = self._call(_channel.LIST_SCHEDULES, request)
            schedules.extend(_messages.to_schedule(schedule) for schedule in page.schedules)
            request.page_token = page.next_page_token
            if not request.page_token:
                return schedules

    def pause_schedule(self, schedule_id: str, paused: bool = True) -> Schedule:
        """Stop a schedule, or with `paused=False` let it go on; times that passed meanwhile are left out.

        Raises:
            ScheduleNotFound: There is no such schedule.
        """
        request = agent_pb.PauseScheduleRequest(schedule_id=check_text("schedule_id", schedule_id), paused=bool(paused))
        response = self._call(_channel.PAUSE_SCHEDULE, request)
        return _messages.to_schedule(response.schedule)

    def delete_schedule(self, schedule_id: str) -> bool:
        """Remove a schedule; its runs stay.

        Returns:
            Whether there was such a schedule.
        """
        request = agent_pb.DeleteScheduleRequest(schedule_id=check_text("schedule_id", schedule_id))
        try:
            self._call(_channel.DELETE_SCHEDULE, request)
        except ScheduleNotFound:
            return False
        return True

    def trigger_schedule(self, schedule_id: str) -> Run:
        """Create a schedule's run now, beside its times.

        Raises:
            ScheduleNotFound: There is no such schedule.
            AgentRuntimeError: As in `create_run`.
        """
        request = agent_pb.TriggerScheduleRequest(
            schedule_id=check_text("schedule_id", schedule_id), request_id=new_request_id()
        )
        response = self._call(_channel.TRIGGER_SCHEDULE, request)
        return _messages.to_run(response.run)

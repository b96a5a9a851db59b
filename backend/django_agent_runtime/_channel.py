"""The one channel of a client: opened on first use, closed around forks, and every way to call through it."""

from __future__ import annotations

import asyncio
import os
import random
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from ._ahead import PendingCall
from ._errors import CallFailure
from ._fork import Session, gate, threads_are_greenlets
from ._tls import check_files, explain
from ._trace_context import current_traceparent
from .conf import RuntimeSettings, TlsSettings
from .exceptions import AgentRuntimeError, ClientClosed
from .grpc_client.agentruntime.v1 import agent_service_pb2 as agent_pb
from .grpc_client.agentruntime.v1 import event_service_pb2 as event_pb
from .grpc_client.agentruntime.v1 import state_service_pb2 as state_pb
from .grpc_client.agentruntime.v1 import workspace_service_pb2 as workspace_pb
from .types import ConnectionState

__all__ = [
    "BATCH_CREATE_RUNS",
    "CANCEL_RUN",
    "CREATE_RUN",
    "CREATE_SCHEDULE",
    "CREATE_STREAM_TICKET",
    "DELETE_SCHEDULE",
    "DELETE_STATE",
    "FOLLOW_RUNS",
    "GET_ARCHIVE",
    "GET_FILE",
    "GET_RUN",
    "GET_SERVER_INFO",
    "GET_STATE",
    "LIST_AGENTS",
    "LIST_FILES",
    "LIST_RUNS",
    "LIST_SCHEDULES",
    "LIST_STATE",
    "LIST_TASK_TYPES",
    "PAUSE_SCHEDULE",
    "PUBLISH_EVENTS",
    "RESUME_RUN",
    "RETRY_RUN",
    "SET_STATE",
    "SUBSCRIBE",
    "TRANSACT_STATE",
    "TRIGGER_SCHEDULE",
    "WAIT_RUN",
    "WAIT_RUNS",
    "WATCH_RUNS",
    "WATCH_STATE",
    "CallMetadata",
    "ChannelSession",
    "ResumableStream",
    "Rpc",
    "Transport",
    "jittered",
    "new_request_id",
]

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

CallMetadata = tuple[tuple[str, str], ...]

# Where a call is made that names none.
_DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True, slots=True)
class Rpc(Generic[Q, R]):
    """A method of the runtime with the messages it takes and gives."""

    service: str
    method: str
    request: type[Q]
    response: type[R]
    names_itself: bool = field(init=False)
    """Whether a request has a `request_id`, under which it is joined when it is made again."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "names_itself", "request_id" in self.request.DESCRIPTOR.fields_by_name)

    @property
    def path(self) -> str:
        """The method's name on the wire."""
        return f"/{self.service}/{self.method}"


_AGENT = "agentruntime.v1.AgentService"
_STATE = "agentruntime.v1.StateService"
_EVENT = "agentruntime.v1.EventService"
_WORKSPACE = "agentruntime.v1.WorkspaceService"

CREATE_RUN = Rpc(_AGENT, "CreateRun", agent_pb.CreateRunRequest, agent_pb.CreateRunResponse)
BATCH_CREATE_RUNS = Rpc(_AGENT, "BatchCreateRuns", agent_pb.BatchCreateRunsRequest, agent_pb.BatchCreateRunsResponse)
GET_RUN = Rpc(_AGENT, "GetRun", agent_pb.GetRunRequest, agent_pb.GetRunResponse)
LIST_RUNS = Rpc(_AGENT, "ListRuns", agent_pb.ListRunsRequest, agent_pb.ListRunsResponse)
WAIT_RUN = Rpc(_AGENT, "WaitRun", agent_pb.WaitRunRequest, agent_pb.WaitRunResponse)
WAIT_RUNS = Rpc(_AGENT, "WaitRuns", agent_pb.WaitRunsRequest, agent_pb.WaitRunsResponse)
CANCEL_RUN = Rpc(_AGENT, "CancelRun", agent_pb.CancelRunRequest, agent_pb.CancelRunResponse)
RESUME_RUN = Rpc(_AGENT, "ResumeRun", agent_pb.ResumeRunRequest, agent_pb.ResumeRunResponse)
RETRY_RUN = Rpc(_AGENT, "RetryRun", agent_pb.RetryRunRequest, agent_pb.RetryRunResponse)
WATCH_RUNS = Rpc(_AGENT, "WatchRuns", agent_pb.WatchRunsRequest, agent_pb.WatchRunsResponse)
FOLLOW_RUNS = Rpc(_AGENT, "FollowRuns", agent_pb.FollowRunsRequest, agent_pb.FollowRunsResponse)
CREATE_SCHEDULE = Rpc(_AGENT, "CreateSchedule", agent_pb.CreateScheduleRequest, agent_pb.CreateScheduleResponse)
LIST_SCHEDULES = Rpc(_AGENT, "ListSchedules", agent_pb.ListSchedulesRequest, agent_pb.ListSchedulesResponse)
PAUSE_SCHEDULE = Rpc(_AGENT, "PauseSchedule", agent_pb.PauseScheduleRequest, agent_pb.PauseScheduleResponse)
DELETE_SCHEDULE = Rpc(_AGENT, "DeleteSchedule", agent_pb.DeleteScheduleRequest, agent_pb.DeleteScheduleResponse)
TRIGGER_SCHEDULE = Rpc(_AGENT, "TriggerSchedule", agent_pb.TriggerScheduleRequest, agent_pb.TriggerScheduleResponse)
CREATE_STREAM_TICKET = Rpc(
    _AGENT, "CreateStreamTicket", agent_pb.CreateStreamTicketRequest, agent_pb.CreateStreamTicketResponse
)
LIST_AGENTS = Rpc(_AGENT, "ListAgents", agent_pb.ListAgentsRequest, agent_pb.ListAgentsResponse)
LIST_TASK_TYPES = Rpc(_AGENT, "ListTaskTypes", agent_pb.ListTaskTypesRequest, agent_pb.ListTaskTypesResponse)
GET_SERVER_INFO = Rpc(_AGENT, "GetServerInfo", agent_pb.GetServerInfoRequest, agent_pb.GetServerInfoResponse)
GET_STATE = Rpc(_STATE, "GetState", state_pb.GetStateRequest, state_pb.GetStateResponse)
SET_STATE = Rpc(_STATE, "SetState", state_pb.SetStateRequest, state_pb.SetStateResponse)
DELETE_STATE = Rpc(_STATE, "DeleteState", state_pb.DeleteStateRequest, state_pb.DeleteStateResponse)
LIST_STATE = Rpc(_STATE, "ListState", state_pb.ListStateRequest, state_pb.ListStateResponse)
TRANSACT_STATE = Rpc(_STATE, "TransactState", state_pb.TransactStateRequest, state_pb.TransactStateResponse)
PUBLISH_EVENTS = Rpc(_EVENT, "PublishEvents", event_pb.PublishEventsRequest, event_pb.PublishEventsResponse)
WATCH_STATE = Rpc(_STATE, "WatchState", state_pb.WatchStateRequest, state_pb.WatchStateResponse)
SUBSCRIBE = Rpc(_EVENT, "Subscribe", event_pb.SubscribeRequest, event_pb.SubscribeResponse)
LIST_FILES = Rpc(_WORKSPACE, "ListFiles", workspace_pb.ListFilesRequest, workspace_pb.ListFilesResponse)
GET_FILE = Rpc(_WORKSPACE, "GetFile", workspace_pb.GetFileRequest, workspace_pb.GetFileResponse)
GET_ARCHIVE = Rpc(_WORKSPACE, "GetArchive", workspace_pb.GetArchiveRequest, workspace_pb.GetArchiveResponse)

_MAX_MESSAGE_BYTES = 16 << 20

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # How long one attempt to connect may take, for all its name.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # A channel of another client must not outlive ours at a fork by sharing its connection.
    ("grpc.use_local_subchannel_pool", 1),
    # The runtime is a neighbour, whatever proxy the environment names for the outside world.
    ("grpc.enable_http_proxy", 0),
    # The client's own loop tries again, up to the call's deadline. gRPC's would hide from it that nobody was there:
    # a call that ends while gRPC waits to try again ends with DEADLINE_EXCEEDED.
    ("grpc.enable_retries", 0),
)

# How gRPC ends a call whose channel was closed under it.
_CUT_OFF = frozenset({grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE})


def jittered(pause: float) -> float:
    """Some of `pause`, so that the clients of a runtime that restarts do not come back in one wave."""
    return pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def new_request_id() -> str:
    """A name for one call, the same over all its attempts."""
    return os.urandom(16).hex()


class ChannelSession(Session):
    """An open channel and its methods.

    Nothing here raises an error of gRPC's own or keeps one: see CallFailure.
    """

    def __init__(self, settings: RuntimeSettings) -> None:
        super().__init__()
        _prepare_gevent()
        self._channel: grpc.Channel | None = _open_channel(settings)
        self._unary: dict[str, Any] = {}

    def close(self) -> None:
        """See Session."""
        self.closed = True
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
        self._unary.clear()

    def call(self, rpc: Rpc[Q, R], request: Q, timeout: float, metadata: CallMetadata) -> R | CallFailure:
        """Make one attempt and wait for its answer."""
        try:
            response: R = self._method(rpc)(request, timeout=timeout, metadata=metadata)
            return response
        except CallFailure as failure:
            return failure
        except grpc.RpcError as error:
            return CallFailure.of(error)
        except ValueError as error:
            return self._met_closed_channel(error)

    def start(self, rpc: Rpc[Q, R], request: Q, timeout: float, metadata: CallMetadata) -> Any:
        """Begin one attempt: its gRPC future, or a CallFailure if there is no channel any more."""
        try:
            return self._method(rpc).future(request, timeout=timeout, metadata=metadata)
        except CallFailure as failure:
            return failure
        except ValueError as error:
            return self._met_closed_channel(error)

    def stream(
        self, rpc: Rpc[Q, R], request: Q | Iterator[Q], metadata: CallMetadata, timeout: float | None = None
    ) -> Any:
        """Open a stream: the responses to one request, or to an iterator of them. None: without a deadline.

        Raises:
            CallFailure: There is no channel any more.
        """
        channel = self._open_channel()
        kind = channel.unary_stream if isinstance(request, Message) else channel.stream_stream
        method: Any = kind(
            rpc.path,
            request_serializer=rpc.request.SerializeToString,
            response_deserializer=rpc.response.FromString,
        )
        try:
            return method(request, timeout=timeout, metadata=metadata)
        except ValueError as error:
            raise self._met_closed_channel(error) from None

    def _method(self, rpc: Rpc[Q, R]) -> Any:
        method = self._unary.get(rpc.method)
        if method is None:
            method = self._unary[rpc.method] = self._open_channel().unary_unary(
                rpc.path,
                request_serializer=rpc.request.SerializeToString,
                response_deserializer=rpc.response.FromString,
            )
        return method

    def _open_channel(self) -> grpc.Channel:
        if self._channel is None:
            raise _channel_closed()
        return self._channel

    def _met_closed_channel(self, error: ValueError) -> CallFailure:
        """What stands for the ValueError that gRPC raises when a call meets a closed channel."""
        if not self.closed:
            raise error
        return _channel_closed()


def _channel_closed() -> CallFailure:
    return CallFailure(grpc.StatusCode.CANCELLED, "the channel was closed")


class ResumableStream(Protocol):
    """A stream of a client, told of what ends it."""

    def end(self, error: AgentRuntimeError) -> None:
        """Stop; whoever waits for it gets `error`."""

    def restart_in_child(self) -> None:
        """Forget everything that belonged to the parent."""


class Transport:
    """Calls and streams over one channel that opens itself, and opens itself again after a fork."""

    def __init__(self, settings: RuntimeSettings) -> None:
        self._settings = settings
        self._session: ChannelSession | None = None
        self.address = settings.address
        self.reached = False
        """Whether the runtime answered last."""
        self.streams: weakref.WeakSet[ResumableStream] = weakref.WeakSet()
        fixed = []
        if settings.namespace != _DEFAULT_NAMESPACE:
            fixed.append(("agent-runtime-namespace", settings.namespace))
        if settings.token:
            fixed.append(("authorization", f"Bearer {settings.token}"))
        self._fixed_metadata = tuple(fixed)
        gate.register(self)

    @property
    def state(self) -> ConnectionState:
        """How this client stands to the runtime."""
        if self._session is None:
            return ConnectionState.CLOSED
        return ConnectionState.CONNECTED if self.reached else ConnectionState.RECONNECTING

    def metadata(self, request_id: str) -> CallMetadata:
        """What travels beside every call: request id, and where there is one, namespace, token and active trace."""
        traceparent = current_traceparent()
        if traceparent is None:
            return (*self._fixed_metadata, ("x-request-id", request_id))
        return (*self._fixed_metadata, ("x-request-id", request_id), ("traceparent", traceparent))

    def attempt(self, rpc: Rpc[Q, R], request: Q, deadline: float, metadata: CallMetadata) -> R | CallFailure:
        """Call once, with an answer by `deadline` (monotonic seconds). A fork in between does not count."""
        while True:
            session = self.enter()
            try:
                outcome = session.call(rpc, request, deadline - time.monotonic(), metadata)
            finally:
                gate.leave(session)
            if not isinstance(outcome, CallFailure):
                self.reached = True
                return outcome
            if not session.suspended or outcome.code not in _CUT_OFF:
                return self._note(outcome)

    async def aattempt(self, rpc: Rpc[Q, R], request: Q, deadline: float, metadata: CallMetadata) -> R | CallFailure:
        """`attempt` for asyncio, over the same channel. Cancelling the task cancels the call."""
        while True:
            # A fork in another thread holds this up, and so the loop, for some milliseconds.
            session = self.enter()
            call = _LoopCall(asyncio.get_running_loop(), session)
            try:
                call.begin(session.start(rpc, request, deadline - time.monotonic(), metadata))
            except BaseException:
                gate.leave(session)
                raise
            try:
                outcome: R | CallFailure = await call.outcome
            except asyncio.CancelledError:
                call.cancel()
                raise
            if not isinstance(outcome, CallFailure):
                self.reached = True
                return outcome
            if not session.suspended or outcome.code not in _CUT_OFF:
                return self._note(outcome)

    def attempt_stream(
        self,
        rpc: Rpc[Q, R],
        request: Q,
        deadline: float,
        metadata: CallMetadata,
        receive: Callable[[R], object],
    ) -> CallFailure | None:
        """Call once and hand each message of the answer to `receive`, the last by `deadline` (monotonic seconds).

        A fork in between begins the call anew.
        """
        return self._read_stream(_StreamCall(), rpc, request, deadline, metadata, receive)

    async def aattempt_stream(
        self,
        rpc: Rpc[Q, R],
        request: Q,
        deadline: float,
        metadata: CallMetadata,
        receive: Callable[[R], object],
    ) -> CallFailure | None:
        """`attempt_stream` for asyncio, in a thread of its own. Cancelling the task cancels the call."""
        call = _StreamCall()
        pending = PendingCall(partial(self._read_stream, call, rpc, request, deadline, metadata, receive))
        try:
            return await pending.aresult()
        except asyncio.CancelledError:
            call.cancel()
            raise

    def _read_stream(
        self,
        call: _StreamCall,
        rpc: Rpc[Q, R],
        request: Q,
        deadline: float,
        metadata: CallMetadata,
        receive: Callable[[R], object],
    ) -> CallFailure | None:
        while True:
            session = self.enter()
            try:
                timeout = deadline - time.monotonic()
                failure = call.read(lambda: session.stream(rpc, request, metadata, timeout), receive)  # noqa: B023 - called at once
            finally:
                gate.leave(session)
            if failure is None:
                self.reached = True
                return None
            if not session.suspended or failure.code not in _CUT_OFF:
                return self._note(failure)

    def explain(self, failure: CallFailure) -> CallFailure:
        """`failure`, told apart from a runtime that is not there if TLS stands between."""
        if _is_unexplained(failure):
            failure.explanation = explain(self._settings)
        return failure

    async def aexplain(self, failure: CallFailure) -> CallFailure:
        """`explain` for asyncio."""
        if _is_unexplained(failure):
            # It connects, and so waits.
            return await asyncio.to_thread(self.explain, failure)
        return failure

    def enter(self) -> ChannelSession:
        """The open session, for a call that must end with `gate.leave`; waits while the process forks."""
        return gate.enter(self._current_session)

    def close(self) -> None:
        """Close the channel and end its streams. Calls in flight fail with ClientClosed; a later call opens another."""
        for stream in list(self.streams):
            stream.end(ClientClosed("the client was disconnected"))
        with gate.changed:
            session = self.detach_session()
        if session is not None:
            session.close()

    def detach_session(self) -> ChannelSession | None:
        """See Forkable."""
        session, self._session = self._session, None
        return session

    def restart_in_child(self) -> None:
        """See Forkable."""
        self._session = None
        self.reached = False
        for stream in list(self.streams):
            stream.restart_in_child()

    def _current_session(self) -> ChannelSession:
        if self._session is None:
            self._session = ChannelSession(self._settings)
        return self._session

    def _note(self, failure: CallFailure) -> CallFailure:
        # A call that ended on our side, by its deadline or by being cancelled, says nothing about the runtime.
        if failure.code not in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}:
            self.reached = failure.code is not grpc.StatusCode.UNAVAILABLE
        return failure


def _is_unexplained(failure: CallFailure) -> bool:
    """Whether nobody was reached, as far as is known: what has a status came from a runtime that was."""
    return failure.code is grpc.StatusCode.UNAVAILABLE and not failure.status


class _StreamCall:
    """A call that is answered with many messages, read in the thread that makes it."""

    def __init__(self) -> None:
        self._call: Any = None
        self._cancelled = False

    def read(self, begin: Callable[[], Any], receive: Callable[[Any], object]) -> CallFailure | None:
        """Make one attempt; how it failed, if it did."""
        call = None
        try:
            call = self._call = begin()
            if self._cancelled:
                call.cancel()
            for message in call:
                receive(message)
        except CallFailure as failure:
            return failure
        except grpc.RpcError as error:
            # The error is the call, and its traceback holds this frame: a cycle that would outlive the channel.
            error.__traceback__ = None
            return CallFailure.of(error)
        finally:
            self._call = None
            if call is not None:
                call.cancel()
            del call
        return None

    def cancel(self) -> None:
        """End the call, if it has not ended, from another thread."""
        self._cancelled = True
        call = self._call
        if call is not None:
            call.cancel()


class _LoopCall:
    """Carries the end of a call from gRPC's thread into an event loop.

    The call's objects are let go in gRPC's thread, so that a fork need not wait for the loop: it may be the
    loop's own thread that forks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, session: ChannelSession) -> None:
        self.outcome: asyncio.Future[Any] = loop.create_future()
        self._loop = loop
        self._session = session
        self._call: Any = None

    def begin(self, call: Any) -> None:
        """Follow what `ChannelSession.start` gave; the session is left when it has ended."""
        if isinstance(call, CallFailure):
            gate.leave(self._session)
            self.outcome.set_result(call)
            return
        self._call = call
        call.add_done_callback(self._finish)

    def cancel(self) -> None:
        """End the call, if it has not ended."""
        call = self._call
        if call is not None:
            call.cancel()

    def _finish(self, call: Any) -> None:
        outcome = call.result() if call.code() is grpc.StatusCode.OK else CallFailure.of(call)
        self._call = None
        del call
        gate.leave(self._session)
        try:
            self._loop.call_soon_threadsafe(self._resolve, outcome)
        except RuntimeError:
            # The loop was closed meanwhile: nobody waits any more.
            return

    def _resolve(self, outcome: Any) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)


def _open_channel(settings: RuntimeSettings) -> grpc.Channel:
    options = list(_OPTIONS)
    if settings.socket is not None:
        target = f"unix:{Path(settings.socket).absolute()}"
        # The path would be the authority otherwise, which is no host name to a server.
        options.append(("grpc.default_authority", "localhost"))
    else:
        target = settings.address
    if settings.tls is None:
        return grpc.insecure_channel(target, options=options)
    if settings.tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", settings.tls.server_name))
    return grpc.secure_channel(target, _credentials(settings.tls), options=options)


def _credentials(tls: TlsSettings) -> grpc.ChannelCredentials:
    files = check_files(tls)
    return grpc.ssl_channel_credentials(files.ca, files.key, files.cert)


def _prepare_gevent() -> None:
    """Have gRPC yield to gevent instead of blocking its only thread, where gevent has patched this process."""
    if threads_are_greenlets():
        from grpc.experimental.gevent import init_gevent  # noqa: PLC0415 - only where gevent is

        init_gevent()

from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2 as _agent_service_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WorkRequest(_message.Message):
    __slots__ = ("hello", "reports", "probe", "draining", "leaving")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    reports: _containers.RepeatedCompositeFieldContainer[Report]
    probe: int
    draining: bool
    leaving: bool
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., reports: _Optional[_Iterable[_Union[Report, _Mapping]]] = ..., probe: _Optional[int] = ..., draining: bool = ..., leaving: bool = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("worker_id", "name", "agents", "concurrency", "lease_ttl", "held")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    LEASE_TTL_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    name: str
    agents: _containers.RepeatedCompositeFieldContainer[WorkerAgent]
    concurrency: int
    lease_ttl: _duration_pb2.Duration
    held: _containers.RepeatedCompositeFieldContainer[HeldLease]
    def __init__(self, worker_id: _Optional[str] = ..., name: _Optional[str] = ..., agents: _Optional[_Iterable[_Union[WorkerAgent, _Mapping]]] = ..., concurrency: _Optional[int] = ..., lease_ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., held: _Optional[_Iterable[_Union[HeldLease, _Mapping]]] = ...) -> None: ...

class WorkerAgent(_message.Message):
    __slots__ = ("agent_id", "description", "retry", "run_timeout")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    RUN_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    description: str
    retry: _agent_service_pb2.RetryPolicy
    run_timeout: _duration_pb2.Duration
    def __init__(self, agent_id: _Optional[str] = ..., description: _Optional[str] = ..., retry: _Optional[_Union[_agent_service_pb2.RetryPolicy, _Mapping]] = ..., run_timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class HeldLease(_message.Message):
    __slots__ = ("run_id", "lease")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    lease: int
    def __init__(self, run_id: _Optional[str] = ..., lease: _Optional[int] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("run_id", "lease", "number", "events", "step", "start_run", "succeed", "fail", "park", "give_back", "release")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    START_RUN_FIELD_NUMBER: _ClassVar[int]
    SUCCEED_FIELD_NUMBER: _ClassVar[int]
    FAIL_FIELD_NUMBER: _ClassVar[int]
    PARK_FIELD_NUMBER: _ClassVar[int]
    GIVE_BACK_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    lease: int
    number: int
    events: EmitEvents
    step: RecordStep
    start_run: StartRun
    succeed: Succeed
    fail: Fail
    park: Park
    give_back: GiveBack
    release: Release
    def __init__(self, run_id: _Optional[str] = ..., lease: _Optional[int] = ..., number: _Optional[int] = ..., events: _Optional[_Union[EmitEvents, _Mapping]] = ..., step: _Optional[_Union[RecordStep, _Mapping]] = ..., start_run: _Optional[_Union[StartRun, _Mapping]] = ..., succeed: _Optional[_Union[Succeed, _Mapping]] = ..., fail: _Optional[_Union[Fail, _Mapping]] = ..., park: _Optional[_Union[Park, _Mapping]] = ..., give_back: _Optional[_Union[GiveBack, _Mapping]] = ..., release: _Optional[_Union[Release, _Mapping]] = ...) -> None: ...

class EmitEvents(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[NewRunEvent]
    def __init__(self, events: _Optional[_Iterable[_Union[NewRunEvent, _Mapping]]] = ...) -> None: ...

class NewRunEvent(_message.Message):
    __slots__ = ("type", "visibility", "payload")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    VISIBILITY_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    type: str
    visibility: _agent_service_pb2.EventVisibility
    payload: bytes
    def __init__(self, type: _Optional[str] = ..., visibility: _Optional[_Union[_agent_service_pb2.EventVisibility, str]] = ..., payload: _Optional[bytes] = ...) -> None: ...

class RecordStep(_message.Message):
    __slots__ = ("key", "result")
    KEY_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    key: str
    result: bytes
    def __init__(self, key: _Optional[str] = ..., result: _Optional[bytes] = ...) -> None: ...

class StartRun(_message.Message):
    __slots__ = ("key", "run", "traceparent")
    KEY_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    key: str
    run: _agent_service_pb2.CreateRunRequest
    traceparent: str
    def __init__(self, key: _Optional[str] = ..., run: _Optional[_Union[_agent_service_pb2.CreateRunRequest, _Mapping]] = ..., traceparent: _Optional[str] = ...) -> None: ...

class Succeed(_message.Message):
    __slots__ = ("output",)
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    output: bytes
    def __init__(self, output: _Optional[bytes] = ...) -> None: ...

class Fail(_message.Message):
    __slots__ = ("message", "retryable", "retry_after", "error_type")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    ERROR_TYPE_FIELD_NUMBER: _ClassVar[int]
    message: str
    retryable: bool
    retry_after: _duration_pb2.Duration
    error_type: str
    def __init__(self, message: _Optional[str] = ..., retryable: bool = ..., retry_after: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., error_type: _Optional[str] = ...) -> None: ...

class Park(_message.Message):
    __slots__ = ("interrupt", "wait_for")
    INTERRUPT_FIELD_NUMBER: _ClassVar[int]
    WAIT_FOR_FIELD_NUMBER: _ClassVar[int]
    interrupt: _agent_service_pb2.Interrupt
    wait_for: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, interrupt: _Optional[_Union[_agent_service_pb2.Interrupt, _Mapping]] = ..., wait_for: _Optional[_Iterable[str]] = ...) -> None: ...

class GiveBack(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Release(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WorkResponse(_message.Message):
    __slots__ = ("welcome", "assignments", "acks", "cancellations", "refusals", "child_runs", "probe", "draining")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    ACKS_FIELD_NUMBER: _ClassVar[int]
    CANCELLATIONS_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    CHILD_RUNS_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    assignments: _containers.RepeatedCompositeFieldContainer[Assignment]
    acks: _containers.RepeatedCompositeFieldContainer[Ack]
    cancellations: _containers.RepeatedCompositeFieldContainer[Cancellation]
    refusals: _containers.RepeatedCompositeFieldContainer[Refusal]
    child_runs: _containers.RepeatedCompositeFieldContainer[ChildRun]
    probe: int
    draining: bool
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., assignments: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ..., acks: _Optional[_Iterable[_Union[Ack, _Mapping]]] = ..., cancellations: _Optional[_Iterable[_Union[Cancellation, _Mapping]]] = ..., refusals: _Optional[_Iterable[_Union[Refusal, _Mapping]]] = ..., child_runs: _Optional[_Iterable[_Union[ChildRun, _Mapping]]] = ..., probe: _Optional[int] = ..., draining: bool = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("lease_ttl", "held", "max_payload_bytes")
    LEASE_TTL_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    MAX_PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    lease_ttl: _duration_pb2.Duration
    held: _containers.RepeatedCompositeFieldContainer[Ack]
    max_payload_bytes: int
    def __init__(self, lease_ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., held: _Optional[_Iterable[_Union[Ack, _Mapping]]] = ..., max_payload_bytes: _Optional[int] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("run", "lease", "run_timeout", "step_timeout", "steps", "answers", "checkpoint", "traceparent", "trace_asked", "trace_project")
    RUN_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    RUN_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    STEP_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACE_ASKED_FIELD_NUMBER: _ClassVar[int]
    TRACE_PROJECT_FIELD_NUMBER: _ClassVar[int]
    run: _agent_service_pb2.Run
    lease: int
    run_timeout: _duration_pb2.Duration
    step_timeout: _duration_pb2.Duration
    steps: _containers.RepeatedCompositeFieldContainer[RecordStep]
    answers: _containers.RepeatedCompositeFieldContainer[_agent_service_pb2.Interrupt]
    checkpoint: bytes
    traceparent: str
    trace_asked: bool
    trace_project: str
    def __init__(self, run: _Optional[_Union[_agent_service_pb2.Run, _Mapping]] = ..., lease: _Optional[int] = ..., run_timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., step_timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., steps: _Optional[_Iterable[_Union[RecordStep, _Mapping]]] = ..., answers: _Optional[_Iterable[_Union[_agent_service_pb2.Interrupt, _Mapping]]] = ..., checkpoint: _Optional[bytes] = ..., traceparent: _Optional[str] = ..., trace_asked: bool = ..., trace_project: _Optional[str] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("run_id", "lease", "number")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    lease: int
    number: int
    def __init__(self, run_id: _Optional[str] = ..., lease: _Optional[int] = ..., number: _Optional[int] = ...) -> None: ...

class Cancellation(_message.Message):
    __slots__ = ("run_id", "lease", "reason")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    lease: int
    reason: str
    def __init__(self, run_id: _Optional[str] = ..., lease: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("run_id", "lease", "number", "reason", "message")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    lease: int
    number: int
    reason: str
    message: str
    def __init__(self, run_id: _Optional[str] = ..., lease: _Optional[int] = ..., number: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class ChildRun(_message.Message):
    __slots__ = ("parent_run_id", "lease", "number", "run")
    PARENT_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    parent_run_id: str
    lease: int
    number: int
    run: _agent_service_pb2.Run
    def __init__(self, parent_run_id: _Optional[str] = ..., lease: _Optional[int] = ..., number: _Optional[int] = ..., run: _Optional[_Union[_agent_service_pb2.Run, _Mapping]] = ...) -> None: ...

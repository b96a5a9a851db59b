from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ThreadStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    THREAD_STATUS_UNSPECIFIED: _ClassVar[ThreadStatus]
    THREAD_STATUS_RUNNING: _ClassVar[ThreadStatus]
    THREAD_STATUS_WAITING: _ClassVar[ThreadStatus]
    THREAD_STATUS_DONE: _ClassVar[ThreadStatus]
    THREAD_STATUS_FAILED: _ClassVar[ThreadStatus]

class ThreadSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    THREAD_SOURCE_UNSPECIFIED: _ClassVar[ThreadSource]
    THREAD_SOURCE_INPUT: _ClassVar[ThreadSource]
    THREAD_SOURCE_RESUME: _ClassVar[ThreadSource]
    THREAD_SOURCE_STEP: _ClassVar[ThreadSource]
    THREAD_SOURCE_UPDATE: _ClassVar[ThreadSource]
    THREAD_SOURCE_FORK: _ClassVar[ThreadSource]
THREAD_STATUS_UNSPECIFIED: ThreadStatus
THREAD_STATUS_RUNNING: ThreadStatus
THREAD_STATUS_WAITING: ThreadStatus
THREAD_STATUS_DONE: ThreadStatus
THREAD_STATUS_FAILED: ThreadStatus
THREAD_SOURCE_UNSPECIFIED: ThreadSource
THREAD_SOURCE_INPUT: ThreadSource
THREAD_SOURCE_RESUME: ThreadSource
THREAD_SOURCE_STEP: ThreadSource
THREAD_SOURCE_UPDATE: ThreadSource
THREAD_SOURCE_FORK: ThreadSource

class ThreadState(_message.Message):
    __slots__ = ("thread_id", "graph_id", "revision", "parent", "status", "source", "step", "time", "values", "next", "interrupts", "error")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    GRAPH_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    INTERRUPTS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    graph_id: str
    revision: int
    parent: int
    status: ThreadStatus
    source: ThreadSource
    step: int
    time: _timestamp_pb2.Timestamp
    values: bytes
    next: _containers.RepeatedScalarFieldContainer[str]
    interrupts: _containers.RepeatedCompositeFieldContainer[ThreadInterrupt]
    error: str
    def __init__(self, thread_id: _Optional[str] = ..., graph_id: _Optional[str] = ..., revision: _Optional[int] = ..., parent: _Optional[int] = ..., status: _Optional[_Union[ThreadStatus, str]] = ..., source: _Optional[_Union[ThreadSource, str]] = ..., step: _Optional[int] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., values: _Optional[bytes] = ..., next: _Optional[_Iterable[str]] = ..., interrupts: _Optional[_Iterable[_Union[ThreadInterrupt, _Mapping]]] = ..., error: _Optional[str] = ...) -> None: ...

class ThreadInterrupt(_message.Message):
    __slots__ = ("interrupt_id", "node", "value", "run_id")
    INTERRUPT_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    interrupt_id: str
    node: str
    value: bytes
    run_id: str
    def __init__(self, interrupt_id: _Optional[str] = ..., node: _Optional[str] = ..., value: _Optional[bytes] = ..., run_id: _Optional[str] = ...) -> None: ...

class Thread(_message.Message):
    __slots__ = ("thread_id", "graph_id", "revision", "status", "update_time", "error")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    GRAPH_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    graph_id: str
    revision: int
    status: ThreadStatus
    update_time: _timestamp_pb2.Timestamp
    error: str
    def __init__(self, thread_id: _Optional[str] = ..., graph_id: _Optional[str] = ..., revision: _Optional[int] = ..., status: _Optional[_Union[ThreadStatus, str]] = ..., update_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., error: _Optional[str] = ...) -> None: ...

class GetThreadStateRequest(_message.Message):
    __slots__ = ("thread_id", "revision", "run_id")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    revision: int
    run_id: str
    def __init__(self, thread_id: _Optional[str] = ..., revision: _Optional[int] = ..., run_id: _Optional[str] = ...) -> None: ...

class GetThreadStateResponse(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: ThreadState
    def __init__(self, state: _Optional[_Union[ThreadState, _Mapping]] = ...) -> None: ...

class ListThreadHistoryRequest(_message.Message):
    __slots__ = ("thread_id", "before", "page_size", "run_id")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    before: int
    page_size: int
    run_id: str
    def __init__(self, thread_id: _Optional[str] = ..., before: _Optional[int] = ..., page_size: _Optional[int] = ..., run_id: _Optional[str] = ...) -> None: ...

class ListThreadHistoryResponse(_message.Message):
    __slots__ = ("states", "next_before")
    STATES_FIELD_NUMBER: _ClassVar[int]
    NEXT_BEFORE_FIELD_NUMBER: _ClassVar[int]
    states: _containers.RepeatedCompositeFieldContainer[ThreadState]
    next_before: int
    def __init__(self, states: _Optional[_Iterable[_Union[ThreadState, _Mapping]]] = ..., next_before: _Optional[int] = ...) -> None: ...

class UpdateThreadStateRequest(_message.Message):
    __slots__ = ("thread_id", "graph_id", "as_node", "values", "request_id")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    GRAPH_ID_FIELD_NUMBER: _ClassVar[int]
    AS_NODE_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    graph_id: str
    as_node: str
    values: bytes
    request_id: str
    def __init__(self, thread_id: _Optional[str] = ..., graph_id: _Optional[str] = ..., as_node: _Optional[str] = ..., values: _Optional[bytes] = ..., request_id: _Optional[str] = ...) -> None: ...

class UpdateThreadStateResponse(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: ThreadState
    def __init__(self, state: _Optional[_Union[ThreadState, _Mapping]] = ...) -> None: ...

class ForkThreadRequest(_message.Message):
    __slots__ = ("thread_id", "revision", "to_thread_id", "request_id")
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TO_THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    revision: int
    to_thread_id: str
    request_id: str
    def __init__(self, thread_id: _Optional[str] = ..., revision: _Optional[int] = ..., to_thread_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class ForkThreadResponse(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: ThreadState
    def __init__(self, state: _Optional[_Union[ThreadState, _Mapping]] = ...) -> None: ...

class ListThreadsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListThreadsResponse(_message.Message):
    __slots__ = ("threads", "next_page_token")
    THREADS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    threads: _containers.RepeatedCompositeFieldContainer[Thread]
    next_page_token: str
    def __init__(self, threads: _Optional[_Iterable[_Union[Thread, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteThreadRequest(_message.Message):
    __slots__ = ("thread_id",)
    THREAD_ID_FIELD_NUMBER: _ClassVar[int]
    thread_id: str
    def __init__(self, thread_id: _Optional[str] = ...) -> None: ...

class DeleteThreadResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

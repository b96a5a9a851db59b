from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    ERROR_REASON_INTERNAL: _ClassVar[ErrorReason]
    ERROR_REASON_INVALID_ARGUMENT: _ClassVar[ErrorReason]
    ERROR_REASON_UNAUTHENTICATED: _ClassVar[ErrorReason]
    ERROR_REASON_PERMISSION_DENIED: _ClassVar[ErrorReason]
    ERROR_REASON_RATE_LIMITED: _ClassVar[ErrorReason]
    ERROR_REASON_QUEUE_FULL: _ClassVar[ErrorReason]
    ERROR_REASON_STORAGE_FULL: _ClassVar[ErrorReason]
    ERROR_REASON_TOO_LARGE: _ClassVar[ErrorReason]
    ERROR_REASON_UNAVAILABLE: _ClassVar[ErrorReason]
    ERROR_REASON_REVISION_MISMATCH: _ClassVar[ErrorReason]
    ERROR_REASON_KEY_EXISTS: _ClassVar[ErrorReason]
    ERROR_REASON_IDEMPOTENCY_CONFLICT: _ClassVar[ErrorReason]
    ERROR_REASON_RUN_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_AGENT_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_TASK_TYPE_NOT_FOUND: _ClassVar[ErrorReason]
    ERROR_REASON_EVENTS_TRUNCATED: _ClassVar[ErrorReason]
    ERROR_REASON_RUN_ENDED: _ClassVar[ErrorReason]
    ERROR_REASON_SLOW_READER: _ClassVar[ErrorReason]
    ERROR_REASON_AGENT_FAILED: _ClassVar[ErrorReason]
    ERROR_REASON_AGENT_PANICKED: _ClassVar[ErrorReason]
    ERROR_REASON_MODEL_FAILED: _ClassVar[ErrorReason]
    ERROR_REASON_RUN_TIMED_OUT: _ClassVar[ErrorReason]
    ERROR_REASON_RUN_DEADLINE_EXCEEDED: _ClassVar[ErrorReason]
    ERROR_REASON_RUN_CANCELLED: _ClassVar[ErrorReason]
    ERROR_REASON_ATTEMPTS_EXHAUSTED: _ClassVar[ErrorReason]
ERROR_REASON_UNSPECIFIED: ErrorReason
ERROR_REASON_INTERNAL: ErrorReason
ERROR_REASON_INVALID_ARGUMENT: ErrorReason
ERROR_REASON_UNAUTHENTICATED: ErrorReason
ERROR_REASON_PERMISSION_DENIED: ErrorReason
ERROR_REASON_RATE_LIMITED: ErrorReason
ERROR_REASON_QUEUE_FULL: ErrorReason
ERROR_REASON_STORAGE_FULL: ErrorReason
ERROR_REASON_TOO_LARGE: ErrorReason
ERROR_REASON_UNAVAILABLE: ErrorReason
ERROR_REASON_REVISION_MISMATCH: ErrorReason
ERROR_REASON_KEY_EXISTS: ErrorReason
ERROR_REASON_IDEMPOTENCY_CONFLICT: ErrorReason
ERROR_REASON_RUN_NOT_FOUND: ErrorReason
ERROR_REASON_AGENT_NOT_FOUND: ErrorReason
ERROR_REASON_TASK_TYPE_NOT_FOUND: ErrorReason
ERROR_REASON_EVENTS_TRUNCATED: ErrorReason
ERROR_REASON_RUN_ENDED: ErrorReason
ERROR_REASON_SLOW_READER: ErrorReason
ERROR_REASON_AGENT_FAILED: ErrorReason
ERROR_REASON_AGENT_PANICKED: ErrorReason
ERROR_REASON_MODEL_FAILED: ErrorReason
ERROR_REASON_RUN_TIMED_OUT: ErrorReason
ERROR_REASON_RUN_DEADLINE_EXCEEDED: ErrorReason
ERROR_REASON_RUN_CANCELLED: ErrorReason
ERROR_REASON_ATTEMPTS_EXHAUSTED: ErrorReason

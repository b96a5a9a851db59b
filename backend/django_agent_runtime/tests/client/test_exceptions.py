from __future__ import annotations

import pickle

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from django_agent_runtime import exceptions
from django_agent_runtime._errors import _BY_REASON, CallFailure, failure_error, output_of
from django_agent_runtime.grpc_client.agentruntime.v1 import error_pb2
from django_agent_runtime.types import Run, RunError, RunState, RunTarget

BUILT_INS = (ConnectionError, TimeoutError, LookupError, PermissionError, ValueError)


def make_failure(code: grpc.StatusCode, *details: error_details_pb2.ErrorInfo) -> CallFailure:
    status = status_pb2.Status(message="why")
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return CallFailure(code, "why", status.SerializeToString())


def make_run(state: RunState, error: RunError | None = None, output: dict[str, int] | None = None) -> Run:
    return Run(
        run_id="r1",
        target=RunTarget.TASK,
        task_type="t",
        agent_id="",
        description="",
        state=state,
        attempt=1,
        max_attempts=3,
        input={},
        output=output,
        error=error,
        metadata={},
        create_time=None,
        start_time=None,
        end_time=None,
        deadline=None,
        sequence=1,
    )


def test_every_exception_is_drawn_in_the_docstring() -> None:
    assert exceptions.__doc__ is not None
    for name in exceptions.__all__:
        assert name in exceptions.__doc__
        assert issubclass(getattr(exceptions, name), exceptions.AgentRuntimeError)


def test_every_reason_of_a_status_has_its_exception() -> None:
    for name, number in error_pb2.ErrorReason.items():
        if 0 < number < 32:
            reason = name.removeprefix("ERROR_REASON_")
            info = error_details_pb2.ErrorInfo(reason=reason, domain="agentruntime")
            error = failure_error(make_failure(grpc.StatusCode.UNKNOWN, info), address="here")
            assert error.reason == reason
            assert type(error) is exceptions.InternalError or isinstance(error, BUILT_INS)
            assert (type(error) is exceptions.InternalError) == (reason == "INTERNAL")


@pytest.mark.parametrize(
    ("code", "built_in"),
    [
        (grpc.StatusCode.UNAVAILABLE, ConnectionError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, TimeoutError),
        (grpc.StatusCode.NOT_FOUND, LookupError),
        (grpc.StatusCode.PERMISSION_DENIED, PermissionError),
        (grpc.StatusCode.UNAUTHENTICATED, PermissionError),
        (grpc.StatusCode.INVALID_ARGUMENT, ValueError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ConnectionError),
        (grpc.StatusCode.ALREADY_EXISTS, ValueError),
    ],
)
def test_a_status_without_a_reason_is_what_people_catch(code: grpc.StatusCode, built_in: type[Exception]) -> None:
    error = failure_error(CallFailure(code, "why", b"\xff no status"), address="here", request_id="q")
    assert isinstance(error, built_in)
    assert error.request_id == "q"


def test_a_message_that_grpc_finds_too_large_is_too_large() -> None:
    details = "CLIENT: Sent message larger than max (20971564 vs. 16777216)"
    error = failure_error(CallFailure(grpc.StatusCode.RESOURCE_EXHAUSTED, details), address="here")
    assert isinstance(error, exceptions.TooLarge)
    assert str(error).startswith("the request is 20971564 bytes long, the limit is 16777216")
    assert error.metadata == {"field": "request", "size": "20971564", "limit": "16777216"}
    details = "Received message larger than max"
    error = failure_error(CallFailure(grpc.StatusCode.RESOURCE_EXHAUSTED, details), address="here")
    assert (type(error), str(error)) == (exceptions.TooLarge, "the answer is larger than a message may be")


def test_what_the_runtime_says_is_carried() -> None:
    failure = make_failure(
        grpc.StatusCode.INVALID_ARGUMENT,
        error_details_pb2.ErrorInfo(reason="INVALID_ARGUMENT", domain="agentruntime", metadata={"field": "input"}),
        error_details_pb2.BadRequest(
            field_violations=[error_details_pb2.BadRequest.FieldViolation(field="input.a", description="missing")]
        ),
    )
    error = failure_error(failure, address="here")
    assert isinstance(error, exceptions.InvalidRequest)
    assert error.metadata == {"field": "input"}
    assert error.violations == (("input.a", "missing"),)


def test_retry_after_is_in_seconds() -> None:
    failure = make_failure(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="agentruntime"),
        error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)),
    )
    error = failure_error(failure, address="here")
    assert isinstance(error, exceptions.QueueFull)
    assert error.retry_after == 1.5


def test_a_reason_of_another_domain_is_not_ours() -> None:
    info = error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="a-proxy")
    error = failure_error(make_failure(grpc.StatusCode.NOT_FOUND, info), address="here")
    assert type(error) is exceptions.NotFound
    assert error.reason == "NOT_FOUND"


# What error.proto has no name for is named as gRPC names the status.
REASONS = set(error_pb2.ErrorReason.keys())
OF_GRPC = {"CallTimedOut", "Conflict", "NotFound", "Overloaded"}


@pytest.mark.parametrize("name", exceptions.__all__)
def test_every_class_has_a_reason_of_the_one_vocabulary(name: str) -> None:
    reason = getattr(exceptions, name).default_reason
    if name in OF_GRPC:
        assert reason in grpc.StatusCode.__members__
        assert f"ERROR_REASON_{reason}" not in REASONS
    else:
        assert f"ERROR_REASON_{reason}" in REASONS


def test_the_reason_of_a_class_is_the_one_the_runtime_gives_for_it() -> None:
    for reason, kind in _BY_REASON.items():
        assert reason in {kind.default_reason, "SLOW_READER"}
    assert exceptions.InvalidValue("bad").reason == "INVALID_ARGUMENT"
    assert exceptions.InvalidRequest("bad", reason="NEW").reason == "NEW"


def test_exceptions_survive_pickling() -> None:
    run = make_run(RunState.FAILED, RunError("AGENT_FAILED", "no", retryable=False))
    failed = exceptions.RunFailed("failed", run=run, reason="AGENT_FAILED")
    invalid = exceptions.InvalidRequest("bad", violations=[("a", "b")], request_id="q", metadata={"x": "y"})
    timed_out = exceptions.RunTimedOut("late", run=run)
    for error in (failed, invalid, timed_out):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert copy.__dict__ == error.__dict__


def test_the_end_of_a_run_is_its_output_or_raised() -> None:
    assert output_of(make_run(RunState.SUCCEEDED, output={"a": 1})) == {"a": 1}
    endings = {
        exceptions.RunFailed: make_run(RunState.FAILED, RunError("AGENT_FAILED", "it broke", retryable=False)),
        exceptions.RunCancelled: make_run(RunState.CANCELLED, RunError("RUN_CANCELLED", "no", retryable=False)),
        exceptions.RunTimedOut: make_run(RunState.TIMED_OUT, RunError("RUN_TIMED_OUT", "late", retryable=False)),
    }
    for kind, run in endings.items():
        with pytest.raises(kind) as caught:
            output_of(run)
        assert type(caught.value) is kind
        assert caught.value.run is run
    past_deadline = make_run(RunState.CANCELLED, RunError("RUN_DEADLINE_EXCEEDED", "late", retryable=False))
    with pytest.raises(TimeoutError):
        output_of(past_deadline)

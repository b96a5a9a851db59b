"""What cannot be sent is a ValueError that names it, before anything is sent."""

from __future__ import annotations

import inspect
import io
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from django_agent_runtime._sync.operations import SyncOperations
from django_agent_runtime.exceptions import InvalidRequest, InvalidValue, TooLarge
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.types import DeleteOperation, NewEvent, RunState, SetOperation

if TYPE_CHECKING:
    from collections.abc import Callable

REQUIRED = {
    "agent_id": "agent",
    "agent_key": "agent",
    "callback": print,
    "cron": "@daily",
    "destination": "nowhere",
    "event_type": "type",
    "file": io.BytesIO(),
    "graph_id": "graph",
    "key": "key",
    "path": "a.txt",
    "run_id": "00000000-0000-0000-0000-000000000001",
    "run_ids": ["00000000-0000-0000-0000-000000000001"],
    "schedule_id": "schedule",
    "task_type": "task",
    "thread_id": "thread",
    "value": None,
}
NEVER = [2**70, -(2**70), -1, math.nan, math.inf, -math.inf, 1e300, "5", True]
WHOLE = [*NEVER, 1.0]
# Every other number is of something that cannot be less than nothing.
SIGNED = {"priority"}


def numeric_arguments() -> Iterator[tuple[str, str, str]]:
    for name, method in inspect.getmembers(SyncOperations, inspect.isfunction):
        if name.startswith("_"):
            continue
        for parameter in inspect.signature(method).parameters.values():
            kind = str(parameter.annotation).split(" ", 1)[0]
            if kind in {"int", "float"}:
                yield name, parameter.name, kind


@pytest.fixture
def absent(unused_port: int) -> Iterator[GoRuntimeIntegration]:
    """A client of a runtime that is not there: what is sent fails in another way."""
    client = GoRuntimeIntegration(host="127.0.0.1", port=unused_port, timeout=0.2)
    yield client
    client.disconnect()


def test_the_numeric_arguments_are_found() -> None:
    found = {(method, name) for method, name, _ in numeric_arguments()}
    assert found >= {("set_state", "ttl"), ("submit_task", "deadline"), ("list_runs", "page_size")}


@pytest.mark.parametrize(("method", "name", "kind"), list(numeric_arguments()))
def test_numbers_that_cannot_be_sent(absent: GoRuntimeIntegration, method: str, name: str, kind: str) -> None:
    call: Callable[..., object] = getattr(absent, method)
    required = {key: REQUIRED[key] for key in inspect.signature(call).parameters if key in REQUIRED}
    for value in WHOLE if kind == "int" else NEVER:
        if name in SIGNED and value == -1:
            continue
        with pytest.raises(InvalidValue, match=name) as refusal:
            drain(call(**required, **{name: value}))
        assert [field for field, _ in refusal.value.violations] == [name]
    assert absent.stats["subscriptions"] == 0


def drain(result: object) -> None:
    """Take the first item of what is fetched as it is needed."""
    if isinstance(result, Iterator):
        next(result)


@pytest.mark.parametrize("value", NEVER)
def test_numbers_of_a_transaction(absent: GoRuntimeIntegration, value: Any) -> None:
    other = SetOperation("other", None)
    with pytest.raises(InvalidValue, match=r"operations\[1\]\.ttl"):
        absent.transact_state([other, SetOperation("key", None, ttl=value)])
    with pytest.raises(InvalidValue, match=r"operations\[1\]\.expected_revision"):
        absent.transact_state([other, SetOperation("key", None, expected_revision=value)])
    with pytest.raises(InvalidValue, match=r"operations\[1\]\.expected_revision"):
        absent.transact_state([other, DeleteOperation("key", expected_revision=value)])


@pytest.mark.parametrize("name", ["port", "timeout", "reconnection_attempts", "reconnection_delay"])
@pytest.mark.parametrize("value", NEVER)
def test_numbers_of_a_client(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        GoRuntimeIntegration(**{name: value})


@pytest.mark.parametrize("seconds", [0, 0.0, 1e-9, 0.5, 1.5])
def test_a_time_to_live_is_whole_seconds(absent: GoRuntimeIntegration, seconds: float) -> None:
    with pytest.raises(InvalidValue, match=r"^ttl is .* whole number of seconds from 1 to "):
        absent.set_state("key", 1, ttl=seconds)


def test_a_time_that_is_over_at_once_is_named_as_it_was_given(absent: GoRuntimeIntegration) -> None:
    calls: dict[str, Callable[[], object]] = {
        "timeout": lambda: absent.execute_task("echo", timeout=0),
        "run_timeout": lambda: absent.execute_task("echo", run_timeout=0),
        "deadline": lambda: absent.submit_task("echo", deadline=0),
    }
    for name, call in calls.items():
        with pytest.raises(InvalidValue, match=rf"^{name} is 0, must be a number of seconds above 0"):
            call()


def test_the_shortest_time_is_sent(client: GoRuntimeIntegration) -> None:
    with pytest.raises(TimeoutError):
        client.execute_task("sleep", {"seconds": 30}, run_timeout=1e-9)


def test_a_sequence_ahead_is_named_as_it_was_given(client: GoRuntimeIntegration) -> None:
    with pytest.raises(InvalidRequest, match=r"^from_sequence is 1000000000, ") as refusal:
        client.subscribe_to_events("a", print, from_sequence=10**9)
    assert [name for name, _ in refusal.value.violations] == ["from_sequence"]
    with pytest.raises(InvalidRequest, match=r"^after_sequence: is 1000000000, ") as refusal:
        client.stream_events("a", after_sequence=10**9)
    assert [name for name, _ in refusal.value.violations] == ["after_sequence"]


def test_a_value_above_every_limit_is_too_large(client: GoRuntimeIntegration) -> None:
    with pytest.raises(TooLarge, match=r"^the request is \d+ bytes long, the limit is 16777216; .*max_value_bytes"):
        client.set_state("key", "x" * (20 << 20))


@pytest.mark.parametrize(
    ("method", "arguments", "said"),
    [
        ("transact_state", [[("t1", 1)]], r"^operations\[0\] is \('t1', 1\), must be a SetOperation or a Delete"),
        ("transact_state", [5], "^operations is 5, must be a sequence"),
        ("publish_events", [[{"type": "a"}]], r"^events\[0\] has the key 'type', known are event_type, data, "),
        ("publish_events", [[NewEvent("a", 1), {"event_type": "a"}]], r"^events\[1\] has no 'data'"),
        ("publish_events", [[5]], r"^events\[0\] is 5, must be a NewEvent or a dict"),
        ("publish_events", ["text"], "^events is 'text', must be a sequence, not a text"),
        ("publish_events", [...], "^events is Ellipsis, must be a sequence"),
        ("subscribe_to_events", [5, print], "^event_type is 5, must be a sequence"),
        ("execute_task", [...], "^task_type must be a string, not ellipsis"),
        ("execute_task", ["echo", ...], "^input_data must be a dict, not ellipsis"),
    ],
)
def test_what_is_not_taken_is_named(absent: GoRuntimeIntegration, method: str, arguments: list[Any], said: str) -> None:
    with pytest.raises(InvalidValue, match=said):
        getattr(absent, method)(*arguments)


@pytest.mark.parametrize("states", [["x"], "x", ["queued", 5], [[]], 5])
def test_states_that_there_are_not(absent: GoRuntimeIntegration, states: Any) -> None:
    with pytest.raises(InvalidValue, match=r"^states is .* must be (one of queued, .*timed_out|a sequence)"):
        next(absent.list_runs(states=states))


def test_one_state_stands_for_itself(client: GoRuntimeIntegration) -> None:
    run = client.wait_run(client.submit_task("echo").run_id)
    for states in ("succeeded", RunState.SUCCEEDED, [RunState.SUCCEEDED, "failed"]):
        assert [item.run_id for item in client.list_runs(states=states)] == [run.run_id]
    assert list(client.list_runs(states="cancelled")) == []


def test_the_longest_times_can_be_sent(client: GoRuntimeIntegration) -> None:
    century = 100 * 365 * 86400
    assert client.execute_task("example_task", timeout=century, run_timeout=1)["input"] == {}
    assert client.set_state("key", 1, ttl=century)
    entry = client.get_state_entry("key")
    assert entry is not None
    assert entry.expire_time is not None
    assert entry.update_time is not None
    assert (entry.expire_time - entry.update_time).total_seconds() == pytest.approx(century, abs=1)


@pytest.mark.parametrize("text", ["\ud800", 7])
def test_a_text_that_cannot_be_sent_is_named(absent: GoRuntimeIntegration, text: Any) -> None:
    calls: dict[str, Callable[[], object]] = {
        "run_id": lambda: absent.get_run(text),
        "reason": lambda: absent.cancel_run("r", reason=text),
        "task_type": lambda: absent.execute_task(text, {}),
        "agent_id": lambda: absent.execute_task("echo", {}, agent_id=text),
        "description": lambda: absent.submit_task("echo", {}, description=text),
        "idempotency_key": lambda: absent.submit_task("echo", {}, idempotency_key=text),
    }
    for name, call in calls.items():
        with pytest.raises(InvalidValue, match=rf"^{name} "):
            call()


@pytest.mark.parametrize(
    ("tasks", "name"),
    [
        ([("echo", {})], "tasks[0]"),
        ([{"task_type": "echo"}, {"task": "echo"}], "tasks[1]"),
        ([{}], "tasks[0]"),
        (7, "tasks"),
    ],
)
def test_tasks_that_are_none_are_named(absent: GoRuntimeIntegration, tasks: Any, name: str) -> None:
    with pytest.raises(InvalidValue, match=rf"^{re.escape(name)} "):
        absent.submit_tasks(tasks)

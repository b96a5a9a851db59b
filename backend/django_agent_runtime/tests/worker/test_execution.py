"""What becomes of runs: results, failures, events, steps, interrupts, sub-runs."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from django_agent_runtime import adapters
from django_agent_runtime.exceptions import AgentRuntimeError
from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2 as agent_pb
from django_agent_runtime.grpc_client.agentruntime.v1 import worker_service_pb2 as worker_pb
from django_agent_runtime.runtime.interfaces import (
    AgentError,
    AgentRuntime,
    DoNotRetry,
    EventType,
    RetryAfter,
    RetryPolicy,
    RunContext,
    RunResult,
    SubRunFailed,
)
from django_agent_runtime.runtime.sync import SyncRunContext
from django_agent_runtime.runtime.worker import attempt


def agent(run: Callable[..., Any], key: str = "agent", **attributes: Any) -> AgentRuntime:
    """An agent whose `run` is the function."""
    kind = type("TestAgent", (AgentRuntime,), {"key": key, "run": staticmethod(run), **attributes})
    return kind()  # type: ignore[no-any-return]


def test_result_is_reported(runtime: Any, start_worker: Callable[..., Any]) -> None:
    async def echo(ctx: RunContext) -> RunResult:
        text = ctx.input_messages[0]["content"]
        return RunResult(final_output={"response": text}, final_messages=[{"role": "assistant", "content": text}])

    start_worker(runtime, agent(echo))
    run = runtime.wait_for(runtime.submit("agent", "hello"))
    assert run.state == "succeeded"
    assert run.output == {
        "final_output": {"response": "hello"},
        "final_messages": [{"role": "assistant", "content": "hello"}],
        "usage": {},
    }


def test_context_tells_of_the_run(runtime: Any, start_worker: Callable[..., Any]) -> None:
    async def tell(ctx: RunContext) -> dict[str, Any]:
        return {
            "run_id": ctx.run_id,
            "key": ctx.agent_key,
            "attempt": ctx.attempt,
            "params": ctx.params,
            "metadata": ctx.metadata,
            "conversation": ctx.conversation_id,
            "cancelled": ctx.is_cancelled,
        }

    start_worker(runtime, agent(tell))
    run = runtime.wait_for(runtime.submit("agent", params={"a": 1}, metadata=b'{"conversation_id": "c1"}'))
    assert run.output is not None
    assert run.output["final_output"] == {
        "run_id": run.run_id,
        "key": "agent",
        "attempt": 1,
        "params": {"a": 1},
        "metadata": {"conversation_id": "c1"},
        "conversation": "c1",
        "cancelled": False,
    }


def test_hello_carries_settings(runtime: Any, start_worker: Callable[..., Any]) -> None:
    async def nothing(ctx: RunContext) -> None: ...

    start_worker(
        runtime,
        agent(nothing),
        agent(nothing, "other", retry=RetryPolicy(max_attempts=7, multiplier=3), run_timeout=1.5, description="Other."),
        settings={"MAX_RETRIES": 5, "LEASE_TTL_SECONDS": 12, "RUN_TIMEOUT_SECONDS": 60},
        concurrency=4,
        name="name",
        go_runtime={"token": "secret", "namespace": "acme"},
    )
    runtime.wait_until(lambda: runtime.hellos)
    hello = runtime.hellos[0]
    first, second = hello.agents
    assert (hello.name, hello.concurrency, hello.lease_ttl.seconds) == ("name", 4, 12)
    assert (first.agent_id, first.retry.max_attempts, first.run_timeout.seconds) == ("agent", 5, 60)
    assert (second.retry.max_attempts, second.retry.multiplier, second.description) == (7, 3, "Other.")
    assert second.run_timeout.ToTimedelta().total_seconds() == 1.5
    assert runtime.metadata[0]["authorization"] == "Bearer secret"
    assert runtime.metadata[0]["agent-runtime-namespace"] == "acme"


class SaysNothing(Exception):
    """Its text is no text, as where `__str__` returns an attribute that is None."""

    def __str__(self) -> str:
        return None  # type: ignore[return-value]  # noqa: PLE0307 - that is what is wrong


class ForbidsItself(DoNotRetry):
    """Its text cannot be made."""

    def __str__(self) -> str:
        raise KeyError("detail")


class IsOpaque(Exception):
    """Nothing of it can be looked at."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class NeverAgain(AgentError):
    """The next attempt is at no time that there is."""

    retry_after = float("nan")


@pytest.mark.parametrize(
    ("error", "message", "retryable", "retry_after"),
    [
        (ValueError("bad\nTraceback"), "ValueError: bad", True, 0),
        (RuntimeError(), "the agent raised RuntimeError", True, 0),
        (DoNotRetry("never"), "never", False, 0),
        (RetryAfter(1.5, "busy"), "busy", True, 1.5),
        (SystemExit(3), "SystemExit: 3", True, 0),
        (KeyboardInterrupt(), "the agent raised KeyboardInterrupt", True, 0),
        (asyncio.CancelledError(), "the agent raised CancelledError", True, 0),
        (SaysNothing(), "the agent raised SaysNothing", True, 0),
        (ForbidsItself(), "ForbidsItself", False, 0),
        (NeverAgain("later"), "the agent raised NeverAgain", True, 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
def test_failure_is_reported(
    runtime: Any,
    start_worker: Callable[..., Any],
    error: BaseException,
    message: str,
    retryable: bool,
    retry_after: float,
    plain: bool,
) -> None:
    async def fail(ctx: RunContext) -> None:
        raise error

    def fail_plainly(ctx: SyncRunContext) -> None:
        raise error

    async def fine(ctx: RunContext) -> None: ...

    start_worker(runtime, agent(fail_plainly if plain else fail), agent(fine, "fine"))
    run = runtime.wait_for(runtime.submit("agent", max_attempts=1))
    assert run.state == "failed"
    assert run.fail is not None
    assert (run.fail.message, run.fail.retryable) == (message, retryable)
    assert run.fail.retry_after.ToTimedelta().total_seconds() == retry_after
    assert run.fail.error_type == type(error).__name__
    assert runtime.wait_for(runtime.submit("fine")).state == "succeeded"


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
def test_failure_that_cannot_be_looked_at_is_one(runtime: Any, start_worker: Callable[..., Any], plain: bool) -> None:
    async def fail(ctx: RunContext) -> None:
        raise IsOpaque

    def fail_plainly(ctx: SyncRunContext) -> None:
        raise IsOpaque

    start_worker(runtime, agent(fail_plainly if plain else fail), concurrency=1)
    for _ in range(2):
        assert runtime.wait_for(runtime.submit("agent", max_attempts=1)).state == "failed"


@pytest.mark.parametrize("seconds", [float("nan"), float("inf")])
def test_retry_after_is_a_number_of_seconds(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds"):
        RetryAfter(seconds)


def test_task_of_an_agent_cannot_end_the_worker(runtime: Any, start_worker: Callable[..., Any]) -> None:
    async def leave(ctx: RunContext) -> None:
        async def exit_here() -> None:
            sys.exit(1)

        await asyncio.create_task(exit_here())

    async def fine(ctx: RunContext) -> None: ...

    start_worker(runtime, agent(leave), agent(fine, "fine"))
    assert runtime.wait_for(runtime.submit("agent", max_attempts=1)).state == "failed"
    assert runtime.wait_for(runtime.submit("fine")).state == "succeeded"


def test_agent_that_cancels_all_tasks_ends_no_worker(runtime: Any, start_worker: Callable[..., Any]) -> None:
    async def cancel_all(ctx: RunContext) -> None:
        for task in asyncio.all_tasks():
            task.cancel()
        await asyncio.sleep(0)

    async def fine(ctx: RunContext) -> None: ...

    start_worker(runtime, agent(cancel_all), agent(fine, "fine"))
    assert runtime.wait_for(runtime.submit("agent", max_attempts=1)).state == "failed"
    assert runtime.wait_for(runtime.submit("fine")).state == "succeeded"


@pytest.mark.parametrize("result", [{"a": object()}, {"a": float("nan")}, {1: 2}], ids=["object", "nan", "key"])
def test_result_that_is_no_json_fails_for_good(runtime: Any, start_worker: Callable[..., Any], result: Any) -> None:
    async def run_it(ctx: RunContext) -> RunResult:
        return RunResult(final_output=result)

    start_worker(runtime, agent(run_it))
    run = runtime.wait_for(runtime.submit("agent"))
    assert (run.state, run.attempt) == ("failed", 1)
    assert "result" in run.fail.message


def test_result_that_the_runtime_refuses_fails_for_good(runtime: Any, start_worker: Callable[..., Any]) -> None:
    async def fine(ctx: RunContext) -> None: ...

    runtime.refused_types["succeed"] = "TOO_LARGE"
    start_worker(runtime, agent(fine))
    run = runtime.wait_for(runtime.submit("agent"))
    assert (run.state, run.attempt) == ("failed", 1)
    assert run.fail.error_type == "TOO_LARGE"


def test_run_that_cannot_be_ended_is_given_away(runtime: Any, start_worker: Callable[..., Any]) -> None:
    async def fine(ctx: RunContext) -> None: ...

    runtime.refused_types.update(succeed="TOO_LARGE", fail="INVALID_ARGUMENT")
    start_worker(runtime, agent(fine), settings={"LEASE_TTL_SECONDS": 1})
    run = runtime.wait_for(runtime.submit("agent"))
    assert run.reason == "ATTEMPTS_EXHAUSTED"


@pytest.mark.parametrize("size", [10, 1 << 21])
def test_event_that_the_runtime_refuses_fails_the_run(
    runtime: Any, start_worker: Callable[..., Any], size: int
) -> None:
    async def emit(ctx: RunContext) -> None:
        # More than may be on its way has this wait for the runtime's word.
        await ctx.emit("mine", {"text": "x" * size})
        await asyncio.sleep(60)

    runtime.refused_types["events"] = "TOO_LARGE"
    start_worker(runtime, agent(emit))
    run = runtime.wait_for(runtime.submit("agent"))
    assert (run.state, run.attempt, run.fail.error_type) == ("failed", 1, "TOO_LARGE")
    assert "did not keep an event" in run.fail.message


def test_acknowledgement_of_a_later_report_is_none_of_a_refused_one(
    runtime: Any, start_worker: Callable[..., Any]
) -> None:
    async def work(ctx: RunContext) -> dict[str, Any]:
        with pytest.raises(AgentRuntimeError, match="refused by the fake"):
            await ctx.step("one", lambda: 1)
        return {"refused": True}

    runtime.refused_types["step"] = "INVALID_ARGUMENT"
    worker = start_worker(runtime, agent(work))
    follow = worker._follow

    def follow_with_late_ack(response: worker_pb.WorkResponse) -> None:
        for refusal in response.refusals:
            response.acks.add(run_id=refusal.run_id, lease=refusal.lease, number=refusal.number + 1)
        follow(response)

    worker._follow = follow_with_late_ack
    run = runtime.wait_for(runtime.submit("agent"))
    assert run.output["final_output"] == {"refused": True}


def test_plain_agent_runs_in_a_thread(runtime: Any, start_worker: Callable[..., Any]) -> None:
    def plain(ctx: SyncRunContext) -> dict[str, Any]:
        ctx.emit("custom", {"a": 1})
        ctx.checkpoint({"b": 2})
        doubled = ctx.step("double", lambda: 21 * 2)
        return {"doubled": doubled, "state": ctx.get_state(), "main": threading.current_thread().name}

    start_worker(runtime, agent(plain))
    run = runtime.wait_for(runtime.submit("agent"))
    assert run.output["final_output"] == {"doubled": 42, "state": {"b": 2}, "main": "agent-code"}
    assert [event.type for event in run.events] == ["custom", "state.checkpoint"]
    assert run.steps == {"double#1": b"42"}


def test_events_keep_their_order_and_visibility(runtime: Any, start_worker: Callable[..., Any]) -> None:
    async def emit(ctx: RunContext) -> None:
        await ctx.emit(EventType.TOOL_CALL, {"n": 1})
        await ctx.emit("mine", {"n": 2})
        await ctx.emit("mine", {"n": 3}, visibility="internal")
        await ctx.emit_user_message("hi")
        await ctx.emit_error("oops", {"code": 1})
        await ctx.checkpoint({"n": 4})
        await ctx.emit("quiet")

    start_worker(runtime, agent(emit), settings={"EVENT_VISIBILITY": {"quiet": "debug"}})
    run = runtime.wait_for(runtime.submit("agent"))
    assert [(event.type, event.visibility, event.payload) for event in run.events] == [
        ("tool.call", agent_pb.EVENT_VISIBILITY_DEBUG, {"n": 1}),
        ("mine", agent_pb.EVENT_VISIBILITY_USER, {"n": 2}),
        ("mine", agent_pb.EVENT_VISIBILITY_INTERNAL, {"n": 3}),
        ("assistant.message", agent_pb.EVENT_VISIBILITY_USER, {"content": "hi"}),
        ("error", agent_pb.EVENT_VISIBILITY_USER, {"error": "oops", "details": {"code": 1}}),
        ("state.checkpoint", agent_pb.EVENT_VISIBILITY_INTERNAL, {"n": 4}),
        ("quiet", agent_pb.EVENT_VISIBILITY_DEBUG, {}),
    ]


def test_many_emits_at_once(runtime: Any, start_worker: Callable[..., Any]) -> None:
    """Tools that run in parallel emit in parallel; and more than may be on the way at a time are emitted."""

    async def emit(ctx: RunContext) -> None:
        await asyncio.gather(*(ctx.emit("n", {"n": number, "filler": "x" * 1000}) for number in range(3000)))
        for number in range(3000, 6000):
            await ctx.emit("n", {"n": number})

    start_worker(runtime, agent(emit))
    run = runtime.wait_for(runtime.submit("agent"))
    assert run.state == "succeeded"
    assert [event.payload["n"] for event in run.events] == list(range(6000))


def test_emit_waits_while_too_much_is_on_its_way(
    make_runtime: Callable[..., Any], start_worker: Callable[..., Any]
) -> None:
    emitted = []

    async def emit(ctx: RunContext) -> None:
        for number in range(20):
            await ctx.emit("n", {"n": number, "filler": "x" * 200_000})
            emitted.append(number)

    runtime = make_runtime()
    start_worker(runtime, agent(emit))
    with runtime.changed:
        run = runtime.submit("agent")
        run.acks_held = True
    runtime.wait_until(lambda: len(run.events) > 4)
    # The fake acknowledges nothing of this run, so no more follow however long one waits: the code stands still.
    assert len(emitted) <= 7
    with runtime.changed:
        run.acks_held = False
    runtime.cut()
    assert runtime.wait_for(run).state == "succeeded"
    assert [event.payload["n"] for event in run.events] == list(range(20))


@pytest.mark.parametrize(
    ("event_type", "payload"),
    [("run.mine", {}), ("", {}), ("x" * 201, {}), ("mine", {"a": object()}), ("mine", ["a"]), ("mine", {1: 1})],
    ids=["reserved", "empty", "long", "object", "list", "key"],
)
def test_events_that_cannot_be_sent(
    runtime: Any, start_worker: Callable[..., Any], event_type: str, payload: Any
) -> None:
    async def emit(ctx: RunContext) -> str:
        with pytest.raises(ValueError, match=r"event_type|payload"):
            await ctx.emit(event_type, payload)
        with pytest.raises(ValueError, match="visibility"):
            await ctx.emit("mine", {}, visibility="nobody")
        return "refused"

    start_worker(runtime, agent(emit))
    assert runtime.wait_for(runtime.submit("agent")).state == "succeeded"


def test_deltas_are_joined_in_order(runtime: Any, start_worker: Callable[..., Any]) -> None:
    async def stream(ctx: RunContext) -> None:
        for number in range(1000):
            await ctx.emit(EventType.ASSISTANT_DELTA, {"content": f"{number} "})
        await ctx.emit(EventType.ASSISTANT_DELTA, {"content": "other", "index": 1})
        await ctx.emit("between", {})
        await ctx.emit(EventType.ASSISTANT_DELTA, {"content": "end"})

    start_worker(runtime, agent(stream))
    run = runtime.wait_for(runtime.submit("agent"))
    whole = "".join(f"{number} " for number in range(1000))
    types = [event.type for event in run.events]
    assert run.texts() == f"{whole}otherend"
    assert types[-2:] == ["between", "assistant.delta"]
    assert run.events[-3].payload == {"content": "other", "index": 1}
    # The first goes at once, the others together.
    assert run.events[0].payload == {"content": "0 "}
    assert len(types) < 500


def test_events_of_many_runs_go_in_few_messages(runtime: Any, start_worker: Callable[..., Any]) -> None:
    begun = ended = 0.0

    async def emit(ctx: RunContext) -> None:
        nonlocal begun, ended
        begun = begun or time.monotonic()
        for number in range(100):
            await asyncio.sleep(0.002)
            await ctx.emit("mine", {"number": number})
        ended = time.monotonic()

    start_worker(runtime, agent(emit), concurrency=3)
    for run in [runtime.submit("agent") for _ in range(3)]:
        assert [event.payload["number"] for event in runtime.wait_for(run).events] == list(range(100))
    # One each 5 ms, but for the results, for which somebody may wait.
    assert runtime.messages < (ended - begun) / 0.005 + 10


def test_first_delta_does_not_wait_for_a_second(runtime: Any, start_worker: Callable[..., Any]) -> None:
    seen = threading.Event()

    async def stream(ctx: RunContext) -> None:
        await ctx.emit(EventType.ASSISTANT_DELTA, {"content": "a"})
        # Without giving way to any timer: what is sent now was sent by emit itself.
        assert seen.wait(30)
        await ctx.emit(EventType.ASSISTANT_DELTA, {"content": "b"})
        await asyncio.sleep(60)

    start_worker(runtime, agent(stream))
    run = runtime.submit("agent")
    runtime.wait_until(lambda: run.texts() == "a")
    seen.set()
    # A later one follows by itself, though the agent says nothing more.
    runtime.wait_until(lambda: run.texts() == "ab")
    runtime.cancel(run)


def test_steps_are_recorded_once_and_replayed(runtime: Any, start_worker: Callable[..., Any]) -> None:
    calls: list[str] = []

    async def steps(ctx: RunContext) -> dict[str, Any]:
        async def charge() -> Any:
            calls.append("charge")
            return ("a", 1)

        def look_up() -> str:
            calls.append("look up")
            assert threading.current_thread().name == "agent-code"
            return "found"

        first = await ctx.step("charge", charge)
        second = await ctx.step("charge", charge)
        third = await ctx.step("look up", look_up)
        if ctx.attempt == 1:
            raise ConnectionError("after the steps")
        return {"results": [first, second, third, await ctx.step("late", charge)]}

    start_worker(runtime, agent(steps))
    run = runtime.wait_for(runtime.submit("agent"))
    assert run.output["final_output"] == {"results": [["a", 1], ["a", 1], "found", ["a", 1]]}
    assert calls == ["charge", "charge", "look up", "charge"]
    assert list(run.steps) == ["charge#1", "charge#2", "look up#1", "late#1"]


def test_step_returns_when_its_record_is_durable(
    make_runtime: Callable[..., Any], start_worker: Callable[..., Any]
) -> None:
    returned = threading.Event()

    async def one_step(ctx: RunContext) -> None:
        async def work() -> int:
            return 1

        await ctx.step("work", work)
        returned.set()

    runtime = make_runtime()
    start_worker(runtime, agent(one_step))
    with runtime.changed:
        run = runtime.submit("agent")
        run.acks_held = True
    runtime.wait_until(lambda: run.steps)
    assert not returned.wait(0.2)
    # The next stream says what was kept.
    runtime.cut()
    assert returned.wait(30)
    with runtime.changed:
        run.acks_held = False
    assert runtime.wait_for(run).state == "succeeded"


def test_parallel_steps_have_stable_keys(runtime: Any, start_worker: Callable[..., Any]) -> None:
    async def steps(ctx: RunContext) -> dict[str, Any]:
        async def work(number: int) -> int:
            # The later ones end first.
            await asyncio.sleep(0.01 * (5 - number))
            return number

        results = await asyncio.gather(*(ctx.step("work", partial(work, n)) for n in range(5)))
        if ctx.attempt == 1:
            raise ConnectionError("again")
        return {"results": results}

    start_worker(runtime, agent(steps))
    run = runtime.wait_for(runtime.submit("agent"))
    assert run.output["final_output"] == {"results": [0, 1, 2, 3, 4]}
    assert {key: json.loads(value) for key, value in run.steps.items()} == {f"work#{n + 1}": n for n in range(5)}


@pytest.mark.parametrize("own", [True, False], ids=["call", "agent"])
def test_step_that_takes_too_long(runtime: Any, start_worker: Callable[..., Any], own: bool) -> None:
    async def slow(ctx: RunContext) -> None:
        await ctx.step("slow", lambda: asyncio.sleep(60), timeout=0.01 if own else None)

    start_worker(runtime, agent(slow, step_timeout=60 if own else 0.01))
    run = runtime.wait_for(runtime.submit("agent"))
    assert (run.state, run.attempt, run.fail.error_type) == ("failed", 3, "TimeoutError")
    assert run.fail.message == "TimeoutError: step slow took longer than 0.01 s"
    assert run.fail.retryable


def test_state_is_kept_over_attempts(runtime: Any, start_worker: Callable[..., Any]) -> None:
    async def keep(ctx: RunContext) -> dict[str, Any]:
        state = await ctx.get_state()
        await ctx.checkpoint({"count": (state or {"count": 0})["count"] + 1})
        again = await ctx.get_state()
        assert again is not None
        again["count"] += 100
        if ctx.attempt < 3:
            raise ConnectionError("again")
        return {"first": state, "last": await ctx.get_state()}

    start_worker(runtime, agent(keep))
    run = runtime.wait_for(runtime.submit("agent"))
    assert run.output["final_output"] == {"first": {"count": 2}, "last": {"count": 3}}


@pytest.mark.parametrize("catches", [False, True], ids=["lets pass", "catches"])
@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
def test_interrupt_parks_and_resumes(
    runtime: Any, start_worker: Callable[..., Any], catches: bool, plain: bool
) -> None:
    before: list[int] = []

    async def ask(ctx: RunContext) -> Any:
        async def prepare() -> int:
            before.append(1)
            return 1

        await ctx.step("prepare", prepare)
        try:
            name = await ctx.interrupt({"question": "name?"})
            sure = await ctx.interrupt({"question": "sure?"})
        except BaseException:
            if catches:
                return {"caught": True}
            raise
        return {"name": name, "sure": sure}

    def ask_plainly(ctx: SyncRunContext) -> Any:
        ctx.step("prepare", lambda: before.append(1))
        try:
            name = ctx.interrupt({"question": "name?"})
            sure = ctx.interrupt({"question": "sure?"})
        except BaseException:
            if catches:
                return {"caught": True}
            raise
        return {"name": name, "sure": sure}

    start_worker(runtime, agent(ask_plainly if plain else ask))
    run = runtime.wait_for(runtime.submit("agent"), "waiting")
    assert (run.interrupt.interrupt_id, json.loads(run.interrupt.payload)) == ("interrupt#1", {"question": "name?"})
    runtime.resume(run, "Ada")
    runtime.wait_for(run, "waiting")
    assert run.interrupt.interrupt_id == "interrupt#2"
    runtime.resume(run, None)
    runtime.wait_for(run)
    assert run.output["final_output"] == {"name": "Ada", "sure": None}
    assert before == [1]
    assert "failed" not in " ".join(run.history)


def test_answer_is_for_the_question_it_was_given_to(runtime: Any, start_worker: Callable[..., Any]) -> None:
    """A model that calls its tools in another order than before must not get a yes that was for something else."""
    orders = iter([12, 13, 12])

    async def refund(ctx: RunContext) -> dict[str, Any]:
        refunded = {}
        for order in (next(orders), 14):
            refunded[str(order)] = await ctx.interrupt({"question": f"Refund order {order}?"})
        return refunded

    start_worker(runtime, agent(refund))
    run = runtime.wait_for(runtime.submit("agent"), "waiting")
    runtime.resume(run, "yes to 12")
    runtime.wait_for(run, "waiting")
    assert json.loads(run.interrupt.payload) == {"question": "Refund order 13?"}
    runtime.resume(run, "no to 13")
    # The answer to 12 is there, and that to 14 not yet.
    runtime.wait_for(run, "waiting")
    assert json.loads(run.interrupt.payload) == {"question": "Refund order 14?"}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="LangGraph cannot interrupt before Python 3.11")
def test_graph_that_asks_the_same_twice_gets_an_answer_each_time(
    runtime: Any, start_worker: Callable[..., Any]
) -> None:
    graphs = pytest.importorskip("langgraph.graph")
    ask_of_graph = pytest.importorskip("langgraph.types").interrupt
    messages = pytest.importorskip("langchain_core.messages")

    def ask(state: Any) -> Any:
        return {"messages": [messages.AIMessage(str(ask_of_graph("sure?")))]}

    graph = graphs.StateGraph(graphs.MessagesState)
    graph.add_sequence([("first", ask), ("second", ask)])
    graph.add_edge(graphs.START, "first")
    start_worker(runtime, adapters.LangGraphRuntime("agent", graph.compile()))
    run = runtime.submit("agent")
    for answer in ("yes", "no"):
        runtime.wait_for(run, "waiting")
        runtime.resume(run, answer)
    runtime.wait_for(run)
    assert [message["content"] for message in run.output["final_messages"]] == ["yes", "no"]


def test_question_with_a_name_is_that_whatever_it_says(runtime: Any, start_worker: Callable[..., Any]) -> None:
    times = itertools.count()

    async def ask(ctx: RunContext) -> dict[str, Any]:
        return {"sure": await ctx.interrupt({"asked_at": next(times)}, name="sure")}

    start_worker(runtime, agent(ask))
    run = runtime.wait_for(runtime.submit("agent"), "waiting")
    assert run.interrupt.interrupt_id == "sure#1"
    runtime.resume(run, True)
    assert runtime.wait_for(run).output["final_output"] == {"sure": True}


def test_parking_waits_for_steps_beside_it(runtime: Any, start_worker: Callable[..., Any]) -> None:
    charged: list[int] = []

    async def both(ctx: RunContext) -> dict[str, Any]:
        async def charge() -> int:
            await asyncio.sleep(0.05)
            charged.append(1)
            return 1

        return {"results": await asyncio.gather(ctx.step("charge", charge), ctx.interrupt("?"))}

    start_worker(runtime, agent(both))
    run = runtime.wait_for(runtime.submit("agent"), "waiting")
    assert run.steps == {"charge#1": b"1"}
    runtime.resume(run, "yes")
    runtime.wait_for(run)
    assert run.output["final_output"] == {"results": [1, "yes"]}
    assert charged == [1]


@pytest.mark.parametrize("plain", [False, True], ids=["async", "plain"])
@pytest.mark.parametrize("asks", ["question", "sub-run"])
def test_step_that_asks_is_done_from_its_top(
    runtime: Any, start_worker: Callable[..., Any], asks: str, plain: bool
) -> None:
    begun: list[str] = []

    async def outer(ctx: RunContext) -> Any:
        async def tool() -> Any:
            begun.append("tool")
            return await ctx.step("inner", inner)

        async def inner() -> Any:
            begun.append("inner")
            if asks == "question":
                return await ctx.interrupt("sure?")
            return (await ctx.run_agent("child"))["final_output"]["answer"]

        async def beside() -> str:
            begun.append("beside")
            await asyncio.sleep(0.05)
            return "done"

        return {"results": await asyncio.gather(ctx.step("tool", tool), ctx.step("beside", beside))}

    def outer_plainly(ctx: SyncRunContext) -> Any:
        def tool() -> Any:
            begun.append("tool")
            if asks == "question":
                return ctx.interrupt("sure?")
            return ctx.run_agent("child")["final_output"]["answer"]

        begun.extend(("inner", "beside"))
        return {"results": [ctx.step("tool", tool), "done"]}

    async def child(ctx: RunContext) -> Any:
        return {"answer": "yes"}

    start_worker(runtime, agent(outer_plainly if plain else outer), agent(child, "child"))
    run = runtime.submit("agent")
    if asks == "question":
        runtime.wait_for(run, "waiting")
        if not plain:
            assert run.steps == {"beside#1": b'"done"'}
        runtime.resume(run, "yes")
    runtime.wait_for(run)
    assert run.output["final_output"] == {"results": ["yes", "done"]}
    assert begun.count("tool") == 2
    assert plain or begun.count("beside") == 1


def test_sub_runs_are_waited_for_together(runtime: Any, start_worker: Callable[..., Any]) -> None:
    started: list[str] = []

    async def parent(ctx: RunContext) -> dict[str, Any]:
        started.append("parent")
        outputs = await asyncio.gather(
            ctx.run_agent("child", [{"role": "user", "content": "a"}]),
            ctx.run_agent("child", [{"role": "user", "content": "b"}]),
            ctx.run_agent("child", [{"role": "user", "content": "c"}], name="third"),
        )
        return {"outputs": [output["final_output"]["said"] for output in outputs]}

    async def child(ctx: RunContext) -> dict[str, Any]:
        said = ctx.input_messages[0]["content"]
        started.append(str(said))
        await asyncio.sleep(0.02)
        return {"said": said}

    # With one place only, a parent that held it while it waits would wait for ever.
    start_worker(runtime, agent(parent), agent(child, "child"), concurrency=1)
    run = runtime.wait_for(runtime.submit("agent"))
    assert run.output["final_output"] == {"outputs": ["a", "b", "c"]}
    assert set(run.children) == {"child#1", "child#2", "third#1"}
    assert sorted(started) == ["a", "b", "c", "parent", "parent"]
    assert run.history.count("waiting") == 1


def test_sub_run_that_fails(runtime: Any, start_worker: Callable[..., Any]) -> None:
    async def parent(ctx: RunContext) -> dict[str, Any]:
        try:
            await ctx.run_agent("child", input={"own": 1}, metadata={"m": 1}, timeout=5)
        except SubRunFailed as error:
            return {"state": error.state, "message": error.error["message"], "again": ctx.attempt}
        return {}

    async def child(ctx: RunContext) -> None:
        assert (ctx.input, ctx.metadata) == ({"own": 1}, {"m": 1})
        raise DoNotRetry("no luck")

    start_worker(runtime, agent(parent), agent(child, "child"))
    run = runtime.wait_for(runtime.submit("agent"))
    assert run.output["final_output"] == {"state": "failed", "message": "no luck", "again": 2}


def test_answer_about_a_sub_run_that_is_lost(runtime: Any, start_worker: Callable[..., Any]) -> None:
    """It is asked for again on the next stream, whatever else was acknowledged meanwhile."""

    async def parent(ctx: RunContext) -> Any:
        asking = asyncio.ensure_future(ctx.run_agent("child"))
        await asyncio.sleep(0)
        await ctx.step("work", lambda: 1)
        return await asking

    async def child(ctx: RunContext) -> str:
        return "here"

    runtime.answers_lost = 1
    start_worker(runtime, agent(parent), agent(child, "child"))
    run = runtime.submit("agent")
    runtime.wait_until(lambda: run.children and run.steps)
    runtime.cut()
    assert runtime.wait_for(run).output["final_output"]["final_output"] == {"response": "here"}
    assert len(run.children) == 1


def test_context_variables_are_the_run_s_own(runtime: Any, start_worker: Callable[..., Any]) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="fresh")
    seen: list[str] = []

    async def leak(ctx: RunContext) -> None:
        seen.append(variable.get())
        variable.set("used")

    start_worker(runtime, agent(leak))
    for _ in range(3):
        runtime.wait_for(runtime.submit("agent"))
    assert seen == ["fresh"] * 3


def test_run_that_takes_too_long(runtime: Any, start_worker: Callable[..., Any]) -> None:
    stopped = threading.Event()

    async def slow(ctx: RunContext) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    start_worker(runtime, agent(slow))
    # It counts from when the run is handed out, and the code is to have begun by then.
    run = runtime.wait_for(runtime.submit("agent", run_timeout=1))
    assert run.state == "timed_out"
    assert stopped.wait(30)


def test_run_that_is_cancelled_before_it_begins_frees_its_place(runtime: Any, start_worker: Callable[..., Any]) -> None:
    executed: list[str] = []

    async def work(ctx: RunContext) -> None:
        executed.append(ctx.run_id)

    start_worker(runtime, agent(work), concurrency=1)
    runtime.wait_until(lambda: runtime.workers)
    with runtime.changed:
        # The two go to the worker in one message.
        early = runtime.submit("agent")
        runtime.cancel(early)
    run = runtime.wait_for(runtime.submit("agent"))
    assert executed[-1:] == [run.run_id]
    assert runtime.releases == 1


def test_code_that_goes_on_after_its_run_is_told_of(
    runtime: Any,
    start_worker: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempt, "_LEFTOVER_SECONDS", 0.1)
    over = threading.Event()

    def block(ctx: SyncRunContext) -> None:
        ctx.emit("begun")
        assert over.wait(30)

    start_worker(runtime, agent(block))
    run = runtime.submit("agent")
    runtime.wait_for_event(run, "begun")
    runtime.cancel(run)
    try:
        deadline = time.monotonic() + 30
        while not (said := [record for record in caplog.records if "agent goes on" in record.message]):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert (vars(said[0])["run_id"], vars(said[0])["why"]) == (run.run_id, "RUN_CANCELLED")
    finally:
        over.set()


def test_blocking_agent_does_not_stop_heartbeats(runtime: Any, start_worker: Callable[..., Any]) -> None:
    executions: list[int] = []

    async def block(ctx: RunContext) -> None:
        executions.append(ctx.attempt)
        time.sleep(4.5)  # noqa: ASYNC251 - what it must survive

    start_worker(runtime, agent(block), settings={"LEASE_TTL_SECONDS": 2})
    run = runtime.wait_for(runtime.submit("agent"))
    assert (run.state, executions) == ("succeeded", [1])

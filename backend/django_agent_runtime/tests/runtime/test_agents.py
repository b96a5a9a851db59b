from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from django_agent_runtime.exceptions import InvalidValue
from django_agent_runtime.runtime.current import current_context
from django_agent_runtime.runtime.execution import execute_agent
from django_agent_runtime.runtime.interfaces import (
    AgentRuntime,
    DoNotRetry,
    EventType,
    Parked,
    RetryAfter,
    RunContext,
    RunInterrupted,
    RunResult,
    SubRunFailed,
    Visibility,
)
from django_agent_runtime.runtime.local import LocalRunContext
from django_agent_runtime.runtime.registry import agent, register_runtime
from django_agent_runtime.runtime.sync import SyncRunContext
from django_agent_runtime.testing import arun_agent_locally, run_agent_locally


class Echo(AgentRuntime):
    @property
    def key(self) -> str:
        return "echo"

    async def run(self, ctx: RunContext) -> RunResult:
        text = ctx.input_messages[-1]["content"]
        await ctx.emit(EventType.ASSISTANT_MESSAGE, {"content": text})
        return RunResult(final_output={"response": text}, final_messages=[{"role": "assistant", "content": text}])


def test_result_as_it_is_recorded() -> None:
    assert RunResult(final_output={"a": 1}).to_dict() == {"final_output": {"a": 1}, "final_messages": [], "usage": {}}
    assert RunResult(metadata={"m": 1}).to_dict()["metadata"] == {"m": 1}


def test_event_types_are_their_texts() -> None:
    texts = [f"{EventType.TOOL_CALL}", str(EventType.TOOL_CALL), EventType.TOOL_CALL]
    assert texts == ["tool.call"] * 3
    assert Visibility("debug") is Visibility.DEBUG


def test_errors_say_whether_to_try_again() -> None:
    assert DoNotRetry("no").retryable is False
    assert (RetryAfter(30).retryable, RetryAfter(30).retry_after) == (True, 30.0)
    assert not issubclass(Parked, Exception)
    assert not issubclass(RunInterrupted, Exception)


def test_agent_runs_with_no_runtime() -> None:
    run = run_agent_locally(Echo, "hello")
    assert run.output == {"response": "hello"}
    [event] = run.events
    assert (event.type, event.payload, event.visibility) == ("assistant.message", {"content": "hello"}, Visibility.USER)


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ({"a": 1}, {"final_output": {"a": 1}, "final_messages": [], "usage": {}}),
        (None, {"final_output": {}, "final_messages": [], "usage": {}}),
        (
            "hi",
            {
                "final_output": {"response": "hi"},
                "final_messages": [{"role": "assistant", "content": "hi"}],
                "usage": {},
            },
        ),
        (RunResult(usage={"t": 1}), {"final_output": {}, "final_messages": [], "usage": {"t": 1}}),
        (RunResult(None, None, None, None), {"final_output": {}, "final_messages": [], "usage": {}}),  # type: ignore[arg-type]
    ],
)
@pytest.mark.parametrize("blocking", [True, False])
def test_functions_return_what_they_like(returned: Any, expected: dict[str, Any], blocking: bool) -> None:
    async def answer(ctx: RunContext) -> Any:
        return returned

    def answer_plainly(ctx: SyncRunContext) -> Any:
        return returned

    made = agent(key="answers")(answer_plainly if blocking else answer)
    assert made.blocking is blocking
    result = run_agent_locally(made).result
    assert result is not None
    assert result.to_dict() == expected


def test_function_that_returns_no_result() -> None:
    with pytest.raises(TypeError, match=r"'answers' returned int"):
        run_agent_locally(agent(key="answers")(lambda _: 7))


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ({"final_output": "done"}, "final_output is str; it must be a dict"),
        ({"final_messages": {"role": "assistant"}}, "final_messages is dict; it must be a list"),
        ({"usage": 7}, "usage is int; it must be a dict"),
        ({"metadata": "none"}, "metadata is str; it must be a dict"),
    ],
)
def test_result_whose_members_are_something_else(members: dict[str, Any], complaint: str) -> None:
    with pytest.raises(TypeError, match=f"'answers' returned a RunResult whose {complaint}"):
        run_agent_locally(agent(key="answers")(lambda _: RunResult(**members)))


def test_decorator_with_and_without_arguments() -> None:
    @agent
    def first(ctx: SyncRunContext) -> None:
        """Does this.

        And that.
        """

    @agent(key="second-agent", description="Does that.", max_attempts=5, run_timeout=9)
    async def second(ctx: RunContext) -> str:
        return "called"

    assert (first.key, first.description, first.max_attempts) == ("first", "Does this.", None)
    assert (second.key, second.description) == ("second-agent", "Does that.")
    assert (second.max_attempts, second.run_timeout) == (5, 9)
    assert asyncio.run(second(None)) == "called"


def do_everything(ctx: SyncRunContext) -> dict[str, Any]:
    thread = threading.get_ident()
    ctx.emit("custom", {"a": 1}, visibility="debug")
    ctx.emit_user_message("working")
    ctx.emit_error("odd", {"code": 1})
    ctx.checkpoint({"at": 1})
    in_step = ctx.step("where", threading.get_ident)
    child = ctx.run_agent("echo", [{"role": "user", "content": "sub"}])
    return {
        "state": ctx.get_state(),
        "same_thread": in_step == thread,
        "main_thread": thread == threading.main_thread().ident,
        "answer": ctx.interrupt("sure?"),
        "child": child["final_output"],
        "called": ctx.call(_plus_one(1)),
        "params": ctx.params,
        "current": getattr(current_context(), "run_id", None) == ctx.run_id,
        "identity": [ctx.agent_key, ctx.attempt, ctx.conversation_id, ctx.metadata, ctx.is_cancelled, ctx.cancelled()],
    }


async def _plus_one(number: int) -> int:
    return number + 1


def test_plain_function_does_everything_from_its_thread() -> None:
    run = run_agent_locally(
        do_everything, params={"p": 1}, metadata={"m": 1}, conversation_id="c", answers=["yes"], agents={"echo": Echo}
    )
    assert run.output == {
        "state": {"at": 1},
        "same_thread": True,
        "main_thread": False,
        "answer": "yes",
        "child": {"response": "sub"},
        "called": 2,
        "params": {"p": 1},
        "current": True,
        "identity": ["do_everything", 1, "c", {"m": 1}, False, False],
    }
    assert [(event.type, event.visibility.value) for event in run.events] == [
        ("custom", "debug"),
        ("assistant.message", "user"),
        ("error", "user"),
        ("state.checkpoint", "internal"),
        ("step.completed", "internal"),
    ]
    assert run.get_payloads("error") == [{"error": "odd", "details": {"code": 1}}]


def test_decorated_async_agents_stay_async() -> None:
    def traced(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args)

        return wrapper

    class Traced(AgentRuntime):
        key = "traced"

        @traced
        async def run(self, ctx: RunContext) -> Any:
            await ctx.emit("custom", {})
            return "done"

    assert run_agent_locally(Traced).output == {"response": "done"}
    assert run_agent_locally(agent(key="function")(traced(Traced().run))).output == {"response": "done"}


def test_method_of_a_plain_agent_runs_in_a_thread() -> None:
    class Plain(AgentRuntime):
        key = "plain"

        def run(self, ctx: Any) -> Any:
            ctx.emit("custom", {})
            return "done" if threading.current_thread() is not threading.main_thread() else "in the way"

    assert run_agent_locally(Plain).output == {"response": "done"}


async def test_cancelled_plain_function_is_interrupted_at_its_next_call() -> None:
    reached, go_on = threading.Event(), threading.Event()
    ended: list[BaseException] = []

    def work(ctx: SyncRunContext) -> None:
        reached.set()
        assert go_on.wait(30)
        try:
            ctx.emit("too.late", {})
        except BaseException as error:
            ended.append(error)
            raise

    ctx = LocalRunContext("work", {})
    task = asyncio.create_task(execute_agent(agent(work), ctx))
    assert await asyncio.to_thread(reached.wait, 30)
    task.cancel()
    # A second time, as a worker does that loses patience.
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done(), "the code is still there"
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [type(error) for error in ended] == [RunInterrupted]
    assert ctx.run.events == []


async def test_plain_function_that_waits_for_the_loop_is_interrupted_at_once() -> None:
    waits = asyncio.Event()
    never = asyncio.Event()
    ended: list[type[BaseException]] = []

    async def wait() -> None:
        waits.set()
        await never.wait()

    def work(ctx: SyncRunContext) -> None:
        try:
            ctx.call(wait())
        except BaseException as error:
            ended.append(type(error))
            raise

    task = asyncio.create_task(execute_agent(agent(work), LocalRunContext("work", {})))
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [RunInterrupted]


async def test_cancelled_context_refuses_everything() -> None:
    ctx = LocalRunContext("chat", {})
    ctx.cancel()
    assert ctx.is_cancelled
    assert ctx.cancelled()
    with pytest.raises(asyncio.CancelledError):
        await ctx.emit("custom", {})
    with pytest.raises(asyncio.CancelledError):
        ctx.raise_if_cancelled()


async def test_steps_are_recorded_once_and_replayed() -> None:
    calls: list[str] = []

    async def charge() -> dict[str, Any]:
        calls.append("charge")
        return {"pair": (1, 2)}

    async def work(ctx: RunContext) -> dict[str, Any]:
        first = await ctx.step("charge", charge)
        second = await ctx.step("charge", charge)
        plain = await ctx.step("plain", lambda: threading.current_thread() is threading.main_thread())
        return {"first": first, "second": second, "plain": plain}

    run = await arun_agent_locally(work)
    assert run.steps == {"charge#1": {"pair": [1, 2]}, "charge#2": {"pair": [1, 2]}, "plain#1": False}
    assert run.output["first"] == {"pair": [1, 2]}, "the first attempt sees what later ones do"
    again = await arun_agent_locally(work, steps=run.steps, attempt=2)
    assert again.output == run.output
    assert calls == ["charge", "charge"]


async def test_failed_and_slow_steps_record_nothing() -> None:
    async def work(ctx: RunContext) -> None:
        with pytest.raises(ZeroDivisionError):
            await ctx.step("fails", lambda: 1 / 0)
        with pytest.raises((TimeoutError, asyncio.TimeoutError)):
            await ctx.step("slow", asyncio.Event().wait, timeout=0.01)
        with pytest.raises(ValueError, match="'odd'"):
            await ctx.step("odd", object)

    assert (await arun_agent_locally(work)).steps == {}


async def test_interrupts_wait_for_answers() -> None:
    async def work(ctx: RunContext) -> list[Any]:
        first = await ctx.interrupt({"ask": 1})
        try:
            second = await ctx.interrupt({"ask": 2})
        except Exception:  # noqa: BLE001
            second = "swallowed"
        return {"answers": [first, second]}  # type: ignore[return-value]

    waiting = await arun_agent_locally(work, answers=["a"])
    assert (waiting.state, waiting.interrupt, waiting.result) == ("waiting", {"ask": 2}, None)
    assert (await arun_agent_locally(work, answers=["a", "b"])).output == {"answers": ["a", "b"]}


async def test_parked_is_found_in_an_exception_group() -> None:
    groups = pytest.importorskip("builtins")
    if not hasattr(groups, "BaseExceptionGroup"):
        pytest.skip("this Python has no exception groups")

    async def work(ctx: RunContext) -> None:
        try:
            await ctx.interrupt("?")
        except Parked as parked:
            raise groups.BaseExceptionGroup("tasks", [groups.BaseExceptionGroup("more", [parked])]) from None

    assert (await arun_agent_locally(work)).state == "waiting"


async def test_sub_runs() -> None:
    async def fail(ctx: RunContext) -> None:
        raise DoNotRetry("not today")

    async def work(ctx: RunContext) -> dict[str, Any]:
        with pytest.raises(SubRunFailed, match="not today") as error:
            await ctx.run_agent("fail")
        assert (error.value.state, error.value.agent_key) == ("failed", "fail")
        outputs = await asyncio.gather(*(ctx.run_agent("echo", [{"role": "user", "content": str(n)}]) for n in "12"))
        return {"outputs": [output["final_output"]["response"] for output in outputs]}

    register_runtime(Echo())
    assert (await arun_agent_locally(work, agents={"fail": fail})).output == {"outputs": ["1", "2"]}


@pytest.mark.parametrize(
    ("event_type", "payload"), [("run.succeeded", {}), ("x", {"a": object()}), ("", {}), ("x", [1])]
)
async def test_what_a_worker_would_refuse_is_refused(event_type: str, payload: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        await LocalRunContext("chat", {}).emit(event_type, payload)


@pytest.mark.parametrize("details", ["text", ["code"], 1])
async def test_details_of_an_error_that_are_no_dict_are_named(details: Any) -> None:
    ctx = LocalRunContext("chat", {})
    with pytest.raises(InvalidValue, match=f"details must be a dict, not {type(details).__name__}"):
        await ctx.emit_error("odd", details)
    assert ctx.run.events == []


@pytest.mark.parametrize("name", ["", "x" * 201, "é" * 101])
@pytest.mark.parametrize("method", ["step", "interrupt", "run_agent"])
async def test_name_that_a_worker_would_refuse_is_refused(method: str, name: str) -> None:
    ctx = LocalRunContext("chat", {}, answers=["yes"], agents={"echo": Echo()})
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "step": lambda: ctx.step(name, lambda: 1),
        "interrupt": lambda: ctx.interrupt("sure?", name=name),
        "run_agent": lambda: ctx.run_agent("echo", [{"role": "user", "content": "hi"}], name=name),
    }
    with pytest.raises(InvalidValue, match="name must be a text of 1 to 200 bytes"):
        await calls[method]()
    assert ctx.run.steps == {}


def test_result_that_is_no_json_fails() -> None:
    with pytest.raises(ValueError, match="output"):
        run_agent_locally(agent(key="x")(lambda _: {"a": object()}))


def test_checkpoints_of_an_earlier_run() -> None:
    async def work(ctx: RunContext) -> dict[str, Any]:
        before = await ctx.get_state()
        await ctx.checkpoint({"count": (before or {"count": 0})["count"] + 1})
        return {"before": before, "after": await ctx.get_state()}

    first = run_agent_locally(work)
    assert first.output == {"before": None, "after": {"count": 1}}
    assert run_agent_locally(work, state=first.checkpoint).output == {"before": {"count": 1}, "after": {"count": 2}}

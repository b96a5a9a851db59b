"""Functions of a worker, as graphs and agents of the real runtime call them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from django_agent_runtime.exceptions import RunFailed
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.runtime.functions import FunctionOfWorker, function
from django_agent_runtime.runtime.interfaces import RunContext
from django_agent_runtime.runtime.sync import SyncRunContext
from django_agent_runtime.testing.process import GoRuntimeProcess

pytestmark = pytest.mark.faults

GRAPH = """
name: pricing
state: {article: {}, articles: {}, price: {}, prices: {reducer: append}}
nodes:
  one: {kind: python, with: {function: shop.price_of, arguments: {article: state.article}}, set: {price: out}}
  each: {kind: python, with: {function: shop.price_of, arguments: {article: state.item}}, set: {prices: "[out]"}}
edges: [[START, one]]
branches: {one: [{each: state.articles, to: each}]}
output: {price: state.price, prices: state.prices}
"""

calls: list[str] = []


@function(name="shop.price_of")
def price_of(article: str) -> float:
    """What an article costs."""
    calls.append(article)
    return {"tea": 2.5, "cake": 4.0}[article]


@function
async def approve(amount: int, ctx: RunContext) -> dict[str, Any]:
    """Ask a person."""
    return {"agreed": await ctx.interrupt({"question": f"Pay {amount}?"}), "amount": amount}


@function
async def tell(amount: int, ctx: RunContext) -> int:
    """Say how far it is, and what a model says."""
    for n in range(amount):
        await ctx.emit("progress", {"n": n})
        await ctx.emit("assistant.delta", {"content": f"{n} "})
    return amount


@function
def fail(ctx: SyncRunContext) -> None:
    """Fail."""
    raise ValueError("there is no such article")


@function
def big() -> dict[str, int]:
    """Return numbers of which a double holds one."""
    return {"held": 2**53, "beyond": 2**53 + 1}


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[GoRuntimeProcess]:
    graphs = tmp_path / "definitions" / "graphs"
    graphs.mkdir(parents=True)
    (graphs / "pricing.yaml").write_text(GRAPH)
    amount = "{amount: state.amount}"
    for name, arguments in {"approve": amount, "tell": amount, "fail": "{}", "big": "{}"}.items():
        (graphs / f"{name}.yaml").write_text(
            f"name: {name}\nstate: {{amount: {{}}, got: {{}}}}\n"
            f"nodes: {{n: {{kind: python, with: {{function: {name}, arguments: {arguments}}}, set: {{got: out}}}}}}\n"
            "edges: [[START, n]]\noutput: {got: state.got}\n"
        )
    (graphs / "tell_each.yaml").write_text(
        "name: tell_each\nstate: {amounts: {}, got: {reducer: append}}\nnodes:\n"
        "  n: {kind: python, with: {function: tell, arguments: {amount: state.item}}, set: {got: '[out]'}}\n"
        "branches: {START: [{each: state.amounts, to: n}]}\n"
    )
    with GoRuntimeProcess(tmp_path, arguments=("--definitions-dir", str(tmp_path / "definitions"))) as process:
        yield process


@pytest.fixture
def client(runtime: GoRuntimeProcess) -> Iterator[GoRuntimeIntegration]:
    integration = GoRuntimeIntegration(**runtime.settings)
    yield integration
    integration.disconnect()


def test_graph_calls_functions_of_a_worker(
    runtime: GoRuntimeProcess, client: GoRuntimeIntegration, start_worker: Callable[..., Any]
) -> None:
    start_worker(runtime, price_of)
    calls.clear()
    result = client.execute_task(
        "langgraph_task", {"graph_id": "pricing", "article": "tea", "articles": ["cake", "tea"]}
    )
    assert result["output"] == {"price": 2.5, "prices": [4.0, 2.5]}
    assert sorted(calls) == ["cake", "tea", "tea"]


def test_function_waits_for_a_person(
    runtime: GoRuntimeProcess, client: GoRuntimeIntegration, start_worker: Callable[..., Any]
) -> None:
    start_worker(runtime, approve)
    run = client.submit_task("langgraph_task", {"graph_id": "approve", "amount": 7})
    child = None
    for event in client.watch_run(run.run_id, visibility="internal"):
        if event.type == "run.waiting":
            child = event.payload["run_ids"][0]
            break
    assert child is not None
    for event in client.watch_run(child, visibility="internal"):
        if event.type == "run.interrupted":
            assert event.payload["payload"] == {"question": "Pay 7?"}
            break
    client.resume_run(child, "yes")
    output = client.wait_run(run.run_id).output
    assert output is not None
    assert output["output"] == {"got": {"agreed": "yes", "amount": 7}}


def test_stream_of_a_graph_has_what_its_functions_tell(
    runtime: GoRuntimeProcess, client: GoRuntimeIntegration, start_worker: Callable[..., Any]
) -> None:
    start_worker(runtime, tell)
    stream = client.stream_graph("tell", {"amount": 3}, stream_mode=["custom", "messages", "updates"])
    chunks = list(stream)
    assert [chunk for mode, chunk in chunks if mode == "custom"] == [{"progress": {"n": n}} for n in range(3)]
    said = [chunk for mode, chunk in chunks if mode == "messages"]
    assert "".join(message.content for message, _ in said) == "0 1 2 "
    assert said[0][1] == {"langgraph_node": "n", "langgraph_step": 0}
    assert chunks[-1] == ("updates", {"n": {"got": 3}})


async def test_stream_of_a_graph_has_what_its_functions_tell_side_by_side(
    runtime: GoRuntimeProcess, client: GoRuntimeIntegration, start_worker: Callable[..., Any]
) -> None:
    start_worker(runtime, tell)
    chunks = [
        chunk
        async for chunk in client.astream_graph(
            "tell_each", {"amounts": [1, 2, 3]}, stream_mode=["custom", "updates", "values"]
        )
    ]
    assert sorted(chunk["progress"]["n"] for mode, chunk in chunks if mode == "custom") == [0, 0, 0, 1, 1, 2]
    assert [mode for mode, _ in chunks[-4:]] == ["updates", "updates", "updates", "values"]
    assert chunks[-1][1]["got"] == [1, 2, 3]


def test_stream_of_a_graph_has_what_its_functions_ask(
    runtime: GoRuntimeProcess, client: GoRuntimeIntegration, start_worker: Callable[..., Any]
) -> None:
    start_worker(runtime, approve)
    stream = client.stream_graph("approve", {"amount": 7})
    [question] = next(stream)["__interrupt__"]
    assert (question.node, question.value) == ("n", {"question": "Pay 7?"})
    assert question.run_id != stream.run_id
    client.resume_run(question.run_id, "yes", interrupt_id=question.interrupt_id)
    assert list(stream) == [{"n": {"got": {"agreed": "yes", "amount": 7}}}]


def test_function_that_fails_fails_its_graph(
    runtime: GoRuntimeProcess, client: GoRuntimeIntegration, start_worker: Callable[..., Any]
) -> None:
    start_worker(runtime, fail)
    with pytest.raises(RunFailed, match=r"node n of graph fail: agent function:fail: .*there is no such article"):
        client.execute_task("langgraph_task", {"graph_id": "fail"})


def test_integers_are_never_other_ones(
    runtime: GoRuntimeProcess, client: GoRuntimeIntegration, start_worker: Callable[..., Any]
) -> None:
    start_worker(runtime, big)
    result = client.execute_task("langgraph_task", {"graph_id": "big"})
    assert result["output"] == {"got": {"held": 2**53, "beyond": str(2**53 + 1)}}
    with pytest.raises(ValueError, match=r"9007199254740993 at byte .* send it as a string"):
        client.execute_task("langgraph_task", {"graph_id": "big", "amount": 2**53 + 1})


def test_functions_are_no_agents_for_callers(
    runtime: GoRuntimeProcess, client: GoRuntimeIntegration, start_worker: Callable[..., Any]
) -> None:
    start_worker(runtime, price_of)
    client.execute_task("langgraph_task", {"graph_id": "pricing", "article": "tea", "articles": ["tea"]})
    assert not [agent.agent_id for agent in client.list_agents() if "function" in agent.agent_id]


def test_functions_stay_functions() -> None:
    assert isinstance(price_of, FunctionOfWorker)
    assert price_of("tea") == 2.5
    assert price_of.key == "function:shop.price_of"
    assert json.loads(json.dumps(price_of.tool.parameters))["required"] == ["article"]
    assert price_of.description == "What an article costs."

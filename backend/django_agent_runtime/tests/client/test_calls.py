from __future__ import annotations

import asyncio
import inspect
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from django_agent_runtime import exceptions
from django_agent_runtime._async.operations import AsyncOperations
from django_agent_runtime._channel import ChannelSession
from django_agent_runtime._sync.operations import SyncOperations
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.types import ConnectionState, RunState, RunTarget

if TYPE_CHECKING:
    from django_agent_runtime.testing.process import GoRuntimeProcess


def test_every_method_has_a_twin_with_the_same_arguments() -> None:
    twins = {name: member for name, member in inspect.getmembers(SyncOperations, inspect.isfunction) if name[0] != "_"}
    assert {f"a{name}" for name in twins} == {
        name for name, _ in inspect.getmembers(AsyncOperations, inspect.isfunction) if name[0] != "_"
    }
    assert {"create_run", "execute_task", "get_state", "publish_event", "create_schedule", "watch_run"} <= set(twins)
    for name, member in twins.items():
        assert member.__doc__, name
        assert (
            inspect.signature(member).parameters == inspect.signature(getattr(AsyncOperations, f"a{name}")).parameters
        )


def test_connecting_says_so(client: GoRuntimeIntegration) -> None:
    states = [client.connection_state]
    assert client.connect() is True
    assert client.is_connected() is True
    states.append(client.connection_state)
    client.disconnect()
    states.append(client.connection_state)
    assert states == [ConnectionState.CLOSED, ConnectionState.CONNECTED, ConnectionState.CLOSED]
    assert client.wait_ready() is True, "a client that was disconnected connects again"


def test_nobody_there_is_a_connection_error_that_says_what_to_do(unused_port: int) -> None:
    client = GoRuntimeIntegration(
        host="127.0.0.1", port=unused_port, timeout=0.5, reconnection_attempts=2, reconnection_delay=0.01
    )
    with pytest.raises(ConnectionError, match=r"after 2 attempts.*manage\.py goruntime"):
        client.connect()
    with pytest.raises(ConnectionError, match=f"127.0.0.1:{unused_port}"):
        client.get_state("k")
    with pytest.raises(ConnectionError):
        client.subscribe_to_events("t", print)
    assert client.stats["subscriptions"] == 0
    assert client.is_connected() is False
    assert client.connection_state is ConnectionState.RECONNECTING
    client.disconnect()


def test_the_unix_socket_is_used(go_runtime_process: GoRuntimeProcess, unused_port: int) -> None:
    with GoRuntimeIntegration(port=unused_port, socket=str(go_runtime_process.socket)) as client:
        assert client.get_server_info().namespace == "default"


def test_server_info(client: GoRuntimeIntegration) -> None:
    info = client.get_server_info()
    assert info.namespace == client.settings.namespace
    assert info.durability == "fsync"
    assert info.max_value_bytes == 1 << 20
    assert info.start_time is not None


def test_execute_task_returns_the_output(client: GoRuntimeIntegration) -> None:
    output = client.execute_task(
        "example_task", {"param1": "value1"}, agent_id="agent1", description="Example", metadata={"trace": True}
    )
    assert output["input"] == {"param1": "value1"}
    run = client.get_run(output["run_id"])
    assert run.state is RunState.SUCCEEDED
    assert run.state.ended
    assert (run.agent_id, run.description, run.metadata) == ("agent1", "Example", {"trace": True})
    assert run.target is RunTarget.TASK
    assert run.output == output
    assert run.deadline is not None
    assert run.create_time is not None
    assert run.create_time.tzinfo is not None


def test_execute_agent_task_needs_a_registered_agent(client: GoRuntimeIntegration) -> None:
    agents = {agent.agent_id: agent for agent in client.list_agents()}
    assert "frontend_agent" in agents
    assert agents["frontend_agent"].task_types[0].input_schema["type"] == "object"
    with pytest.raises(exceptions.AgentNotFound) as caught:
        client.execute_agent_task("nobody", "generate_component", {})
    assert caught.value.reason == "AGENT_NOT_FOUND"
    assert "frontend_agent" in caught.value.metadata["known"]
    assert caught.value.request_id
    assert caught.value.__cause__ is not None


def test_execute_agent_task_answers(client: GoRuntimeIntegration) -> None:
    output = client.execute_agent_task(
        "frontend_agent", "generate_component", {"component_type": "button", "props": {"label": "Click me"}}
    )
    assert output["files"]


def test_graph_and_chain_answer_as_the_guide_asks_them(client: GoRuntimeIntegration) -> None:
    asked = {"graph_id": "reasoning_graph", "input": "How do I implement a binary search tree?"}
    for task_type in ("langraph_task", "langgraph_task"):
        result = client.execute_task(task_type, asked, description="Execute a reasoning task using LangGraph")
        assert set(result["output"]) == {"answer", "plan", "review", "rounds"}
        # No model is configured here.
        assert (result["graph_id"], result["offline"], "OPENAI_API_KEY" in result["notice"]) == (
            "reasoning_graph",
            True,
            True,
        )
    result = client.execute_task("langchain_task", {"chain_id": "research_chain", "query": "Quantum computing"})
    assert len(result["output"]["findings"]) == 3


def test_graph_says_what_its_nodes_do(client: GoRuntimeIntegration) -> None:
    run = client.submit_task("langraph_task", {"graph_id": "reasoning_graph", "input": "Why?"})
    client.wait_run(run.run_id)
    events = [event for event in client.watch_run(run.run_id) if event.type.startswith("graph.")]
    assert [event.payload["node"] for event in events if event.type == "graph.node.finished"] == [
        "plan",
        "draft",
        "review",
    ]
    assert {str(event.visibility) for event in events} == {"debug"}


def test_graph_that_does_not_exist(client: GoRuntimeIntegration) -> None:
    for task_type, member in (("langraph_task", "graph_id"), ("langchain_task", "chain_id")):
        with pytest.raises(LookupError, match="reasoning_graph") as caught:
            client.execute_task(task_type, {member: "nothing"})
        assert isinstance(caught.value, exceptions.GraphNotFound)
        assert caught.value.metadata["graph_id"] == "nothing"
    with pytest.raises(ValueError, match="question"):
        client.execute_task("langraph_task", {"graph_id": "reasoning_graph", "question": "Why?"})
    for wrong in (None, "", 7):
        with pytest.raises(ValueError, match="input"):
            client.execute_task("langraph_task", {"graph_id": "reasoning_graph", "input": wrong})
    with pytest.raises(ValueError, match="input"):
        client.execute_task("langraph_task", {"graph_id": "reasoning_graph"})


def test_a_task_type_that_does_not_exist(client: GoRuntimeIntegration) -> None:
    assert "example_task" in [task.task_type for task in client.list_task_types()]
    with pytest.raises(LookupError, match="nope"):
        client.execute_task("nope")


def test_input_that_does_not_fit_names_the_field(client: GoRuntimeIntegration) -> None:
    with pytest.raises(exceptions.InvalidRequest) as caught:
        client.execute_agent_task("frontend_agent", "generate_component", {"component_type": 7})
    assert any("component_type" in field for field, _ in caught.value.violations)


def test_input_must_be_a_dict(client: GoRuntimeIntegration) -> None:
    with pytest.raises(ValueError, match="input_data must be a dict"):
        client.execute_task("example_task", [1])  # type: ignore[arg-type]


def test_a_run_that_takes_too_long_is_a_timeout(client: GoRuntimeIntegration) -> None:
    with pytest.raises(exceptions.RunTimedOut) as caught:
        client.execute_task("sleep", {"seconds": 30}, timeout=0.3)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.run.state is RunState.CANCELLED
    with pytest.raises(exceptions.RunTimedOut) as caught:
        client.execute_task("sleep", {"seconds": 30}, run_timeout=0.3)
    assert caught.value.run.state is RunState.TIMED_OUT


def test_submit_wait_cancel(client: GoRuntimeIntegration) -> None:
    run = client.submit_task("sleep", {"seconds": 60})
    with pytest.raises(TimeoutError):
        client.wait_run(run.run_id, timeout=0.1)
    with pytest.raises(TimeoutError, match="after 0 s"):
        client.wait_run(run.run_id, timeout=0)
    assert client.cancel_run(run.run_id, "enough").state is RunState.CANCELLED
    assert client.wait_run(run.run_id).state is RunState.CANCELLED
    done = client.submit_task("example_task", {"a": 1})
    assert client.wait_run(done.run_id).state is RunState.SUCCEEDED
    assert client.wait_run(done.run_id, timeout=0).state is RunState.SUCCEEDED
    with pytest.raises(exceptions.RunEnded):
        client.cancel_run(done.run_id)
    with pytest.raises(exceptions.RunNotFound):
        client.get_run(str(uuid.uuid4()))


def test_the_same_idempotency_key_is_one_run(client: GoRuntimeIntegration) -> None:
    first = client.submit_task("example_task", {"a": 1}, idempotency_key="once")
    assert client.submit_task("example_task", {"a": 1}, idempotency_key="once").run_id == first.run_id
    with pytest.raises(exceptions.IdempotencyConflict):
        client.submit_task("example_task", {"a": 2}, idempotency_key="once")
    own = str(uuid.uuid4())
    assert client.submit_task("example_task", run_id=own).run_id == own


def test_submit_agent_task(client: GoRuntimeIntegration) -> None:
    run = client.submit_agent_task("frontend_agent", "generate_component", {"component_type": "button"})
    assert run.target is RunTarget.AGENT
    assert client.wait_run(run.run_id).state is RunState.SUCCEEDED


def test_list_runs_goes_through_pages(client: GoRuntimeIntegration) -> None:
    submitted = [client.submit_task("example_task", agent_id="pages").run_id for _ in range(7)]
    for run_id in submitted:
        client.wait_run(run_id)
    listed = list(client.list_runs(agent_id="pages", states=["succeeded"], page_size=2))
    assert [run.run_id for run in listed] == submitted[::-1]
    assert listed[0].input is None
    assert listed[0].output is None


async def test_twins_for_asyncio(client: GoRuntimeIntegration) -> None:
    async with client as same:
        assert same is client
        assert (await client.aexecute_task("example_task", {"a": 1}))["input"] == {"a": 1}
        run = await client.asubmit_task("example_task")
        assert (await client.await_run(run.run_id)).state is RunState.SUCCEEDED
        assert [item.run_id async for item in client.alist_runs(page_size=1)]
        with pytest.raises(LookupError):
            await client.aexecute_task("nope")
        results = await asyncio.gather(*(client.aset_state(f"k{number}", number) for number in range(200)))
        assert all(results)
        assert len([entry async for entry in client.alist_state("k")]) == 200


async def test_cancelling_a_task_cancels_its_call(client: GoRuntimeIntegration) -> None:
    run = await client.asubmit_task("sleep", {"seconds": 60})
    waiting = asyncio.create_task(client.await_run(run.run_id, timeout=60))
    # One turn of the loop is enough: a call has begun when its task waits for the first time.
    await asyncio.sleep(0)
    session = client._transport._session
    assert session is not None
    assert session.calls == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.to_thread(wait_for_no_calls, session)
    await client.acancel_run(run.run_id)


def wait_for_no_calls(session: ChannelSession) -> None:
    # Leaving a closed session wakes whoever waits for its last call; this one is open, so ask again.
    deadline = time.monotonic() + 20
    while session.calls and time.monotonic() < deadline:
        time.sleep(0.001)
    assert session.calls == 0


def test_client_of_another_namespace_sees_its_own(client: GoRuntimeIntegration) -> None:
    async def read_theirs() -> object:
        async with client.with_settings(namespace="another") as other:
            return await other.aget_state("k")

    client.set_state("k", 1)
    with client.with_settings(namespace="another") as other:
        assert other.get_state("k") is None
        other.set_state("k", 2)
    assert client.get_state("k") == 1
    assert asyncio.run(read_theirs()) == 2


def test_disconnecting_ends_calls_in_flight(client: GoRuntimeIntegration) -> None:
    async def disconnect_during_a_call() -> None:
        run = await client.asubmit_task("sleep", {"seconds": 60}, deadline=60)
        waiting = asyncio.create_task(client.await_run(run.run_id, timeout=60))
        await asyncio.sleep(0)
        client.disconnect()
        with pytest.raises(exceptions.ClientClosed):
            await waiting
        await client.acancel_run(run.run_id)

    asyncio.run(disconnect_during_a_call())

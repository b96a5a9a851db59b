from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, ToolCallChunk, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt
from pydantic import Field

from django_agent_runtime.adapters import LangGraphRuntime
from django_agent_runtime.runtime.current import current_context
from django_agent_runtime.testing import LocalRun, arun_agent_locally

needs_311 = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="LangGraph's context does not reach its nodes before Python 3.11"
)
# Frameworks warn of their own doings.
pytestmark = pytest.mark.filterwarnings("ignore")


class Scripted(BaseChatModel):
    inputs: list[Any] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage("never"))])

    def _stream(self, messages: Any, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        self.inputs.append(messages)
        if messages[-1].type != "tool":
            chunk = ToolCallChunk(name="look_up", args='{"word": "sun"}', id="c1", index=0)
            yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[chunk]))
            return
        for word in ("It ", "shines ", "too."):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))


@needs_311
async def test_graph_tells_the_story(story: Any) -> None:
    model = Scripted()

    async def call_model(state: Any) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    async def call_tool(state: Any) -> Any:
        ctx = current_context()
        assert ctx is not None
        await ctx.emit("seen.by.the.tool", {})
        call = state["messages"][-1].tool_calls[0]
        # All of them, as some nodes do: those that are known are not told again.
        return {
            "messages": [*state["messages"], ToolMessage(f"{call['args']['word']} is bright", tool_call_id=call["id"])]
        }

    graph = StateGraph(MessagesState)
    graph.add_node("model", call_model)
    graph.add_node("tool", call_tool)
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", lambda state: "tool" if state["messages"][-1].tool_calls else END)
    graph.add_edge("tool", "model")
    run = await arun_agent_locally(LangGraphRuntime("g", graph.compile()), story.earlier)
    story.check(run)
    kinds = [message.type for message in model.inputs[0]]
    assert kinds == ["system", "human", "ai", "tool", "ai", "human"]


@needs_311
async def test_interrupts_park_the_run_and_nodes_are_not_run_again() -> None:
    ran: list[str] = []

    def work(state: Any) -> Any:
        ran.append("work")
        return {"messages": [AIMessage("Working.")]}

    def ask_first(state: Any) -> Any:
        return {"messages": [AIMessage(f"First: {interrupt({'ask': 1})}")]}

    def ask_second(state: Any) -> Any:
        return {"messages": [AIMessage(f"Second: {interrupt({'ask': 2})}")]}

    graph = StateGraph(MessagesState)
    graph.add_sequence([work, ask_first, ask_second])
    graph.add_edge(START, "work")
    agent = LangGraphRuntime("g", graph.compile())
    first = await arun_agent_locally(agent, "Go")
    assert (first.state, first.interrupt) == ("waiting", {"ask": 1})
    second = await arun_agent_locally(agent, "Go", answers=["a"], state=first.checkpoint, run_id=first.run_id)
    assert (second.state, second.interrupt) == ("waiting", {"ask": 2})
    third = await arun_agent_locally(agent, "Go", answers=["a", "b"], state=second.checkpoint, run_id=first.run_id)
    assert third.output == {"response": "Second: b"}
    assert third.result is not None
    contents = [message["content"] for message in third.result.final_messages]
    assert contents == ["Working.", "First: a", "Second: b"]
    assert ran == ["work"]
    told = [payload["content"] for run in (first, second, third) for payload in run.get_payloads("assistant.message")]
    assert told == contents, "each message is told once over all attempts"


async def test_goes_on_where_a_crash_left_it() -> None:
    ran: list[str] = []

    def first(state: Any) -> Any:
        ran.append("first")
        return {"messages": [AIMessage("One.")]}

    def second(state: Any) -> Any:
        ran.append("second")
        if len(ran) == 2:
            raise ConnectionError("lost")
        return {"messages": [AIMessage("Two.")]}

    graph = StateGraph(MessagesState)
    graph.add_sequence([first, second])
    graph.add_edge(START, "first")
    agent = LangGraphRuntime("g", graph.compile())
    run = LocalRun()
    with pytest.raises(ConnectionError):
        await arun_agent_locally(agent, "Go", run=run)
    again = await arun_agent_locally(agent, "Go", state=run.checkpoint, run_id=run.run_id, attempt=2)
    assert ran == ["first", "second", "second"]
    assert again.result is not None
    assert [message["content"] for message in again.result.final_messages] == ["One.", "Two."]


async def test_with_a_checkpointer_of_its_own_keeps_the_conversation() -> None:
    agent = LangGraphRuntime("g", count_messages(InMemorySaver()))
    first = await arun_agent_locally(agent, "Hello", conversation_id="c")
    said = [{"role": "user", "content": "Hello"}, *first.result.final_messages, {"role": "user", "content": "Again"}]  # type: ignore[union-attr]
    second = await arun_agent_locally(agent, said, conversation_id="c")
    assert (first.output, second.output) == ({"response": "1 messages."}, {"response": "3 messages."})


class RefusesOnce(InMemorySaver):
    refused = False

    async def aput(self, *args: Any, **kwargs: Any) -> Any:
        if not self.refused:
            self.refused = True
            raise ConnectionError("no connection")
        return await super().aput(*args, **kwargs)


def count_messages(checkpointer: InMemorySaver | None = None) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("count", lambda state: {"messages": [AIMessage(f"{len(state['messages'])} messages.")]})
    graph.add_edge(START, "count")
    return graph.compile(checkpointer=checkpointer)


async def test_input_is_given_again_when_the_checkpointer_refused_it() -> None:
    saver = RefusesOnce()
    agent = LangGraphRuntime("g", count_messages(saver))
    said: list[Any] = [{"role": "user", "content": "Hello"}]
    for answer in ("1 messages.", "3 messages."):
        saver.refused = False
        run = LocalRun()
        with pytest.raises(ConnectionError):
            await arun_agent_locally(agent, said, conversation_id="c", run=run)
        again = await arun_agent_locally(
            agent, said, conversation_id="c", state=run.checkpoint, run_id=run.run_id, attempt=2
        )
        assert again.output == {"response": answer}
        assert again.result is not None
        assert [message["content"] for message in again.result.final_messages] == [answer]
        assert again.get_payloads("assistant.message") == [{"content": answer}]
        said += [*again.result.final_messages, {"role": "user", "content": "Again"}]


async def test_input_is_given_again_when_the_graph_did_not_begin() -> None:
    graph = count_messages()
    run = LocalRun()
    with pytest.raises(ValueError, match="recursion_limit"):
        await arun_agent_locally(LangGraphRuntime("g", graph, config={"recursion_limit": 0}), "Go", run=run)
    again = await arun_agent_locally(
        LangGraphRuntime("g", graph), "Go", state=run.checkpoint, run_id=run.run_id, attempt=2
    )
    assert again.output == {"response": "1 messages."}


async def test_input_is_not_given_again_once_a_checkpointer_has_it() -> None:
    ran: list[str] = []

    def answer(state: Any) -> Any:
        ran.append("answer")
        if len(ran) == 1:
            raise ConnectionError("lost")
        return {"messages": [AIMessage(f"{len(state['messages'])} messages.")]}

    graph = StateGraph(MessagesState)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    agent = LangGraphRuntime("g", graph.compile(checkpointer=InMemorySaver()))
    run = LocalRun()
    with pytest.raises(ConnectionError):
        await arun_agent_locally(agent, "Go", conversation_id="c", run=run)
    again = await arun_agent_locally(
        agent, "Go", conversation_id="c", state=run.checkpoint, run_id=run.run_id, attempt=2
    )
    assert again.output == {"response": "1 messages."}


@pytest.mark.parametrize("name", ["checkpoint_id", "checkpoint_ns", "checkpoint_map", "__pregel_checkpointer"])
async def test_params_do_not_steer_the_graph(name: str) -> None:
    run = await arun_agent_locally(LangGraphRuntime("g", count_messages()), "Go", params={name: "x"})
    assert run.output == {"response": "1 messages."}


async def test_params_do_not_replace_what_is_configured() -> None:
    def tell(state: Any, config: RunnableConfig) -> Any:
        configured = config["configurable"]
        return {"messages": [AIMessage(f"{configured['tenant']}, {configured['tone']}")]}

    graph = StateGraph(MessagesState)
    graph.add_node("tell", tell)
    graph.add_edge(START, "tell")
    agent = LangGraphRuntime("g", graph.compile(), config={"configurable": {"tenant": "ours"}})
    run = await arun_agent_locally(agent, "Go", params={"tenant": "theirs", "tone": "kind"})
    assert run.output == {"response": "ours, kind"}

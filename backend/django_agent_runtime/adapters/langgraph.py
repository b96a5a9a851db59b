"""LangGraph graphs as agents."""

from __future__ import annotations

import base64
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ToolMessage,
    convert_to_messages,
    convert_to_openai_messages,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from django_agent_runtime.adapters._base import AdaptedAgent, Narrator, to_json
from django_agent_runtime.runtime.interfaces import RunContext, RunResult

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.graph.state import CompiledStateGraph

__all__ = ["LangGraphRuntime"]

_CHECKPOINT_KEYS = frozenset({"checkpoint_id", "checkpoint_map", "checkpoint_ns"})
_USAGE = ("input_tokens", "output_tokens", "total_tokens")


class LangGraphRuntime(AdaptedAgent):
    """Runs a compiled graph.

    The run's messages are the graph's `messages`; what else its input has goes into the state under the same name,
    and its params into the config's `configurable`, where they replace neither what `config` has nor LangGraph's own
    keys. Tokens become `assistant.delta`, messages `assistant.message`, tools `tool.call` and `tool.result`.

    A graph that was compiled without a checkpointer gets the run's own: after each superstep its state becomes the
    run's checkpoint, so that another attempt goes on where the last one was. With a checkpointer of its own the
    thread is the run's conversation (or else the run), and only what was said since the last answer is given to it.

    On Python 3.10 LangGraph cannot interrupt, and streams the tokens of those models only that a node hands its config.

    `langgraph.types.interrupt` parks the run as `ctx.interrupt` does, and the answer to the run resumes it. Nodes
    reach the run with `runtime.current.current_context()`; the checkpoint is the adapter's.
    """

    def __init__(
        self,
        key: str,
        graph: CompiledStateGraph[Any, Any, Any, Any],
        *,
        description: str = "",
        max_attempts: int | None = None,
        config: RunnableConfig | None = None,
        make_input: Callable[[RunContext], Any] | None = None,
    ) -> None:
        """Adapt `graph`.

        Args:
            key: What runs name it by.
            graph: What `StateGraph.compile()` returned.
            description: For people.
            max_attempts: As in `AgentRuntime`.
            config: LangGraph's, such as `{"recursion_limit": 50}`.
            make_input: Makes the graph's input of the context, in place of what is said above.
        """
        super().__init__(key, graph, description=description, max_attempts=max_attempts)
        self._graph = graph
        self._config = config
        self._make_input = make_input

    async def run(self, ctx: RunContext) -> RunResult:
        """Stream the graph until its end, or until it asks something."""
        kept = await ctx.get_state() or {}
        own = not self._graph.checkpointer
        thread = ctx.run_id if own else ctx.conversation_id or ctx.run_id
        saver = _RunSaver(thread, kept, ctx.checkpoint)
        graph = self._graph.copy({"checkpointer": saver}) if own else self._graph
        params = {
            name: value
            for name, value in ctx.params.items()
            if name not in _CHECKPOINT_KEYS and not name.startswith("__")
        }
        configurable = {**params, **(self._config or {}).get("configurable", {}), "thread_id": thread}
        config: RunnableConfig = {**(self._config or {}), "configurable": configurable}
        # Answers that the graph has had already come again, since the code begins at its top.
        for question in saver.answered:
            await ctx.interrupt(question)
        snapshot = await graph.aget_state(config)
        known = _messages_of(snapshot.values)
        latest = snapshot.config["configurable"].get("checkpoint_id")
        # An earlier attempt may have failed before the graph had its input.
        begun = bool(kept) and latest != saver.before
        given: Any = None
        if not begun:
            given = self._read_input(ctx, whole=own)
            saver.before, saver.known = latest, len(known) + len(_messages_of(given))
            await saver.keep()
        narrator = _GraphNarrator(ctx, {str(message.id) for message in [*known, *_messages_of(given)]})
        if not begun:
            snapshot = await self._stream(graph, given, config, narrator, saver)
        while snapshot.interrupts or snapshot.next:
            given = None
            if snapshot.interrupts:
                questions = {each.id: to_json(each.value) for each in snapshot.interrupts}
                given = Command(resume={each: await ctx.interrupt(question) for each, question in questions.items()})
                saver.answered.extend(questions.values())
            snapshot = await self._stream(graph, given, config, narrator, saver)
        return _make_result(snapshot.values, saver.known)

    async def _stream(
        self, graph: Any, given: Any, config: RunnableConfig, narrator: _GraphNarrator, saver: _RunSaver
    ) -> Any:
        """Where the graph stops."""
        modes = ["messages", "updates"]
        async for mode, chunk in graph.astream(given, config, stream_mode=modes, durability="sync"):
            if mode == "messages":
                await narrator.add_chunk(chunk[0])
            else:
                for update in chunk.values():
                    await narrator.add_messages(update)
        # A question is not a checkpoint of the graph's, but a write beside one.
        await saver.keep()
        return await graph.aget_state(config)

    def _read_input(self, ctx: RunContext, *, whole: bool) -> Any:
        if self._make_input is not None:
            return self._make_input(ctx)
        messages: list[Any] = list(ctx.input_messages)
        if not whole:
            answers = [index for index, message in enumerate(messages) if message.get("role") == "assistant"]
            messages = messages[answers[-1] + 1 :] if answers else messages
        converted = convert_to_messages([{**message, "content": message.get("content") or ""} for message in messages])
        for message in converted:
            # With these they are known again, whichever node returns them.
            message.id = str(uuid.uuid4())
        others = {key: value for key, value in ctx.input.items() if key not in {"messages", "params"}}
        return {**others, "messages": converted}


def _messages_of(state: Any) -> list[BaseMessage]:
    messages = state.get("messages") if isinstance(state, Mapping) else None
    return [message for message in messages or () if isinstance(message, BaseMessage)]


def _make_result(state: Any, known: int) -> RunResult:
    new = _messages_of(state)[known:]
    others = {key: value for key, value in state.items() if key != "messages"} if isinstance(state, Mapping) else state
    answers = [_text_of(message) for message in new if isinstance(message, AIMessage) and _text_of(message)]
    output = to_json(others) if isinstance(others, Mapping) else {"state": to_json(others)}
    if answers:
        output["response"] = answers[-1]
    usage: Counter[str] = Counter()
    for message in new:
        counted = getattr(message, "usage_metadata", None) or {}
        usage.update({name: counted[name] for name in _USAGE if isinstance(counted.get(name), int)})
    return RunResult(final_output=output, final_messages=_to_neutral(new), usage=dict(usage))


def _to_neutral(messages: list[BaseMessage]) -> list[dict[str, Any]]:
    written = convert_to_openai_messages(messages)
    neutral: list[dict[str, Any]] = to_json(written)
    for message in neutral:
        if message.get("tool_calls") and not message.get("content"):
            message["content"] = None
    return neutral


def _text_of(message: BaseMessage) -> str:
    content = message.content
    if isinstance(content, str):
        return content
    return "".join(part if isinstance(part, str) else str(part.get("text", "")) for part in content)


def _write(typed: tuple[str, bytes]) -> list[str]:
    return [typed[0], base64.b64encode(typed[1]).decode()]


def _read(written: Sequence[str]) -> tuple[str, bytes]:
    return written[0], base64.b64decode(written[1])


class _RunSaver(InMemorySaver):
    """LangGraph's checkpoints in memory, the latest of each namespace kept in the run's checkpoint."""

    def __init__(
        self, thread: str, kept: Mapping[str, Any], keep: Callable[[Mapping[str, Any]], Awaitable[None]]
    ) -> None:
        super().__init__()
        self._thread = thread
        self._keep = keep
        self.answered: list[Any] = list(kept.get("answered", ()))
        """The questions whose answers the graph has had."""
        self.known = int(kept.get("known", 0))
        """How many messages there were before it added its own."""
        self.before: str | None = kept.get("before")
        """The thread's latest checkpoint before the graph was given its input."""
        self._load(kept.get("checkpoints", {}))

    async def aput(self, *args: Any, **kwargs: Any) -> RunnableConfig:
        """Keep the checkpoint in memory, and that in the run."""
        config = await super().aput(*args, **kwargs)
        await self.keep()
        return config

    async def keep(self) -> None:
        """Keep what there is in the run."""
        await self._keep(self._dump())

    def _load(self, checkpoints: Mapping[str, Any]) -> None:
        for namespace, item in checkpoints.items():
            checkpoint, metadata = (_read(typed) for typed in item["checkpoint"])
            self.storage[self._thread][namespace][item["id"]] = (checkpoint, metadata, None)
            for channel, version, typed in item["blobs"]:
                self.blobs[self._thread, namespace, channel, version] = _read(typed)
            for task_id, index, channel, typed, path in item["writes"]:
                writes = self.writes[self._thread, namespace, item["id"]]
                writes[task_id, index] = (task_id, channel, _read(typed), path)

    def _dump(self) -> dict[str, Any]:
        kept = {}
        for namespace, checkpoints in self.storage[self._thread].items():
            newest = max(checkpoints, default=None)
            if newest is None:
                continue
            checkpoint, metadata, _ = checkpoints[newest]
            versions = self.serde.loads_typed(checkpoint)["channel_versions"]
            kept[namespace] = {
                "id": newest,
                "checkpoint": [_write(checkpoint), _write(metadata)],
                "blobs": [
                    [channel, version, _write(self.blobs[self._thread, namespace, channel, version])]
                    for channel, version in versions.items()
                    if (self._thread, namespace, channel, version) in self.blobs
                ],
                "writes": [
                    [task_id, index, channel, _write(typed), path]
                    for (_, index), (task_id, channel, typed, path) in self.writes[
                        self._thread, namespace, newest
                    ].items()
                ],
            }
        return {"checkpoints": kept, "answered": self.answered, "known": self.known, "before": self.before}


class _GraphNarrator(Narrator):
    """Tells the messages that nodes add, each once, however often they are in the state."""

    def __init__(self, ctx: RunContext, seen: set[str]) -> None:
        super().__init__(ctx)
        self._seen = seen

    async def add_chunk(self, message: Any) -> None:
        """A token of a model, or a whole message of what is none."""
        if isinstance(message, AIMessageChunk):
            await self.add_text(_text_of(message))

    async def add_messages(self, update: Any) -> None:
        """What a node has returned."""
        messages = update.get("messages") if isinstance(update, Mapping) else None
        for message in messages if isinstance(messages, list) else [messages]:
            if not isinstance(message, (AIMessage, ToolMessage)) or str(message.id) in self._seen:
                continue
            self._seen.add(str(message.id))
            if isinstance(message, ToolMessage):
                await self.finish_tool(message.tool_call_id, message.content)
                continue
            await self.finish_message(_text_of(message))
            for call in message.tool_calls:
                await self.call_tool(call["name"], call["args"], call["id"] or "")

"""What the playground shows: agents to choose from, conversations, and their runs as turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django_agent_runtime import selectors
from django_agent_runtime.exceptions import AgentRuntimeError, NotFound
from django_agent_runtime.live import get_hurried_runtime
from django_agent_runtime.messages import append_new
from django_agent_runtime.models import AgentConversation, AgentRun
from django_agent_runtime.runtime.llm import get_llm_client
from django_agent_runtime.runtime.registry import list_runtimes
from django_agent_runtime.services import TASK_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.models import QuerySet

    from django_agent_runtime.messages import Message
    from django_agent_runtime.principals import Principal
    from django_agent_runtime.types import Agent, TaskType

# What a page shows of long histories.
MAX_CONVERSATIONS = 30
MAX_TURNS = 50
MAX_SUB_RUNS = 50


@dataclass(frozen=True)
class Choice:
    """An agent that can be sent a message."""

    value: str
    """What a form sends."""
    label: str
    description: str
    agent_key: str
    params: dict[str, Any]


@dataclass(frozen=True)
class Choices:
    """The agents there are."""

    of_site: list[Choice]
    of_runtime: list[Choice]
    problem: str
    """Why the runtime could not say which agents it has; empty otherwise."""

    def find(self, value: str) -> Choice:
        """The one that a form names.

        Raises:
            NotFound: There is none.
        """
        for choice in [*self.of_site, *self.of_runtime]:
            if choice.value == value:
                return choice
        raise NotFound("Choose one of the agents.")


@dataclass(frozen=True)
class Turn:
    """A run as a part of a conversation: what was said, and what the agent answered."""

    run: AgentRun
    asked: str
    answers: list[str]


def list_choices() -> Choices:
    """The agents of the site's registry, and those of the runtime, with their tasks that a message can stand in for."""
    of_site = [Choice(key, key, agent.description, key, {}) for key, agent in list_runtimes().items()]
    try:
        agents = get_hurried_runtime().list_agents()
    except AgentRuntimeError as error:
        return Choices(of_site, [], str(error))
    served_here = {choice.agent_key for choice in of_site}
    of_runtime = [choice for agent in agents if agent.agent_id not in served_here for choice in _make_choices(agent)]
    return Choices(of_site, of_runtime, "")


def takes_a_text(task_type: TaskType) -> bool:
    """Whether the task type's input must have one field that is any text, for which a message can stand in."""
    required = task_type.input_schema.get("required") or []
    if len(required) != 1:
        return False
    described = (task_type.input_schema.get("properties") or {}).get(required[0]) or {}
    return described.get("type") == "string" and "enum" not in described


def _make_choices(agent: Agent) -> Iterable[Choice]:
    """To talk to an agent of the runtime, and to have it do each task that a message says enough for."""
    name = agent.agent_id
    # Of those that take any task type, none is listed.
    if not agent.task_types or any(task_type.task_type == TASK_TYPE for task_type in agent.task_types):
        yield Choice(name, name, agent.description, name, {})
    for task_type in agent.task_types:
        if takes_a_text(task_type):
            task = task_type.task_type
            yield Choice(f"{name}/{task}", f"{name}: {task}", task_type.description, name, {"task_type": task})


def is_offline() -> bool:
    """Whether agents of this site are answered by the offline stand-in."""
    return get_llm_client().provider == "offline"


def list_conversations(actor: Principal) -> QuerySet[AgentConversation]:
    """The newest of the actor's conversations, by what happened last."""
    return selectors.visible_conversations(actor).order_by("-updated_at", "-id")[:MAX_CONVERSATIONS]


def find_latest_run(conversation: AgentConversation) -> AgentRun | None:
    """The run of a conversation that was created last."""
    return conversation.runs.order_by("-created_at", "-id").first()


def list_sub_runs(run: AgentRun) -> list[AgentRun]:
    """The latest runs that a run had other agents do, oldest first, as the projector knows them."""
    return list(reversed(run.sub_runs.order_by("-created_at", "-id").defer("input", "output")[:MAX_SUB_RUNS]))


def list_turns(conversation: AgentConversation, *, until: AgentRun | None = None) -> list[Turn]:
    """The latest runs of a conversation as turns, oldest first; with `until`, those up to that run."""
    runs = conversation.runs.order_by("-created_at", "-id")
    if until is not None:
        runs = runs.filter(created_at__lte=until.created_at)
    return [make_turn(run) for run in reversed(runs[:MAX_TURNS])]


def make_turn(run: AgentRun) -> Turn:
    """A run as a turn, from what it was given and what it made."""
    history: list[Message] = []
    asked = _read_list(run.input, "messages")
    append_new(history, asked)
    given = len(history)
    append_new(history, _read_list(run.output, "final_messages"), asked=asked)
    answers = [text for message in history[given:] if (text := _text_by(message, "assistant"))]
    if not answers and isinstance(run.output, dict) and isinstance(run.output.get("final_output"), dict):
        response = run.output["final_output"].get("response")
        answers = [response] if isinstance(response, str) else []
    return Turn(run, _find_last(history[:given], "user"), answers)


def _read_list(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _find_last(messages: Iterable[Message], role: str) -> str:
    texts = [text for message in messages if (text := _text_by(message, role))]
    return texts[-1] if texts else ""


def _text_by(message: Message, role: str) -> str:
    """What a message of the role says; of a list of parts, its texts."""
    content = message.get("content")
    if message.get("role") != role:
        return ""
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""

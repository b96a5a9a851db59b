"""The tables: what they refuse, and the history that is read out of them."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from django_agent_runtime.messages import append_new
from django_agent_runtime.models import AgentConversation, AgentEvent, AgentRun, RunStatus

if TYPE_CHECKING:
    from django.contrib.auth.models import User

pytestmark = pytest.mark.django_db

ASK = {"role": "user", "content": "What's the weather?"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "call_123"}]}
RESULT = {"role": "tool", "content": "72°F sunny", "tool_call_id": "call_123"}
ANSWER = {"role": "assistant", "content": "It is sunny."}
THANKS = {"role": "user", "content": "Thanks"}
WELCOME = {"role": "assistant", "content": "You are welcome."}
PROMPT = {"role": "system", "content": "Be kind."}


def add_run(
    conversation: AgentConversation,
    asked: Any,
    answered: Any = None,
    status: str = RunStatus.SUCCEEDED,
) -> AgentRun:
    output = {"final_output": {}, "final_messages": answered} if answered is not None else {}
    # Rows of one instant have no order.
    created_at = timezone.now() + timedelta(seconds=conversation.runs.count())
    return AgentRun.objects.create(
        conversation=conversation,
        agent_key="chat",
        input={"messages": asked},
        output=output,
        status=status,
        created_at=created_at,
    )


@pytest.fixture
def conversation() -> AgentConversation:
    return AgentConversation.objects.create(agent_key="chat", title="My Chat", metadata={"source": "web"})


def test_models_have_their_migrations() -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def test_bare_run_is_queued_and_waits_for_the_runtime(conversation: AgentConversation) -> None:
    run = AgentRun.objects.create(conversation=conversation, agent_key="chat", input={"messages": [ASK]})
    assert (run.status, run.submitted_at, run.output.get("final_messages", [])) == ("queued", None, [])
    assert list(AgentRun.objects.unsubmitted()) == [run]


@pytest.mark.parametrize("owner", ["user", "session"])
def test_run_belongs_to_the_owner_of_its_conversation(owner: str, django_user_model: type[User]) -> None:
    user = django_user_model.objects.create_user("ada") if owner == "user" else None
    session = uuid.uuid4() if owner == "session" else None
    conversation = AgentConversation.objects.create(user=user, anonymous_session_id=session)
    for run in (
        AgentRun.objects.create(conversation=conversation, agent_key="chat"),
        conversation.runs.create(agent_key="chat"),
    ):
        assert (run.user, run.anonymous_session_id) == (user, session)


def test_idempotency_keys_are_the_owners_own(django_user_model: type[User]) -> None:
    ada, bob = (django_user_model.objects.create_user(name) for name in ("ada", "bob"))
    session = uuid.uuid4()
    AgentRun.objects.create(user=ada, agent_key="chat", idempotency_key="k")
    AgentRun.objects.create(user=bob, agent_key="chat", idempotency_key="k")
    AgentRun.objects.create(anonymous_session_id=session, agent_key="chat", idempotency_key="k")
    for owner in ({"user": ada}, {"anonymous_session_id": session}):
        with pytest.raises(IntegrityError), transaction.atomic():
            AgentRun.objects.create(**owner, agent_key="chat", idempotency_key="k")
        # Without a key, as many as one likes.
        AgentRun.objects.create(**owner, agent_key="chat")
        AgentRun.objects.create(**owner, agent_key="chat")
    # Accounts that go leave runs without an owner behind, whose keys do not meet.
    ada.delete()
    bob.delete()
    assert AgentRun.objects.filter(user=None, idempotency_key="k").count() == 3


def test_events_of_a_run_are_numbered_once_and_in_order() -> None:
    run = AgentRun.objects.create(agent_key="chat")
    AgentEvent.objects.bulk_create([AgentEvent(run=run, seq=seq, event_type="error") for seq in (9, 3)])
    with pytest.raises(IntegrityError), transaction.atomic():
        AgentEvent.objects.create(run=run, seq=3, event_type="error")
    assert [event.seq for event in run.events.all()] == [3, 9]


def test_status_that_is_none_is_refused() -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        AgentRun.objects.create(agent_key="chat", status="done")


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({"user_id": 1}, "agent_run_of_user"),
        ({"anonymous_session_id": uuid.uuid4()}, "agent_run_of_session"),
    ],
)
def test_lists_of_an_owner_are_read_from_an_index(filters: dict[str, Any], index: str) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("other planners read a small table whole")
    runs = AgentRun.objects.filter(**filters).order_by("-created_at", "-id")
    plan = runs.explain()
    assert index in plan
    assert "TEMP B-TREE" not in plan
    assert "agent_run_unsubmitted" in AgentRun.objects.unsubmitted().explain()


def test_history_has_every_message_once(conversation: AgentConversation) -> None:
    add_run(conversation, [ASK], [ASK, CALL, RESULT, ANSWER])
    add_run(conversation, [THANKS], [WELCOME])
    assert conversation.get_message_history() == [ASK, CALL, RESULT, ANSWER, THANKS, WELCOME]
    assert conversation.get_last_assistant_message() == WELCOME


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ([THANKS], [WELCOME]),
        ([THANKS], [THANKS, WELCOME]),
        ([ASK, ANSWER, THANKS], [WELCOME]),
        ([ASK, ANSWER, THANKS], [ASK, ANSWER, THANKS, WELCOME]),
        ([ANSWER, THANKS], [PROMPT, ANSWER, THANKS, WELCOME]),
        ([THANKS], [PROMPT, ASK, ANSWER, THANKS, WELCOME]),
        ([THANKS], [THANKS, WELCOME | {"tool_calls": None}]),
    ],
)
def test_history_does_not_depend_on_how_much_is_handed_over(
    conversation: AgentConversation, asked: Any, answered: Any
) -> None:
    add_run(conversation, [ASK], [ANSWER])
    add_run(conversation, asked, answered)
    history = [
        {k: v for k, v in message.items() if k != "tool_calls"} for message in conversation.get_message_history()
    ]
    assert history == [ASK, ANSWER, THANKS, WELCOME]


def test_the_same_question_twice_is_two_messages(conversation: AgentConversation) -> None:
    add_run(conversation, [PROMPT, ASK], [ANSWER])
    add_run(conversation, [PROMPT, ASK], [ANSWER])
    assert conversation.get_message_history() == [PROMPT, ASK, ANSWER, ASK, ANSWER]


def test_message_that_repeats_the_end_of_the_history_counts_once(conversation: AgentConversation) -> None:
    # It may as well be the conversation so far, given to the agent once more.
    add_run(conversation, [ASK])
    add_run(conversation, [ASK], [ANSWER])
    assert conversation.get_message_history() == [ASK, ANSWER]


def say(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def reply(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


HI, HELLO = say("Hi"), reply("Hello")


def read_contents(conversation: AgentConversation, **options: Any) -> list[Any]:
    return [message["content"] for message in conversation.get_message_history(**options)]


# What each run was given, what its agent said, and what comes of them.
OVERTAKEN = [
    # The second message is sent while the first is not answered yet, the next when both are.
    pytest.param(
        [
            ([HI], [HELLO]),
            ([HI, HELLO, say("one")], [reply("1")]),
            ([HI, HELLO, say("two")], [reply("2")]),
            ([HI, HELLO, say("one"), reply("1"), say("two"), reply("2"), say("three")], [reply("3")]),
        ],
        ["Hi", "Hello", "one", "1", "two", "2", "three", "3"],
        id="quick pair",
    ),
    pytest.param(
        [
            ([HI], [HELLO]),
            ([HI, HELLO, say("one")], [CALL, RESULT, reply("1")]),
            ([HI, HELLO, say("two")], [reply("2")]),
            ([HI, HELLO, say("three")], [reply("3")]),
            ([HI, HELLO, say("one"), CALL, RESULT, reply("1"), say("four")], [reply("4")]),
        ],
        ["Hi", "Hello", "one", None, "72°F sunny", "1", "two", "2", "three", "3", "four", "4"],
        id="many at once",
    ),
    pytest.param(
        [
            ([PROMPT, HI], [HELLO]),
            ([PROMPT, HI, HELLO, say("one")], [reply("1")]),
            ([PROMPT, HI, HELLO, PROMPT | {"content": "Be brief."}, say("two")], [reply("2")]),
        ],
        ["Be kind.", "Hi", "Hello", "one", "1", "Be brief.", "two", "2"],
        id="with instructions",
    ),
    pytest.param(
        [
            ([reply("Welcome!")], []),
            ([reply("Welcome!"), say("one")], [reply("1")]),
            ([reply("Welcome!"), say("two")], [reply("2")]),
        ],
        ["Welcome!", "one", "1", "two", "2"],
        id="agent speaks first",
    ),
    pytest.param(
        [
            ([HI], [HELLO]),
            ([HI, HELLO, say("one")], [reply("1")]),
            ([HI, HELLO, say("one")], [reply("1")]),
            ([HI, HELLO, say("one"), reply("1"), say("one")], [reply("1")]),
        ],
        ["Hi", "Hello", "one", "1", "one", "1", "one", "1"],
        id="said again",
    ),
    pytest.param(
        [
            ([HI], [HELLO]),
            ([HI, HELLO, say("one")], [reply("1")]),
            ([HI, HELLO, HI], [HELLO]),
            ([HI, HELLO, say("one"), reply("1"), HI], [reply("Again?")]),
        ],
        ["Hi", "Hello", "one", "1", "Hi", "Hello", "Hi", "Again?"],
        id="begun again",
    ),
]


@pytest.mark.parametrize("returns_all", [False, True])
@pytest.mark.parametrize(("runs", "contents"), OVERTAKEN)
def test_history_that_lacks_what_was_not_answered_yet_is_not_there_again(
    conversation: AgentConversation, runs: list[tuple[Any, Any]], contents: list[str], returns_all: bool
) -> None:
    for asked, answered in runs:
        add_run(conversation, asked, [*asked, *answered] if returns_all else answered)
    assert read_contents(conversation) == contents


@pytest.mark.parametrize("returns_all", [False, True])
def test_history_that_lacks_failed_runs_is_not_there_again(conversation: AgentConversation, returns_all: bool) -> None:
    asked = [HI]
    for place, status in enumerate(["succeeded", "failed", "failed", "succeeded", "failed", "succeeded"]):
        answered = [reply(f"answer {place}")] if status == RunStatus.SUCCEEDED else None
        add_run(conversation, asked, answered and ([*asked, *answered] if returns_all else answered), status)
        asked = [*conversation.get_message_history(), say(f"question {place + 1}")]
    assert read_contents(conversation, include_failed_runs=True) == [
        "Hi",
        "answer 0",
        "question 1",
        "question 2",
        "question 3",
        "answer 3",
        "question 4",
        "question 5",
        "answer 5",
    ]


@pytest.mark.parametrize(
    "runs",
    [
        # Only what is new is handed over.
        [([HI], [HELLO])] * 3,
        [([HI], [HI, HELLO])] * 3,
        # An agent that speaks first says the same again.
        [([], [HELLO]), ([HI], [HELLO])],
        # An agent that writes down what others have said, behind a question that began the conversation.
        [([THANKS], [HI, HELLO, ASK, ANSWER])] * 2,
        [([PROMPT, THANKS], [PROMPT, HI, HELLO, ASK, ANSWER])] * 2,
    ],
)
def test_conversation_that_repeats_itself_loses_nothing(conversation: AgentConversation, runs: Any) -> None:
    said: list[Any] = []
    for asked, answered in runs:
        add_run(conversation, asked, answered)
        new = answered[1:] if answered[0] in asked else answered
        said += [message for message in [*asked, *new] if message != PROMPT]
    assert [message for message in conversation.get_message_history() if message != PROMPT] == said


def test_agent_that_takes_the_same_steps_again_loses_none(conversation: AgentConversation) -> None:
    """Whoever writes down what its tools say as a user's words, and is asked the same again."""
    for degrees in ("72", "65"):
        steps = [reply("Action: look"), say(f"Observation: {degrees}"), reply(f"It is {degrees}.")]
        add_run(conversation, [ASK], [ASK, *steps])
    assert len(conversation.get_message_history()) == 8


def test_failed_runs_count_when_asked_for(conversation: AgentConversation) -> None:
    add_run(conversation, [ASK], status=RunStatus.FAILED)
    add_run(conversation, [THANKS], status=RunStatus.QUEUED)
    assert conversation.get_message_history() == []
    assert conversation.get_message_history(include_failed_runs=True) == [ASK]
    assert conversation.get_last_assistant_message() is None


def test_rows_of_another_shape_do_not_break_the_history(conversation: AgentConversation) -> None:
    for asked, answered in (("text", 3), ([None, "text"], {"a": 1})):
        add_run(conversation, asked, answered)
    AgentRun.objects.create(conversation=conversation, agent_key="chat", input=[1], output="x", status="succeeded")
    add_run(conversation, [ASK], [ANSWER])
    assert conversation.get_message_history() == [ASK, ANSWER]


def test_history_of_a_long_conversation_takes_one_query(
    conversation: AgentConversation, django_assert_num_queries: Any
) -> None:
    for _ in range(5):
        add_run(conversation, [ASK], [ANSWER])
    with django_assert_num_queries(1):
        conversation.get_message_history()


def test_nothing_is_appended_of_what_is_there() -> None:
    history = [ASK, ANSWER]
    append_new(history, [ASK, ANSWER])
    assert history == [ASK, ANSWER]

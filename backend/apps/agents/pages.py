"""The playground: talk to the agents, and watch their runs.

Each page is whole without JavaScript; `playground.js` adds what happens while one looks at it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import Http404
from django.shortcuts import redirect, render
from django.views import View

from backend.apps.agents import services
from backend.apps.agents.selectors import (
    find_latest_run,
    is_offline,
    list_choices,
    list_conversations,
    list_sub_runs,
    list_turns,
    make_turn,
)
from django_agent_runtime.exceptions import AgentRuntimeError, NotFound
from django_agent_runtime.models import EventVisibility, RunStatus
from django_agent_runtime.principals import Principal
from django_agent_runtime.selectors import (
    get_visible_conversation,
    get_visible_run,
    list_events,
    may_see_input,
    may_see_internal_events,
    read_run,
)
from django_agent_runtime.services import cancel_run, resume_run, retry_run

if TYPE_CHECKING:
    from uuid import UUID

    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase

    from django_agent_runtime.models import AgentConversation, AgentRun

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# The levels of events by what the address calls them: the least visibility, and the query of the stream.
LEVELS = {
    "user": (EventVisibility.USER, ""),
    "debug": (EventVisibility.DEBUG, "&include_debug=true"),
    "all": (EventVisibility.INTERNAL, "&include_all=true"),
}


class PlaygroundView(LoginRequiredMixin, View):
    """What all pages share: a sign-in, a strict policy for content, and errors as sentences on a page."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer; what the library refuses is said on the page that the form stands on."""
        try:
            response = super().dispatch(request, *args, **kwargs)
        except NotFound as error:
            if "run_id" in kwargs or "conversation_id" in kwargs:
                raise Http404(str(error)) from error
            response = self.refuse(request, error)
        except AgentRuntimeError as error:
            response = self.refuse(request, error)
        response["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return response

    def refuse(self, request: HttpRequest, error: AgentRuntimeError) -> HttpResponse:
        """Back to where the form stands, with what is wrong."""
        messages.error(request, str(error))
        if "run_id" in self.kwargs:
            return redirect("playground-run", self.kwargs["run_id"])
        return redirect(request.path)

    @property
    def actor(self) -> Principal:
        """Who looks at the page."""
        return Principal.of_user(self.request.user)

    def show(
        self, *, conversation: AgentConversation | None = None, run: AgentRun | None = None, **context: Any
    ) -> HttpResponse:
        """The page, with a conversation and one of its runs to watch."""
        turns = list_turns(conversation, until=run) if conversation else []
        context |= {
            "conversations": list_conversations(self.actor),
            "conversation": conversation,
            "offline": is_offline(),
            "earlier": [turn for turn in turns if run is None or turn.run.pk != run.pk],
        }
        if run is not None:
            context |= self.describe_run(run)
        return render(self.request, "agents/playground.html", context)

    def describe_run(self, run: AgentRun) -> dict[str, Any]:
        """What the page needs to show a run, and to go on with it."""
        level = self.request.GET.get("events", "user")
        levels = ["user", "debug", *(["all"] if may_see_internal_events(self.actor) else [])]
        if level not in levels:
            level = "user"
        visibility, query = LEVELS[level]
        return {
            "turn": make_turn(run),
            "run": run,
            "level": level,
            "levels": levels,
            "stream_query": f"?unnamed=1{query}",
            "events": list_events(run, visibility=visibility),
            "question": _describe_question(run),
            "sub_runs": list_sub_runs(run),
            "may_retry": run.has_ended and run.status != RunStatus.SUCCEEDED and run.parent_run_id is None,
            "may_see_input": may_see_input(self.actor, run),
        }


class StartPage(PlaygroundView):
    """Choose an agent, and send it a message."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """The form."""
        return self.show(choices=list_choices())

    def post(self, request: HttpRequest) -> HttpResponse:
        """Begin a conversation, and go to its run."""
        choice = list_choices().find(request.POST.get("agent", ""))
        run = services.start_conversation(actor=self.actor, choice=choice, text=request.POST.get("message", ""))
        return redirect("playground-run", run.pk)


class ConversationPage(PlaygroundView):
    """A conversation, with its latest run."""

    def get(self, request: HttpRequest, conversation_id: UUID) -> HttpResponse:
        """Everything that was said."""
        conversation = get_visible_conversation(self.actor, conversation_id)
        run = find_latest_run(conversation)
        return self.show(conversation=conversation, run=run and read_run(run))

    def post(self, request: HttpRequest, conversation_id: UUID) -> HttpResponse:
        """Send one more message, and go to its run."""
        conversation = get_visible_conversation(self.actor, conversation_id)
        run = services.send_message(actor=self.actor, conversation=conversation, text=request.POST.get("message", ""))
        return redirect("playground-run", run.pk)


class RunPage(PlaygroundView):
    """A run, below what was said before it."""

    def get(self, request: HttpRequest, run_id: UUID) -> HttpResponse:
        """The run as it is now."""
        run = read_run(get_visible_run(self.actor, run_id))
        return self.show(conversation=run.conversation, run=run)


class CancelPage(PlaygroundView):
    """Where the button to cancel a run leads without JavaScript."""

    def post(self, request: HttpRequest, run_id: UUID) -> HttpResponse:
        """End the run."""
        cancel_run(actor=self.actor, run=get_visible_run(self.actor, run_id))
        return redirect("playground-run", run_id)


class ResumePage(PlaygroundView):
    """Where the answer to a run's question goes without JavaScript."""

    def post(self, request: HttpRequest, run_id: UUID) -> HttpResponse:
        """Give the answer."""
        resume_run(
            actor=self.actor,
            run=get_visible_run(self.actor, run_id),
            value=_parse_answer(request.POST.get("choice") or request.POST.get("answer", "")),
            interrupt_id=request.POST.get("interrupt_id") or None,
        )
        return redirect("playground-run", run_id)


class RetryPage(PlaygroundView):
    """Where the button to try again leads."""

    def post(self, request: HttpRequest, run_id: UUID) -> HttpResponse:
        """Do it again, as a run of its own, and go there."""
        again = retry_run(actor=self.actor, run=get_visible_run(self.actor, run_id)).run
        return redirect("playground-run", again.pk)


def _describe_question(run: AgentRun) -> dict[str, Any]:
    """What a waiting run asks, as a form shows it; of another run, an empty form for what it may ask later."""
    asked: Any = run.interrupt if isinstance(run.interrupt, dict) else {}
    payload = asked.get("payload")
    choices = payload.get("choices") if isinstance(payload, dict) else None
    text = payload.get("question") if isinstance(payload, dict) else payload
    if payload is not None and not isinstance(text, str):
        text = json.dumps(payload, ensure_ascii=False)
    return {
        "is_open": bool(asked) and run.status == RunStatus.WAITING,
        "interrupt_id": asked.get("interrupt_id", ""),
        "text": text or "The run waits for an answer.",
        "choices": [
            {"text": choice if isinstance(choice, str) else json.dumps(choice), "value": json.dumps(choice)}
            for choice in (choices if isinstance(choices, list) else [])
        ],
    }


def _parse_answer(text: str) -> Any:
    """JSON where it is any, else the text itself: an approval may be the word `true`."""
    try:
        return json.loads(text)
    except ValueError:
        return text

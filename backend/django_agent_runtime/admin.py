"""Conversations, runs and events in Django's admin: to look at, and to cancel, answer and repeat runs.

Rows are the projector's and the services': nothing is edited here.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.paginator import Paginator
from django.db import router
from django.db.models import ProtectedError, Q, RestrictedError
from django.db.models.deletion import Collector
from django.http import HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html

from django_agent_runtime.exceptions import AgentRuntimeError, RunNotWaiting
from django_agent_runtime.models import AgentConversation, AgentEvent, AgentRun
from django_agent_runtime.principals import Principal
from django_agent_runtime.runtime.registry import list_runtimes
from django_agent_runtime.selectors import read_run
from django_agent_runtime.services import (
    cancel_run,
    delete_conversation,
    delete_run,
    resume_run,
    retry_run,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from django.db.models import Model, QuerySet
    from django.http import HttpRequest, HttpResponse

    ModelAdmin = admin.ModelAdmin[Any]
    RowPaginator = Paginator[Any]
else:
    # Generic for mypy only.
    ModelAdmin = admin.ModelAdmin
    RowPaginator = Paginator

# How far the pages of a list go that is not counted.
MOST_ROWS = 10_000
ROWS_OF_PAGE = 50
# Who share an e-mail address: so many of them are looked for.
MOST_USERS = 100


class UncountedPaginator(RowPaginator):
    """Pages of a table that is too large to be counted: the rows are counted up to ten thousand."""

    @cached_property
    def count(self) -> int:
        """How many rows there are, or the limit where there are more."""
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]
        return rows.order_by()[:MOST_ROWS].values("pk").count()


class AgentKeyFilter(admin.SimpleListFilter):
    """The agents that are registered here: for the keys of all others, the whole table would have to be read."""

    title = "agent key"
    parameter_name = "agent_key"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin) -> Iterable[tuple[str, str]]:
        """Each by its key."""
        try:
            return [(key, key) for key in list_runtimes()]
        except ImproperlyConfigured:
            # The checks say what is wrong with the registry; the rows can be looked at all the same.
            return []

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """The rows of the agent, where one is chosen."""
        return queryset.filter(agent_key=self.value()) if self.value() else queryset


class ReadOnlyAdmin(ModelAdmin):
    """A table that nobody edits by hand, and that is too large to be read whole. Rows are deleted by those who may."""

    paginator = UncountedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = ROWS_OF_PAGE
    # Where an id is searched for.
    id_fields: tuple[str, ...] = ("pk",)
    # What makes a row large.
    large_fields: tuple[str, ...] = ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Without what makes a row large, except of the one that is looked at."""
        rows = super().get_queryset(request)
        return rows if request.resolver_match and request.resolver_match.kwargs else rows.defer(*self.large_fields)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Find an id by the indexes that are there for it, and anything else in the search fields.

        Among the search fields ids would be compared as text, which no index serves, and SQLite writes them otherwise.
        """
        try:
            key = UUID(search_term.strip())
        except ValueError:
            return super().get_search_results(request, queryset, search_term)
        return queryset.filter(Q(*((name, key) for name in self.id_fields), _connector=Q.OR)), False

    def get_deleted_objects(
        self, objs: Sequence[Any] | QuerySet[Any], request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """What is to be deleted is listed; what goes with it is counted, since it may be more than a page can hold."""
        collector = Collector(using=router.db_for_write(self.model))
        protected: set[Model] = set()
        try:
            collector.collect(list(objs))
        except ProtectedError as error:
            protected = error.protected_objects
        except RestrictedError as error:
            protected = error.restricted_objects
        found: list[tuple[type[Model], Iterable[Model | None], int]] = [
            *((model, rows, len(rows)) for model, rows in collector.data.items()),
            # These are deleted without being read, so that nobody can be asked about each.
            *((rows.model, [None], rows.count()) for rows in collector.fast_deletes),
        ]
        counts: Counter[str] = Counter()
        forbidden = set()
        for model, rows, count in found:
            if not count:
                continue
            names = model._meta  # noqa: SLF001 - as the admin's own templates take it
            counts[str(names.verbose_name_plural)] += count
            if self.admin_site.is_registered(model):
                of_model = self.admin_site.get_model_admin(model)
                may_delete = getattr(of_model, "has_cascade_permission", of_model.has_delete_permission)
                if not all(may_delete(request, row) for row in rows):
                    forbidden.add(str(names.verbose_name))
        links = [_link_to_row(str(self.opts.model_name), row.pk, row) for row in objs]
        return links, counts, forbidden, [str(row) for row in protected]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody: who may view sees every field, and none as an input."""
        return False


class OwnedAdmin(ReadOnlyAdmin):
    """A table whose rows belong to users."""

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Find the rows of the user who is named; where nobody is, what others find.

        Not both: beside a part of a text, no index serves for the user.
        """
        owners = find_users(search_term.strip())
        if owners:
            return queryset.filter(user__in=owners), False
        return super().get_search_results(request, queryset, search_term)


class AnswerForm(forms.Form):
    """The answer to what runs ask."""

    value = forms.JSONField(
        required=False, widget=forms.Textarea(attrs={"rows": 6, "cols": 80}), help_text="Any JSON; empty is null."
    )


@admin.register(AgentConversation)
class AgentConversationAdmin(OwnedAdmin):
    """Conversations, with a way to their runs."""

    list_display = ("id", "title", "agent_key", "user", "anonymous_session_id", "created_at", "runs_link")
    list_filter = (AgentKeyFilter, "created_at")
    list_select_related = ("user",)
    search_fields = ("title", "agent_key")
    search_help_text = (
        "The id of a conversation or of an anonymous session, the whole name or e-mail address of a user, "
        "or a part of a title or of an agent's key."
    )
    id_fields = ("pk", "anonymous_session_id")
    ordering = ("-created_at", "-id")
    readonly_fields = ("created_at", "updated_at", "runs_link")

    @admin.display(description="runs")
    def runs_link(self, conversation: AgentConversation) -> str:
        """To the runs of it."""
        return _link_to_list("agentrun", "runs", conversation__id__exact=str(conversation.pk))

    def delete_model(self, request: HttpRequest, obj: AgentConversation) -> None:
        """Delete it, and cancel what goes on in it."""
        delete_conversation(actor=Principal.of_user(request.user), conversation=obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[AgentConversation]) -> None:
        """Delete them, and cancel what goes on in them."""
        for conversation in queryset:
            self.delete_model(request, conversation)


@admin.register(AgentRun)
class AgentRunAdmin(OwnedAdmin):
    """Runs, with ways to their events, conversation and repeats."""

    list_display = ("id", "agent_key", "status", "attempt", "user", "created_at", "finished_at", "events_link")
    list_filter = ("status", AgentKeyFilter, "created_at")
    list_select_related = ("user",)
    search_fields = ("agent_key", "schedule_id__exact")
    search_help_text = (
        "The id of a run, its parent, a conversation, an anonymous session or a schedule, the whole name or e-mail "
        "address of a user, or a part of an agent's key."
    )
    id_fields = ("pk", "conversation_id", "parent_run_id", "anonymous_session_id")
    large_fields = ("input", "output")
    ordering = ("-created_at", "-id")
    readonly_fields = (
        "created_at",
        "conversation_link",
        "retry_of_link",
        "parent_run_link",
        "rolled_back_by_link",
        "events_link",
        "sub_runs_link",
        "trace_link",
        "input_text",
        "output_text",
        "error_text",
    )
    exclude = ("input", "output", "error", "conversation", "retry_of", "parent_run")
    actions = ("cancel_runs", "retry_runs", "resume_runs")

    @admin.display(description="events")
    def events_link(self, run: AgentRun) -> str:
        """To the events of it."""
        return _link_to_list("agentevent", "events", run__id__exact=str(run.pk))

    @admin.display(description="conversation")
    def conversation_link(self, run: AgentRun) -> str:
        """To what it belongs to."""
        return _link_to_row("agentconversation", run.conversation_id)

    @admin.display(description="retry of")
    def retry_of_link(self, run: AgentRun) -> str:
        """To what it does again."""
        return _link_to_row("agentrun", run.retry_of_id)

    @admin.display(description="rolled back by")
    def rolled_back_by_link(self, run: AgentRun) -> str:
        """To what takes it back."""
        return _link_to_row("agentrun", run.rolled_back_by)

    @admin.display(description="sub-run of")
    def parent_run_link(self, run: AgentRun) -> str:
        """To the run that created it."""
        return _link_to_row("agentrun", run.parent_run_id)

    @admin.display(description="sub-runs")
    def sub_runs_link(self, run: AgentRun) -> str:
        """To what it had other agents do."""
        return _link_to_list("agentrun", "sub-runs", parent_run__id__exact=str(run.pk))

    @admin.display(description="trace")
    def trace_link(self, run: AgentRun) -> str:
        """To where its trace is shown."""
        if not run.trace_url.startswith(("http://", "https://")):
            return run.trace_id or "-"
        return format_html('<a href="{}" rel="noreferrer">{}</a>', run.trace_url, run.trace_id)

    @admin.display(description="input")
    def input_text(self, run: AgentRun) -> str:
        """What it was given."""
        return _show_json(run.input)

    @admin.display(description="output")
    def output_text(self, run: AgentRun) -> str:
        """What it made."""
        return _show_json(run.output)

    @admin.display(description="error")
    def error_text(self, run: AgentRun) -> str:
        """Why it ended badly."""
        return _show_json(run.error)

    def delete_model(self, request: HttpRequest, obj: AgentRun) -> None:
        """Delete it, cancelled if it goes on."""
        delete_run(actor=Principal.of_user(request.user), run=obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[AgentRun]) -> None:
        """Delete them, cancelled if they go on."""
        for run in queryset:
            self.delete_model(request, run)

    def has_act_permission(self, request: HttpRequest) -> bool:
        """Whether the user may change what runs do; the services ask again."""
        return bool(request.user.has_perm("django_agent_runtime.change_agentrun"))

    @admin.action(description="Cancel the selected runs", permissions=["act"])
    def cancel_runs(self, request: HttpRequest, runs: QuerySet[AgentRun]) -> None:
        """End them."""
        self._act(request, runs, "cancelled", cancel_run)

    @admin.action(description="Retry the selected runs", permissions=["act"])
    def retry_runs(self, request: HttpRequest, runs: QuerySet[AgentRun]) -> None:
        """Do them again, as new runs."""
        self._act(request, runs, "retried", retry_run)

    @admin.action(description="Resume the selected runs with an answer", permissions=["act"])
    def resume_runs(self, request: HttpRequest, runs: QuerySet[AgentRun]) -> HttpResponse | None:
        """Ask for the answer, then give it to those that still ask what was shown."""
        form = AnswerForm(request.POST if "apply" in request.POST else None)
        if form.is_bound and form.is_valid():

            def answer(actor: Principal, run: AgentRun) -> None:
                shown = request.POST.get(f"interrupt_{run.pk}")
                # Asked first: to the runtime, an answer that was given already is no error.
                asked = read_run(run).interrupt
                if asked is None or asked["interrupt_id"] != shown:
                    text = f"It is {run.status} and does not ask what was shown; it was not resumed."
                    raise RunNotWaiting(text, metadata={"state": run.status})
                resume_run(actor=actor, run=run, value=form.cleaned_data["value"], interrupt_id=shown)

            self._act(request, runs, "resumed", answer)
            return HttpResponseRedirect(request.get_full_path())
        context = {
            **self.admin_site.each_context(request),
            "title": "Resume runs with an answer",
            "opts": self.model._meta,  # noqa: SLF001 - as the admin's own templates take it
            "runs": [(run, _show_json(run.interrupt)) for run in runs],
            "form": form,
            "action": "resume_runs",
            "checkbox_name": ACTION_CHECKBOX_NAME,
        }
        return TemplateResponse(request, "admin/django_agent_runtime/agentrun/resume.html", context)

    def _act(self, request: HttpRequest, runs: QuerySet[AgentRun], done: str, act: Callable[..., Any]) -> None:
        actor = Principal.of_user(request.user)
        count = 0
        for run in runs:
            try:
                act(actor=actor, run=run)
            except AgentRuntimeError as error:
                self.message_user(request, f"Run {run.pk}: {error}", messages.ERROR)
            else:
                count += 1
                self.log_change(request, run, f"{done} from the list of runs")
        if count:
            self.message_user(request, f"{count} {'run was' if count == 1 else 'runs were'} {done}.", messages.SUCCESS)


@admin.register(AgentEvent)
class AgentEventAdmin(ReadOnlyAdmin):
    """Events, with a way to their run. They are deleted with it alone: what is served of a run has no gaps."""

    list_display = ("seq", "event_type", "visibility", "attempt", "timestamp", "run_link")
    # By type would read the whole table for the types there are.
    list_filter = ("visibility",)
    search_fields = ("event_type__exact",)
    search_help_text = "The id of a run, or a type of events."
    id_fields = ("run_id",)
    large_fields = ("payload",)
    # The table's own order, which needs no sorting; of one run it is that of the events.
    ordering = ("-id",)
    list_select_related = False
    readonly_fields = ("run_link", "payload_text")
    exclude = ("run", "payload")

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody, by themselves."""
        return False

    def has_cascade_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Whether the user may delete them with their run."""
        return super().has_delete_permission(request, obj)

    @admin.display(description="run")
    def run_link(self, event: AgentEvent) -> str:
        """To the run."""
        return _link_to_row("agentrun", event.run_id)

    @admin.display(description="payload")
    def payload_text(self, event: AgentEvent) -> str:
        """What it says."""
        return _show_json(event.payload)


def find_users(term: str) -> list[Any]:
    """The ids of those with exactly this user name, or this e-mail address."""
    model = get_user_model()
    names = [model.USERNAME_FIELD] if term else []
    email = model.get_email_field_name()
    # Only where it can be one: Django's own users have no index for it.
    if "@" in term and email in {field.name for field in model._meta.concrete_fields}:  # noqa: SLF001 - as forms do
        names.append(email)
    found: list[Any] = []
    for name in names:
        # A project may know its users by a number, which the term need not be.
        with suppress(ValueError, ValidationError):
            found += model._base_manager.filter(**{name: term}).values_list("pk", flat=True)[:MOST_USERS]  # noqa: SLF001
    return found


def _link_to_list(model: str, text: str, **filters: str) -> str:
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    return format_html('<a href="{}?{}">{}</a>', reverse(f"admin:django_agent_runtime_{model}_changelist"), query, text)


def _link_to_row(model: str, key: Any, text: object = None) -> str:
    if key is None:
        return "-"
    url = reverse(f"admin:django_agent_runtime_{model}_change", args=[key])
    return format_html('<a href="{}">{}</a>', url, key if text is None else text)


def _show_json(value: Any) -> str:
    return format_html("<pre>{}</pre>", json.dumps(value, indent=2, ensure_ascii=False))

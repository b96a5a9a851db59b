"""Graphs that are data, for the staff: which there are, how they look, and a form that registers one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import Http404
from django.shortcuts import redirect, render
from django.views import View

from backend.apps.graphs.selectors import draw_document, list_graphs, show_graph
from backend.apps.graphs.services import check_may_register, register_graph, validate_graph
from django_agent_runtime.exceptions import AgentRuntimeError, GraphNotFound

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase

# Drawings are images that stand in the page.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
UNPROCESSABLE = 422
UNAVAILABLE = 503


class StaffView(LoginRequiredMixin, View):
    """What the pages share: they are for the staff, and have a strict policy for content."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer; where the runtime cannot, a page says so."""
        if request.user.is_authenticated:
            check_may_register(request.user)
        try:
            response = super().dispatch(request, *args, **kwargs)
        except GraphNotFound as error:
            raise Http404(str(error)) from error
        except AgentRuntimeError as error:
            context = {"problem": str(error), "document": request.POST.get("document", "")}
            response = render(request, "graphs/graphs.html", context, status=UNAVAILABLE)
        response["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return response


class GraphsPage(StaffView):
    """All graphs, and a form for a document."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """The list, and the empty form."""
        return render(request, "graphs/graphs.html", {"graphs": list_graphs()})

    def post(self, request: HttpRequest) -> HttpResponse:
        """Say all that is wrong with a document; if nothing is, draw it, or register it and go to its page."""
        document = request.POST.get("document", "").replace("\r\n", "\n")
        problems = validate_graph(actor=request.user, document=document)
        if not problems and request.POST.get("action") == "register":
            registered = register_graph(actor=request.user, document=document)
            told = "is registered" if registered.created else "was registered before, and is current"
            messages.success(request, f"Version {registered.number} of {registered.name} {told}.")
            for warning in registered.warnings:
                messages.warning(request, str(warning))
            return redirect("graph", registered.name)
        context = {
            "graphs": list_graphs(),
            "document": document,
            "problems": problems,
            "drawing": "" if problems else draw_document(document),
        }
        return render(request, "graphs/graphs.html", context, status=UNPROCESSABLE if problems else None)


class GraphPage(StaffView):
    """A version of a graph: its drawing, its document, and the versions beside it."""

    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        """The version that the address names, or the current one."""
        return render(request, "graphs/graph.html", {"shown": show_graph(name, request.GET.get("version"))})

"""The files of a run over HTTP: a list, each by itself, and all as a zip."""

from __future__ import annotations

import posixpath
from http import HTTPStatus
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from django.http import FileResponse, HttpResponse
from django.urls import path
from django.utils.http import content_disposition_header
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from django_agent_runtime import selectors
from django_agent_runtime.api import serializers as schema
from django_agent_runtime.api.permissions import IsAuthenticatedOrAnonymousSession, with_anonymous_sessions
from django_agent_runtime.api.views import PROBLEM, RunLookup
from django_agent_runtime.exceptions import RunFileNotFound
from django_agent_runtime.go_integration import get_go_runtime_integration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.http.response import HttpResponseBase
    from rest_framework.renderers import BaseRenderer
    from rest_framework.request import Request

RUN_ID = OpenApiParameter("run_id", OpenApiTypes.UUID, OpenApiParameter.PATH, description="The run.")
PATH = OpenApiParameter("path", str, OpenApiParameter.PATH, description="As the list has it.")
BYTES = {
    (HTTPStatus.OK.value, "application/octet-stream"): OpenApiResponse(OpenApiTypes.BINARY, description="The content.")
}
ZIP = {(HTTPStatus.OK.value, "application/zip"): OpenApiResponse(OpenApiTypes.BINARY, description="All files.")}


class _AnyAnswer(BaseContentNegotiation):
    """A file is what it is, whatever the caller accepts; errors are JSON."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """The first one."""
        first = next(iter(renderers))
        return first, str(first.media_type)

    def select_parser(self, request: Request, parsers: Iterable[Any]) -> Any:
        """None: there is nothing to parse."""
        return None


class RunFilesLookup(RunLookup):
    """Finds a run of the caller's, for who signs in as the project says, or holds an anonymous session."""

    lookup_url_kwarg = "run_id"
    pagination_class = None
    authentication_classes = with_anonymous_sessions()
    permission_classes = (IsAuthenticatedOrAnonymousSession,)
    renderer_classes = (JSONRenderer,)
    content_negotiation_class = _AnyAnswer


class RunFilesView(RunFilesLookup):
    """The list of a run's files."""

    # By itself its operation would have the name of that for one file.
    @extend_schema(
        operation_id="list_run_files",
        parameters=[RUN_ID],
        responses={200: schema.RunFilesSerializer, **PROBLEM},
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the files that the run left, as they were saved last."""
        self.check_query()
        files = selectors.list_run_files(self.get_object())
        return Response(schema.RunFilesSerializer({"files": files}).data)


class RunFileView(RunFilesLookup):
    """One file of a run."""

    @extend_schema(parameters=[RUN_ID, PATH], responses={**BYTES, **PROBLEM})
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Download a file that the run left."""
        self.check_query()
        name = self.kwargs["path"]
        run = self.get_object()
        # The list, asked with little patience, says first whether there is something to wait for.
        if not any(file.path == name for file in selectors.list_run_files(run)):
            raise RunFileNotFound("The run has no such file.", metadata={"path": name})
        content = get_go_runtime_integration().get_run_file(str(run.pk), name)
        return _attach(HttpResponse(content, content_type="application/octet-stream"), posixpath.basename(name))


class RunArchiveView(RunFilesLookup):
    """All files of a run."""

    @extend_schema(parameters=[RUN_ID], responses={**ZIP, **PROBLEM})
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Download all files that the run left, as a zip."""
        self.check_query()
        run = self.get_object()
        if not selectors.list_run_files(run):
            raise RunFileNotFound("The run has no files.")
        archive = TemporaryFile()  # noqa: SIM115 - the response closes it
        try:
            get_go_runtime_integration().get_run_archive(str(run.pk), archive)
        except BaseException:
            archive.close()
            raise
        return _attach(FileResponse(archive, content_type="application/zip"), f"{run.pk}.zip")


def _attach(response: HttpResponseBase, name: str) -> HttpResponseBase:
    """A response that no browser shows or runs on this site: an agent wrote what is in it."""
    response["Content-Disposition"] = content_disposition_header(as_attachment=True, filename=name) or "attachment"
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "sandbox; default-src 'none'"
    response["Cache-Control"] = "private, no-store"
    return response


file_patterns = [
    path("runs/<str:run_id>/files/", RunFilesView.as_view(), name="run-files"),
    path("runs/<str:run_id>/files.zip", RunArchiveView.as_view(), name="run-archive"),
    path("runs/<str:run_id>/files/<path:path>", RunFileView.as_view(), name="run-file"),
]
"""Their addresses, to be included where those of the runs are."""

"""A path is refused that is no text.

Servers and Django put other characters in place of bytes that are not UTF-8, and so make one path of several: what is
written under one is overwritten under another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from asgiref.sync import iscoroutinefunction
from django.utils.decorators import sync_and_async_middleware

from django_agent_runtime.api.problems import answer_bad_path

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase


@sync_and_async_middleware
def path_middleware(
    get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]],
) -> Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]:
    """Answers 400 to a request whose path is not UTF-8, before anything reads it."""
    if iscoroutinefunction(get_response):

        async def serve_async(request: HttpRequest) -> HttpResponseBase:
            if not is_text(request):
                return answer_bad_path()
            response: HttpResponseBase = await get_response(request)
            return response

        return serve_async

    def serve(request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        return get_response(request) if is_text(request) else answer_bad_path()

    return serve


def is_text(request: HttpRequest) -> bool:
    """Whether the path is UTF-8, as far as the server hands it over as it came.

    Django has replaced the bytes at fault by then (`%ff` with the text `%FF`), so that of a WSGI server it is the
    variable for what came that counts; gunicorn, uWSGI and mod_wsgi have one, `runserver` has none.
    """
    scope = getattr(request, "scope", None)
    if scope is not None:
        # A server need not give it.
        raw = scope.get("raw_path") or b""
    else:
        came = request.META.get("RAW_URI") or request.META.get("REQUEST_URI") or ""
        raw = came.split("?", 1)[0].encode("latin-1", "replace")
    try:
        unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        return False
    return True

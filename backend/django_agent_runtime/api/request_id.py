"""One id for each HTTP request: in its answer, its error body and its log lines."""

from __future__ import annotations

import logging
import re
import uuid
from contextvars import ContextVar
from typing import TYPE_CHECKING

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

HEADER = "X-Request-ID"
# What another program may name a request: short, and harmless in a log line and a header.
ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Where a request carries its id; no header of a caller can have this name.
_META_KEY = "django_agent_runtime.request_id"

_current: ContextVar[str] = ContextVar("request_id", default="")


def current_request_id() -> str:
    """The id of the request being served here, or an empty string outside of one."""
    return _current.get()


class RequestIdMiddleware:
    """Takes the caller's `X-Request-ID`, or makes one, and answers with it.

    Put it first in `MIDDLEWARE`. It serves sync and async handlers alike.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]) -> None:
        """Django passes the next handler."""
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Serve one request under its id."""
        if self._is_async:
            return self._serve_async(request)
        token = _current.set(_name_request(request))
        try:
            response: HttpResponseBase = self.get_response(request)  # type: ignore[assignment]
            response[HEADER] = _current.get()
            return response
        finally:
            _current.reset(token)

    async def _serve_async(self, request: HttpRequest) -> HttpResponseBase:
        token = _current.set(_name_request(request))
        try:
            response: HttpResponseBase = await self.get_response(request)  # type: ignore[misc]
            response[HEADER] = _current.get()
            return response
        finally:
            _current.reset(token)


class RequestIdFilter(logging.Filter):
    """Gives every log record the attribute `request_id`."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attribute; let every record through."""
        request_id = _current.get()
        if not request_id and (request := getattr(record, "request", None)) is not None:
            # Django logs an answer of 4xx or 5xx when the middleware is through with it.
            request_id = getattr(request, "META", {}).get(_META_KEY, "")
        record.request_id = request_id
        return True


def _name_request(request: HttpRequest) -> str:
    given = request.headers.get(HEADER, "")
    request_id: str = given if ACCEPTED_ID.fullmatch(given) else uuid.uuid4().hex
    request.META[_META_KEY] = request_id
    return request_id

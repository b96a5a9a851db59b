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
        token = _current.set(_choose_id(request))
        try:
            response: HttpResponseBase = self.get_response(request)  # type: ignore[assignment]
            response[HEADER] = _current.get()
            return response
        finally:
            _current.reset(token)

    async def _serve_async(self, request: HttpRequest) -> HttpResponseBase:
        token = _current.set(_choose_id(request))
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
        record.request_id = _current.get()
        return True


def _choose_id(request: HttpRequest) -> str:
    given = request.headers.get(HEADER, "")
    return given if ACCEPTED_ID.fullmatch(given) else uuid.uuid4().hex

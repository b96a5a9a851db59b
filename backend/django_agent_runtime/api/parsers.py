"""A JSON parser that keeps to limits."""

from __future__ import annotations

from http import HTTPStatus
from typing import IO, TYPE_CHECKING, Any, cast

from django.conf import settings
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import JSONParser

if TYPE_CHECKING:
    from collections.abc import Mapping


class BodyTooLarge(APIException):
    """The body is above `DATA_UPLOAD_MAX_MEMORY_SIZE`."""

    status_code = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    default_code = "too_large"
    default_detail = "The body of the request is too large."


class BoundedJSONParser(JSONParser):
    """Reads at most `DATA_UPLOAD_MAX_MEMORY_SIZE` bytes, and refuses what Python cannot nest.

    DRF's own parser reads a body of any size into memory, and fails on deep nesting with a
    RecursionError, which would be answered as a fault of the site.
    """

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """The parsed body.

        Raises:
            BodyTooLarge: Above the limit.
            ParseError: Not JSON, or nested too deep.
        """
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if limit is not None:
            stream = cast("IO[Any]", _LimitedStream(stream, limit))
        try:
            return super().parse(stream, media_type, dict(parser_context or {}))
        except RecursionError as error:
            raise ParseError("The JSON is nested too deep.") from error


class _LimitedStream:
    """As much of a stream as may be read; one byte more is refused."""

    def __init__(self, stream: IO[Any], limit_bytes: int) -> None:
        self._stream = stream
        self._left = limit_bytes

    def read(self, size: int = -1) -> Any:
        chunk = self._stream.read(self._left + 1 if size < 0 else min(size, self._left + 1))
        if len(chunk) > self._left:
            raise BodyTooLarge
        self._left -= len(chunk)
        return chunk

"""A JSON parser that refuses what it cannot nest."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser

if TYPE_CHECKING:
    from collections.abc import Mapping


class BoundedJSONParser(JSONParser):
    """DRF's parser fails on deep nesting with a RecursionError, which would be answered as a fault of the site."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """The parsed body.

        Raises:
            ParseError: Not JSON, or nested too deep.
        """
        try:
            return super().parse(stream, media_type, dict(parser_context or {}))
        except RecursionError as error:
            raise ParseError("The JSON is nested too deep.") from error

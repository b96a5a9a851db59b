"""Log lines with the facts that they carry as fields (`run_id`, `agent`, `attempt`, …), for people and for programs.

Python's own formatters show a field only where it is named, and a line such as "agent failed" says little without them.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone

__all__ = ["JsonFormatter", "TextFormatter", "show_lines"]

_PACKAGE = "django_agent_runtime"
_STANDARD_ATTRIBUTES = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_DEFAULT_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class TextFormatter(logging.Formatter):
    """Writes a line for people, `name=value` of each field behind it: those that are a text, a number or a boolean."""

    def __init__(self, format: str = _DEFAULT_FORMAT) -> None:  # noqa: A002 - logging's configuration calls it so
        """Begin each line as `format` says, in %-style."""
        super().__init__(format)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line without its traceback."""
        facts = [
            f"{name}={_quote(value)}"
            for name, value in record.__dict__.items()
            if name not in _STANDARD_ATTRIBUTES and isinstance(value, (str, int, float))
        ]
        return " ".join((super().formatMessage(record), *facts))


class JsonFormatter(logging.Formatter):
    """Writes a JSON object a line: `time`, `level`, `logger`, `message`, then every field."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a value JSON does not know is written as its `str()`."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, tz=timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((key, value) for key, value in record.__dict__.items() if key not in _STANDARD_ATTRIBUTES)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def show_lines() -> None:
    """Write this package's lines from INFO on to the standard error, where `LOGGING` says nothing of them.

    It is for commands whose log is all that one sees of them.
    """
    logger = logging.getLogger(_PACKAGE)
    if logger.hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter())
    logger.addHandler(handler)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


def _quote(value: str | float) -> str:
    text = str(value)
    return text if text.isprintable() and text and not set(' "=') & set(text) else json.dumps(text, ensure_ascii=False)

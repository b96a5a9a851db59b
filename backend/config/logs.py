"""Log lines as JSON, one object a line."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone

STANDARD_ATTRIBUTES = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Writes `time`, `level`, `logger`, `message`, then whatever the caller passed as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a value JSON does not know is written as its `str()`."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, tz=timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((key, value) for key, value in record.__dict__.items() if key not in STANDARD_ATTRIBUTES)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)

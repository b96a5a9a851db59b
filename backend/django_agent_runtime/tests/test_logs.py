"""What a log line shows, and that the commands show theirs."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import Any

from django_agent_runtime import logs


def make_record(**fields: Any) -> logging.LogRecord:
    record = {"name": "shop", "levelname": "WARNING", "msg": "run %s", "args": ("failed",)}
    return logging.makeLogRecord(record | fields)


def fail() -> Any:
    try:
        int("no paint")
    except ValueError:
        return sys.exc_info()


def test_json_line_is_one_object_with_its_fields() -> None:
    line = json.loads(logs.JsonFormatter().format(make_record(run_id="r1", cause=ValueError("x"))))
    assert (line["level"], line["logger"], line["message"]) == ("WARNING", "shop", "run failed")
    assert (line["run_id"], line["cause"]) == ("r1", "x")
    assert line["time"].endswith("+00:00")


def test_json_line_carries_the_exception() -> None:
    assert "no paint" in json.loads(logs.JsonFormatter().format(make_record(exc_info=fail())))["exception"]


def test_text_line_has_its_fields_before_the_traceback() -> None:
    record = make_record(run_id="r1", attempt=2, err='said "no"\nand left', request=object(), exc_info=fail())
    first, *rest = logs.TextFormatter("%(levelname)s %(message)s").format(record).splitlines()
    assert first == r'WARNING run failed run_id=r1 attempt=2 err="said \"no\"\nand left"'
    assert rest[0].startswith("Traceback")


def log_in_a_process(before: str) -> str:
    """What a process writes that shows its lines, after the code `before`."""
    code = f"""
import logging
from django_agent_runtime.logs import show_lines
{before}
show_lines()
show_lines()
logging.getLogger("django_agent_runtime.projector").info("took over", extra={{"namespace": "shop"}})
"""
    # Not in this one: pytest has handlers of its own.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def test_lines_are_shown_where_nobody_says_how() -> None:
    (line,) = log_in_a_process("").splitlines()
    assert line.endswith("INFO django_agent_runtime.projector took over namespace=shop")


def test_lines_are_left_to_who_says_how() -> None:
    assert log_in_a_process("logging.basicConfig(format='own %(message)s', level='INFO')") == "own took over\n"

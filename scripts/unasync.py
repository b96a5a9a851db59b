"""Generate the sync methods of the Python client from the async ones.

    python scripts/unasync.py            write _operations_sync.py
    python scripts/unasync.py --check    fail if it is not what would be written

A name that the source defines with a leading `a` loses it everywhere, in code and docstrings alike; what else
differs is in RULES. Each rule must match something: one that does not is out of date, and an error.
"""

from __future__ import annotations

import difflib
import re
import subprocess
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent / "backend" / "django_agent_runtime"
SOURCE = _PACKAGE / "_operations_async.py"
TARGET = _PACKAGE / "_operations_sync.py"

_DOCSTRING = '''"""Generated from `_operations_async.py` by `scripts/unasync.py`: edit that file."""'''

RULES: tuple[tuple[str, str], ...] = (
    (r'\A""".*?"""', _DOCSTRING),
    (r"^import asyncio\n", ""),
    (
        r"\bimport AsyncIterator, Awaitable, Callable, Iterable, Iterator\b",
        "import Callable, Iterable, Iterator",
    ),
    (r"\bAwaitable\[Any\]", "Any"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\bAsyncStream\b", "Stream"),
    (r"\bAsyncPendingCall\b", "PendingCall"),
    (r"\baresult\b", "result"),
    (r"\basettle\b", "settle"),
    (r"\bAsyncOperations\b", "SyncOperations"),
    (r" for asyncio\.", " for threads."),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"\baattempt(_stream)?\b", r"attempt\1"),
    (r"\baexplain\b", "explain"),
    (r"\basync def\b", "def"),
    (r"\bawait ", ""),
)


def generate(source: str) -> str:
    """The sync text of `source`.

    Raises:
        ValueError: A rule matches nothing.
    """
    names = re.findall(r"^    (?:async )?def (_?)a(\w+)\(", source, re.MULTILINE)
    if not names:
        raise ValueError("the source defines no method with a leading `a`")
    text = source
    for underscore, name in names:
        text = re.sub(rf"\b{underscore}a{name}\b", underscore + name, text)
    for pattern, replacement in RULES:
        text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE | re.DOTALL)
        if not count:
            raise ValueError(f"the rule {pattern!r} matches nothing any more")
    return text


def _format(text: str) -> str:
    command = [
        sys.executable,
        "-m",
        "ruff",
        "format",
        "--stdin-filename",
        str(TARGET),
        "-",
    ]
    return subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=True).stdout


def main(arguments: list[str]) -> int:
    """Write the target, or with `--check` compare it; the exit status."""
    text = _format(generate(SOURCE.read_text()))
    if arguments == ["--check"]:
        difference = list(
            difflib.unified_diff(
                TARGET.read_text().splitlines(),
                text.splitlines(),
                str(TARGET),
                "generated",
                lineterm="",
            )
        )
        print(*difference, sep="\n", end="\n" if difference else "")
        return 1 if difference else 0
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Generate the sync methods of the Python client from the async ones.

    python scripts/unasync.py            write _sync from _async
    python scripts/unasync.py --check    fail if it is not what would be written

A name that the sources define with a leading `a` loses it everywhere, in code and docstrings alike; what else
differs is in RULES. Each rule must match something: one that does not is out of date, and an error.
"""

from __future__ import annotations

import difflib
import re
import subprocess
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent / "backend" / "django_agent_runtime"
SOURCE = _PACKAGE / "_async"
TARGET = _PACKAGE / "_sync"

_DOCSTRING = '"""Generated from `_async/{name}` by `scripts/unasync.py`: edit that file."""'

RULES: tuple[tuple[str, str], ...] = (
    # What this leaves double or unused in imports is tidied up behind it.
    (r"^import asyncio$", "import time"),
    (r"\bAwaitable\[Any\]", "Any"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\bAsyncStream\b", "Stream"),
    (r"\bAsyncGraphStream\b", "GraphStream"),
    (r"\bAsyncPendingCall\b", "PendingCall"),
    (r"\baresult\b", "result"),
    (r"\basettle\b", "settle"),
    (r"\bAsync([A-Z])", r"Sync\1"),
    (r" for asyncio\.", " for threads."),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"\baattempt(_stream)?\b", r"attempt\1"),
    (r"\baexplain\b", "explain"),
    (r"\basync def\b", "def"),
    (r"\bawait ", ""),
)


def generate(sources: dict[str, str]) -> dict[str, str]:
    """The sync texts of `sources`, by file name.

    Raises:
        ValueError: A rule matches nothing.
    """
    method = re.compile(r"^    (?:async )?def (_?)a(\w+)\(", re.MULTILINE)
    names = [found for source in sources.values() for found in method.findall(source)]
    if not names:
        raise ValueError("the sources define no method with a leading `a`")
    unmatched = {pattern for pattern, _ in RULES}
    texts = {}
    for file, source in sources.items():
        text = re.sub(r'\A""".*?"""', _DOCSTRING.format(name=file), source, flags=re.DOTALL)
        for underscore, name in names:
            text = re.sub(rf"\b{underscore}a{name}\b", underscore + name, text)
        for pattern, replacement in RULES:
            text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
            if count:
                unmatched.discard(pattern)
        texts[file] = text
    if unmatched:
        raise ValueError(f"these rules match nothing any more: {sorted(unmatched)}")
    return texts


def _format(text: str, file: str) -> str:
    named = ("--quiet", "--stdin-filename", str(TARGET / file), "-")
    for command in (("check", "--select", "F401,I001", "--fix"), ("format",)):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *named],
            input=text,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        text = done.stdout
    return text


def main(arguments: list[str]) -> int:
    """Write the target, or with `--check` compare it; the exit status."""
    sources = {path.name: path.read_text() for path in sorted(SOURCE.glob("*.py"))}
    texts = {file: _format(text, file) for file, text in generate(sources).items()}
    present = {path.name: path.read_text() for path in TARGET.glob("*.py")}
    if arguments == ["--check"]:
        difference = [
            line
            for file in sorted(texts.keys() | present.keys())
            for line in difflib.unified_diff(
                present.get(file, "").splitlines(),
                texts.get(file, "").splitlines(),
                str(TARGET / file),
                "generated",
                lineterm="",
            )
        ]
        print(*difference, sep="\n", end="\n" if difference else "")
        return 1 if difference else 0
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    TARGET.mkdir(exist_ok=True)
    for file in present.keys() - texts.keys():
        (TARGET / file).unlink()
    for file, text in texts.items():
        (TARGET / file).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

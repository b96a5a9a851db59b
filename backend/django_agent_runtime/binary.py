"""Where the runtime's binary is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ENVIRONMENT_VARIABLE = "AGENT_RUNTIME_BINARY"
NAME = "agent-runtime"
PACKAGE = Path(__file__).resolve().parent


def find_binary() -> Path:
    """The runtime to start.

    Looks at `AGENT_RUNTIME_BINARY`, then in this package (a wheel carries it), then in
    `go-runtime/bin/` of the checkout this package lies in, then on PATH.

    Raises:
        FileNotFoundError: It is in none of these; the message says what to do.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        if not os.access(named, os.X_OK):
            raise FileNotFoundError(f"{ENVIRONMENT_VARIABLE} names {named}, which is not a program.")
        return Path(named)
    for candidate in (PACKAGE / "bin" / NAME, PACKAGE.parents[1] / "go-runtime" / "bin" / NAME):
        if candidate.is_file():
            return candidate
    on_path = shutil.which(NAME)
    if on_path:
        return Path(on_path)
    raise FileNotFoundError(
        f"There is no {NAME} here: in a checkout run `make build`; elsewhere install a wheel of "
        f"django-agent-runtime for this platform, or put {NAME} on PATH."
    )

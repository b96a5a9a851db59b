#!/usr/bin/env python
"""Run the reference site's management commands."""

import os
import sys
from pathlib import Path

BACKEND = Path(__file__).resolve().parent


def main() -> None:
    """Run the command line with the repository root on the path in place of this folder.

    The site is imported as `backend.…`; with this folder on the path as well, every app
    could be imported under two names.
    """
    sys.path[:] = [str(BACKEND.parent), *(entry for entry in sys.path if Path(entry or ".").resolve() != BACKEND)]
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "backend.config.settings")
    try:
        from django.core.exceptions import ImproperlyConfigured  # noqa: PLC0415
        from django.core.management import execute_from_command_line  # noqa: PLC0415
    except ImportError as error:
        raise SystemExit(
            "Django is not installed here: run `make setup`, then `.venv/bin/python backend/manage.py`."
        ) from error
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        if "--traceback" in sys.argv:
            raise
        raise SystemExit(f"manage.py: {error}") from error


if __name__ == "__main__":
    main()

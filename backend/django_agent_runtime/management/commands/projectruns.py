"""`manage.py projectruns`: write what the runtime says of its runs into the tables."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from django_agent_runtime.exceptions import AgentRuntimeError
from django_agent_runtime.go_integration import get_go_runtime_integration
from django_agent_runtime.logs import show_lines
from django_agent_runtime.projector import LeaseLostError, Projector, is_migrated

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from types import FrameType


class Command(BaseCommand):
    """Runs until it is stopped. Several may run: one of them works, and another takes over when that one dies."""

    help = "Write runs and their events from the Go runtime into the tables, and send it the runs that wait."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument("--once", action="store_true", help="Stop when there is nothing more for now.")
        parser.add_argument("--namespace", help="The runtime's namespace; by default that of the setting GO_RUNTIME.")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Project.

        Raises:
            CommandError: With `--once`: the runtime cannot be reached, another process projects, or the tables are not
                there.
        """
        show_lines()
        projector = Projector(namespace=options["namespace"])
        if options["once"]:
            try:
                written = projector.run_once()
            except (AgentRuntimeError, LeaseLostError) as error:
                raise CommandError(str(error)) from error
            except DatabaseError as error:
                if is_migrated():
                    raise
                raise CommandError(f"{error}: run manage.py migrate first.") from error
            self.stdout.write(f"{written} events written")
            return

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _leave)
        address = get_go_runtime_integration().settings.address
        self.stdout.write(f"Runtime   {address}, namespace {projector.namespace}")
        self.stdout.write("Stop      Ctrl-C")
        self.stdout.flush()
        # In a thread: a signal must not come while this one holds a lock that the end needs.
        projector.start()
        try:
            while projector.is_running():
                time.sleep(1)
        except _StopRequested:
            projector.stop()


class _StopRequested(BaseException):
    """Somebody wants the process to end."""


def _leave(_number: int, _frame: FrameType | None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise _StopRequested

"""`manage.py runagent`: execute runs of the agents of this project."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from argparse import ArgumentTypeError
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.utils import autoreload

from django_agent_runtime import tracing
from django_agent_runtime._tls import check_files
from django_agent_runtime.conf import load
from django_agent_runtime.exceptions import InvalidValue
from django_agent_runtime.logs import show_lines
from django_agent_runtime.projector import projecting
from django_agent_runtime.runtime.registry import list_runtimes
from django_agent_runtime.runtime.worker.process import SLOT_VARIABLE, end_within, serve
from django_agent_runtime.runtime.worker.supervisor import Supervisor
from django_agent_runtime.runtime.worker.worker import DEFAULT_GRACE_SECONDS, Worker
from django_agent_runtime.runtime_conf import get_agent_runtime_settings

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

    from django_agent_runtime.conf import RuntimeSettings
    from django_agent_runtime.runtime.interfaces import AgentRuntime
    from django_agent_runtime.runtime_conf import AgentRuntimeSettings

_MOST_PROCESSES = 1000
_MOST_CONCURRENCY = 10_000
# What a worker gets to give its runs back when its code has changed, in seconds.
_RELOAD_SECONDS = 8.0
_RELOAD_CODE = 3
# The supervisor's number of its first process.
FIRST_SLOT = "1"


@dataclass(frozen=True)
class _Plan:
    """What is to be served, and how."""

    runtime: RuntimeSettings
    settings: AgentRuntimeSettings
    agents: Mapping[str, AgentRuntime]
    processes: int
    concurrency: int
    grace: float
    name: str
    projects: bool
    """Whether this process is one that writes the tables."""

    def make_worker(self) -> Worker:
        """A worker for this process."""
        return Worker(
            self.runtime,
            self.agents,
            settings=self.settings,
            concurrency=self.concurrency,
            name=self.name,
            grace=self.grace,
        )


class Command(BaseCommand):
    """Serves agents until SIGTERM or Ctrl-C, then finishes what it can and gives back the rest."""

    help = (
        "Execute runs of this project's agents (RUNTIME_REGISTRY in settings.DJANGO_AGENT_RUNTIME). The runtime that "
        "settings.GO_RUNTIME names hands them out as they come; while it is away, this goes on trying to reach it. "
        "SIGTERM or Ctrl-C lets runs finish for --grace seconds and gives back the others, which count no attempt; "
        "a second one does not wait. With DEBUG and one process, the code is reloaded when it changes."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument(
            "--processes",
            type=_whole(1, _MOST_PROCESSES),
            metavar="N",
            help="How many processes to run; one that ends is started again. By default DEFAULT_PROCESSES of the "
            "settings, or 1.",
        )
        parser.add_argument(
            "--concurrency",
            type=_whole(1, _MOST_CONCURRENCY),
            metavar="N",
            help="How many runs each process executes at a time. By default DEFAULT_CONCURRENCY of the settings.",
        )
        parser.add_argument(
            "--agent-keys", metavar="KEY,KEY", help="Serve these agents only. By default all that are registered."
        )
        parser.add_argument(
            "--queue-poll-interval",
            type=_seconds,
            metavar="SECONDS",
            help="Accepted for scripts that set it, without effect: the runtime hands out runs as soon as they come.",
        )
        parser.add_argument(
            "--noreload",
            action="store_true",
            help="Do not reload the code when it changes. It is reloaded with DEBUG and one process only.",
        )
        parser.add_argument(
            "--grace",
            type=_seconds,
            default=DEFAULT_GRACE_SECONDS,
            metavar="SECONDS",
            help="How long runs may take to finish when this is told to stop; by default %(default)g.",
        )
        parser.add_argument(
            "--worker-name",
            default="",
            metavar="NAME",
            help="What this worker is called in lists; by default the machine's name and the process id.",
        )

        parser.add_argument(
            "--no-projector",
            action="store_true",
            help="Leave it to `manage.py projectruns` to write runs and events into the tables. By default the first "
            "process does so too, unless another one in the namespace does.",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Check that there is something to serve, say what, and serve it.

        Raises:
            CommandError: No agent is registered, one is asked for that is not, or the settings are wrong.
        """
        show_lines()
        try:
            plan = _make_plan(options)
        except CommandError as error:
            if os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) != "true":
                raise
            self._wait_for_change(error)
            return
        slot = os.environ.get(SLOT_VARIABLE)
        if slot is not None or plan.processes == 1:
            tracing.configure("runagent")
        if slot is None and plan.processes > 1:
            self._announce(plan)
            self._supervise(plan)
        elif slot is None and django_settings.DEBUG and not options["noreload"]:
            self._serve_reloading(plan)
        else:
            if slot is None:
                self._announce(plan)
            with projecting(wanted=plan.projects):
                serve(plan.make_worker())

    def _announce(self, plan: _Plan) -> None:
        runs = "run" if plan.concurrency == 1 else "runs"
        processes = "1 process" if plan.processes == 1 else f"{plan.processes} processes"
        self.stdout.write(f"Agents    {', '.join(plan.agents)}")
        self.stdout.write(f"Workers   {processes} of {plan.concurrency} {runs} at a time")
        self.stdout.write(f"Runtime   {plan.runtime.address}, namespace {plan.runtime.namespace}")
        self.stdout.write(f"Stop      Ctrl-C; runs have {plan.grace:g} s to finish, twice: at once")
        self.stdout.flush()

    def _supervise(self, plan: _Plan) -> None:
        # The settings have been checked here, for all processes.
        command = [*map(str, autoreload.get_child_arguments()), "--skip-checks"]
        code = Supervisor(command, plan.processes, grace=plan.grace).run()
        if code:
            sys.exit(code)

    def _serve_reloading(self, plan: _Plan) -> None:
        """Serve in a thread, as `runserver` does: the main one watches the files."""
        if os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) != "true":
            code = _run_reloaded()
            if code:
                sys.exit(code)
            return
        self._announce(plan)
        worker, reloader = plan.make_worker(), autoreload.get_reloader()

        def stop(*_: object) -> None:
            # An exception, which Django's own reloader counts on, is lost where a signal comes at a bad moment.
            worker.stop(plan.grace)
            reloader.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        code = 0
        try:
            with projecting(wanted=plan.projects):
                autoreload.start_django(reloader, worker.run)
        except BaseException as end:
            code = end.code if isinstance(end, SystemExit) and isinstance(end.code, int) else 1
            if code == _RELOAD_CODE:
                self.stdout.write("The code has changed: reloading.")
            worker.stop(0)
            raise
        finally:
            worker.finished.wait(plan.grace + _RELOAD_SECONDS)
            # Whatever threads agents have left behind.
            end_within(1.0 if worker.finished.is_set() else 0, code)

    def _wait_for_change(self, error: CommandError) -> None:
        """Say what is wrong with code that was just changed, and watch it until it is changed again."""
        self.stderr.write(self.style.ERROR(f"{error}"))
        self.stderr.write("Waiting for the code to change.")
        files = set(_list_files(error))

        def watch_files(sender: autoreload.BaseReloader, **_kwargs: Any) -> None:
            # A module that could not be imported is not among those that are watched anyway.
            sender.extra_files.update(files)

        autoreload.autoreload_started.connect(watch_files, weak=False)
        autoreload.run_with_reloader(_do_nothing)


def _list_files(error: BaseException | None) -> Iterator[Path]:
    """The files that an error, and those that caused it, came through."""
    while error is not None:
        if isinstance(error, SyntaxError) and error.filename:
            yield Path(error.filename)
        for frame in traceback.extract_tb(error.__traceback__):
            path = Path(frame.filename)
            if path.is_file():
                yield path
        error = error.__cause__ or error.__context__


def _do_nothing() -> None:
    """What the process above the one that is reloaded serves."""


def _run_reloaded() -> int:
    """Run this command in a process below, again whenever its code has changed; its exit code in the end.

    As Django's own, but for signals: that one kills the process below, with the runs that it has.
    """
    child: subprocess.Popen[bytes] | None = None
    stopping = threading.Event()

    def pass_on(number: int, _frame: FrameType | None) -> None:
        stopping.set()
        # A Ctrl-C in a terminal has reached it already.
        if child is not None and not (number == signal.SIGINT and sys.stdin.isatty()):
            child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    while not stopping.is_set():
        child = subprocess.Popen(  # noqa: S603  # this command once more
            autoreload.get_child_arguments(), env={**os.environ, autoreload.DJANGO_AUTORELOAD_ENV: "true"}
        )
        if stopping.is_set():
            # While there was no process yet to pass it on to.
            child.terminate()
        code = child.wait()
        if code < 0 and stopping.is_set():
            # It was told so before it could say how it ends.
            return 0
        if code != _RELOAD_CODE:
            return code if code >= 0 else 128 - code
    return 0


def _make_plan(options: Mapping[str, Any]) -> _Plan:
    try:
        runtime = load(getattr(django_settings, "GO_RUNTIME", {}))
        settings = get_agent_runtime_settings()
        if runtime.tls is not None:
            check_files(runtime.tls)
        agents = list_runtimes()
    except (ImproperlyConfigured, InvalidValue, ValueError) as error:
        raise CommandError(str(error)) from error
    processes = options["processes"] or settings.default_processes
    return _Plan(
        runtime=runtime,
        settings=settings,
        agents=_choose_agents(agents, options["agent_keys"]),
        processes=processes,
        concurrency=options["concurrency"] or settings.default_concurrency,
        grace=options["grace"],
        name=_make_name(options["worker_name"], processes),
        projects=not options["no_projector"] and os.environ.get(SLOT_VARIABLE, FIRST_SLOT) == FIRST_SLOT,
    )


def _choose_agents(agents: Mapping[str, AgentRuntime], wanted: str | None) -> Mapping[str, AgentRuntime]:
    if not agents:
        raise CommandError(
            "No agent is registered. Name what registers them in DJANGO_AGENT_RUNTIME, such as "
            "{'RUNTIME_REGISTRY': ['myapp.agents:register_agents']}."
        )
    if wanted is None:
        return agents
    keys = list(dict.fromkeys(key.strip() for key in wanted.split(",") if key.strip()))
    unknown = [key for key in keys if key not in agents]
    if unknown or not keys:
        raise CommandError(
            f"--agent-keys names {', '.join(map(repr, unknown)) or 'no agent'}; registered are: {', '.join(agents)}."
        )
    return {key: agents[key] for key in keys}


def _make_name(given: str, processes: int) -> str:
    if not given:
        return f"{socket.gethostname()}:{os.getpid()}"
    return given if processes == 1 else f"{given}-{os.environ.get(SLOT_VARIABLE, '0')}"


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        with suppress(ValueError):
            if least <= int(text) <= most:
                return int(text)
        raise ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")

    return parse


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 <= float(text) < threading.TIMEOUT_MAX:
            return float(text)
    raise ArgumentTypeError(f"{text!r} is not a number of seconds")

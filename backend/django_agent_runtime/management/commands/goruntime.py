"""`manage.py goruntime`: run the runtime for development, in the foreground."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from django_agent_runtime.binary import find_binary
from django_agent_runtime.conf import load

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from django_agent_runtime.conf import RuntimeSettings

DEFAULT_HTTP = "127.0.0.1:8090"


class Command(BaseCommand):
    """Becomes `agent-runtime serve`, so Ctrl-C and SIGTERM reach it as they are."""

    help = (
        "Run the Go runtime for development, listening where settings.GO_RUNTIME looks for it. "
        "What follows `--` is passed to `agent-runtime serve`, for example: "
        "manage.py goruntime -- --durability os --log-level debug"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument(
            "--data-dir", type=Path, help="Folder of state, events and runs; by default var/agent-runtime in BASE_DIR."
        )
        parser.add_argument(
            "--http",
            default=DEFAULT_HTTP,
            metavar="HOST:PORT",
            help="Address of /healthz, /readyz and /metrics, or off; by default %(default)s.",
        )
        parser.add_argument("arguments", nargs="*", metavar="-- ARGUMENT", help="Passed to `agent-runtime serve`.")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Check what would keep it from starting, say where it listens and keeps its data, and become it.

        Raises:
            CommandError: There is no binary, an address is in use or not of this machine.
        """
        try:
            binary = find_binary()
        except FileNotFoundError as error:
            raise CommandError(str(error)) from error
        runtime = load(getattr(settings, "GO_RUNTIME", {}))
        data_dir: Path = options["data_dir"] or _default_data_dir()
        command = [str(binary), "serve", "--data-dir", str(data_dir), "--http", options["http"]]
        if runtime.socket:
            command += ["--listen", "off", "--socket", runtime.socket]
        else:
            listen = _find_listen_address(runtime)
            _check_free(listen, "Change GO_RUNTIME['port'], or see `manage.py goruntime_status` for what runs there.")
            command += ["--listen", listen]
        if options["http"] != "off":
            _check_free(options["http"], "Choose another with --http.")
        self.stdout.write(f"Runtime   {binary}")
        self.stdout.write(f"Listens   {runtime.address}; health and metrics on {options['http']}")
        self.stdout.write(f"Data      {data_dir.resolve()} (kept between runs; delete the folder to start afresh)")
        self.stdout.write("Stop      Ctrl-C")
        self.stdout.flush()
        os.execv(binary, [*command, *options["arguments"]])  # noqa: S606


def _default_data_dir() -> Path:
    """`var/agent-runtime` in the project's BASE_DIR, or in the current folder when it has none."""
    return Path(getattr(settings, "BASE_DIR", None) or Path.cwd()) / "var" / "agent-runtime"


def _find_listen_address(runtime: RuntimeSettings) -> str:
    """The setting's host and port as a loopback address to listen on."""
    host = "127.0.0.1" if runtime.host == "localhost" else runtime.host.strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise CommandError(
            f"GO_RUNTIME['host'] is {runtime.host!r}: this command runs a runtime on this machine alone, "
            "so the host must be localhost."
        )
    return f"[{address}]:{runtime.port}" if address.version == 6 else f"{address}:{runtime.port}"  # noqa: PLR2004


def _check_free(address: str, advice: str) -> None:
    """Refuse an address that something listens on; anything else about it the runtime judges itself."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except (OSError, ValueError, OverflowError) as error:
            if getattr(error, "errno", None) == errno.EADDRINUSE:
                raise CommandError(f"{address} is in use. {advice}") from error

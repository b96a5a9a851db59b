"""`manage.py register`: graphs and agents that are data, from files into the runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError

from django_agent_runtime.exceptions import AgentRuntimeError
from django_agent_runtime.go_integration import GoRuntimeIntegration, get_go_runtime_integration

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from django_agent_runtime.types import Definition, DocumentProblems

SUFFIXES = (".yaml", ".yml", ".json")


class Command(BaseCommand):
    """Exits with 0 when every file is registered, or with --check could be, else with 1."""

    help = (
        "Register graphs and agents that are data. What is registered already changes nothing, so that this may run "
        "at every deployment; runs that wait go on with the version that they began with. All mistakes of all files "
        "are told before anything is registered, each with its file and its place there; graphs and agents that a file "
        "names and that there are not yet are warnings."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument(
            "files",
            nargs="+",
            type=Path,
            metavar="FILE",
            help=f"A file ({', '.join(SUFFIXES)}), or a folder: all such files in it.",
        )
        parser.add_argument(
            "--agents", action="store_true", help="The files are agents; without this, they are graphs."
        )
        parser.add_argument("--check", action="store_true", help="Only say what is wrong; change nothing.")
        parser.add_argument(
            "--namespace", help="The namespace to register in; by default that of the setting GO_RUNTIME."
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Check all files, then register them.

        Raises:
            CommandError: A file has mistakes, or the runtime cannot be reached or refuses one.
        """
        runtime = get_go_runtime_integration()
        if options["namespace"]:
            runtime = runtime.with_settings(namespace=options["namespace"])
        kind = _Kind(runtime, agents=options["agents"])
        try:
            files = _documents(options["files"])
            mistakes = [f"{file}: {problem}" for file in files for problem in kind.validate(file)]
            if mistakes:
                raise CommandError("\n".join(mistakes))
            for file in files:
                if options["check"]:
                    self.stdout.write(f"{file}: fine")
                    continue
                registered = kind.register(file)
                state = "new" if registered.created else "known"
                self.stdout.write(
                    f"{registered.name} {registered.version} (number {registered.number}, {state}): {file}"
                )
            # Files may name each other: what is missing is known when all are registered.
            for file in files:
                for warning in kind.validate(file).warnings:
                    self.stderr.write(self.style.WARNING(f"{file}: {warning}"))
        except (AgentRuntimeError, OSError) as error:
            raise CommandError(str(error)) from error


@dataclass(frozen=True)
class _Kind:
    """What is done with the files of a kind."""

    runtime: GoRuntimeIntegration
    agents: bool

    def validate(self, file: Path) -> DocumentProblems:
        return self.runtime.validate_agent(file) if self.agents else self.runtime.validate_graph(file)

    def register(self, file: Path) -> Definition:
        return self.runtime.register_agent(file) if self.agents else self.runtime.register_graph(file)


def _documents(paths: list[Path]) -> list[Path]:
    """The files themselves, and those of folders, by name."""
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and not file.name.startswith("."))
        if not found:
            raise CommandError(f"{path}: there is no file {', '.join('*' + suffix for suffix in SUFFIXES)} in it")
        files.extend(found)
    return files

"""`manage.py goruntime_status`: what this project sees of its runtime."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError

from django_agent_runtime.exceptions import AgentRuntimeError
from django_agent_runtime.go_integration import get_go_runtime_integration
from django_agent_runtime.health import probe_runtime

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Sequence

    from django_agent_runtime.go_integration import GoRuntimeIntegration

DEFAULT_PINGS = 5
DEFAULT_TIMEOUT_SECONDS = 5.0


class Command(BaseCommand):
    """Exits with 0 when the runtime answers, else with 1 and one sentence on standard error."""

    help = "Say whether the Go runtime can be reached, which it is, how fast it answers and what it can run."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument("--json", action="store_true", help="Write one JSON object instead of text.")
        parser.add_argument(
            "--pings", type=int, default=DEFAULT_PINGS, help="How often to ask for the latency; by default %(default)s."
        )
        parser.add_argument(
            "--timeout",
            type=float,
            default=DEFAULT_TIMEOUT_SECONDS,
            metavar="SECONDS",
            help="How long to wait for the first answer; by default %(default)s.",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Ask, and write what came back.

        Raises:
            CommandError: The runtime cannot be reached, or refuses this project's token.
        """
        timeout: float = options["timeout"]
        health = probe_runtime(timeout_seconds=timeout)
        if not health.connected:
            raise CommandError(health.problem)
        runtime = get_go_runtime_integration()
        try:
            measured = sorted(_ping(runtime) for _ in range(max(1, options["pings"])))
            agents = runtime.list_agents()
            task_types = runtime.list_task_types()
        except AgentRuntimeError as error:
            raise CommandError(str(error)) from error
        status = {
            **asdict(health),
            "latency_ms": {"median": statistics.median(measured), "min": measured[0], "max": measured[-1]},
            "pings": len(measured),
            "task_types": [task_type.task_type for task_type in task_types],
            "agents": {agent.agent_id: [kind.task_type for kind in agent.task_types] for agent in agents},
            "models": {agent.agent_id: agent.model for agent in agents},
        }
        del status["problem"]
        self.stdout.write(json.dumps(status, indent=2) if options["json"] else _describe(status))


def _ping(runtime: GoRuntimeIntegration) -> float:
    """How long an answer takes, in milliseconds."""
    start = time.perf_counter()
    runtime.get_server_info()
    return round((time.perf_counter() - start) * 1000, 2)


def _describe_agent(agent_id: str, model: str, task_types: Sequence[str]) -> str:
    """Of an agent in workers, the runtime knows neither its model nor tasks of its own."""
    named = f"{agent_id} (model: {model})" if model else agent_id
    return f"{named}: {', '.join(task_types)}" if task_types else f"{named}, in workers"


def _describe(status: dict[str, Any]) -> str:
    latency = status["latency_ms"]
    lines = [
        f"connected   version {status['version']}",
        f"namespace   {status['namespace']}",
        f"durability  {status['durability']}",
        f"latency     {latency['median']:.2f} ms median of {status['pings']} pings, at most {latency['max']:.2f}",
        f"task types  {', '.join(status['task_types'])}",
        *(
            f"agent       {_describe_agent(agent_id, status['models'][agent_id], task_types)}"
            for agent_id, task_types in status["agents"].items()
        ),
        *(f"warning     {warning}" for warning in status["warnings"]),
    ]
    return "\n".join(lines)

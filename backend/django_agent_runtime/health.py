"""Whether the runtime answers: for load balancers, pages and people."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from django.conf import settings
from django.http import JsonResponse
from django.views import View

from django_agent_runtime.exceptions import AgentRuntimeError
from django_agent_runtime.go_integration import get_go_runtime_integration

if TYPE_CHECKING:
    from django.http import HttpRequest

logger = logging.getLogger(__name__)

# A load balancer asks often and gives up soon.
PROBE_TIMEOUT_SECONDS = 1.0


@dataclass(frozen=True)
class RuntimeHealth:
    """What one question to the runtime brought."""

    connected: bool
    version: str = ""
    namespace: str = ""
    durability: str = ""
    """`fsync`, `os` or `quorum`: when a change counts as kept."""
    latency_ms: float | None = None
    """How long an answer took on an open connection; None when there was none."""
    warnings: tuple[str, ...] = ()
    """What an operator must look at, a sentence each."""
    problem: str = ""
    """Why there was no answer, in one sentence."""


def probe_runtime(*, timeout_seconds: float = PROBE_TIMEOUT_SECONDS) -> RuntimeHealth:
    """Ask the runtime which it is, and wait so long at most. Never raises for a runtime that is away."""
    runtime = get_go_runtime_integration()
    try:
        runtime.wait_ready(timeout=timeout_seconds)
        start = time.perf_counter()
        info = runtime.get_server_info()
        latency_ms = (time.perf_counter() - start) * 1000
    except AgentRuntimeError as error:
        return RuntimeHealth(connected=False, problem=str(error))
    return RuntimeHealth(
        connected=True,
        version=info.version,
        namespace=info.namespace,
        durability=info.durability,
        latency_ms=round(latency_ms, 2),
        warnings=info.warnings,
    )


class RuntimeHealthView(View):
    """GET answers 200 while the runtime answers, else 503, with what is known as JSON.

    It needs no sign-in, as load balancers have none; so without DEBUG it does not say why the
    runtime is away, which would name its address. The log does.
    """

    def get(self, request: HttpRequest) -> JsonResponse:
        """Probe the runtime once."""
        health = probe_runtime()
        body = asdict(health)
        if not health.connected:
            logger.warning("runtime health probe failed", extra={"err": health.problem})
            if not settings.DEBUG:
                body["problem"] = "The runtime does not answer; the log of this site says why."
        response = JsonResponse(body, status=200 if health.connected else 503)
        response["Cache-Control"] = "no-store"
        return response

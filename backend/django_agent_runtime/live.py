"""The runtime, asked for somebody who waits for a page.

The client of the process tries for as long as `GO_RUNTIME["timeout"]` says. A request that only wants to know whether
the runtime is there must not hold a server's thread for that long, and while it is away, few requests are to hold one
at all.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from django_agent_runtime._fork import gate
from django_agent_runtime.exceptions import CallTimedOut, RuntimeUnavailable
from django_agent_runtime.go_integration import GoRuntimeIntegration, get_go_runtime_integration, to_arguments

if TYPE_CHECKING:
    from django_agent_runtime._channel import Q, R, Rpc

# Long enough for a commit on a slow disk; what takes longer is sent again by the reconciler.
PATIENCE_SECONDS = 2.0
# So long nobody waits after one who waited in vain.
REST_SECONDS = 1.0


class _HurriedRuntime(GoRuntimeIntegration):
    """A client whose synchronous calls fail at once for a while after one without an answer; then one tries again.

    `connection_state` is no help here: it stays `reconnecting` until somebody calls.
    """

    _failed_at: float | None = None

    def _call(self, rpc: Rpc[Q, R], request: Q, *, timeout: float | None = None, retry: bool = True) -> R:
        if self._failed_at is not None:
            now = time.monotonic()
            if now - self._failed_at < REST_SECONDS:
                raise RuntimeUnavailable(f"the agent runtime at {self.settings.address} did not answer a moment ago")
            # The others do not wait beside this one, which will have failed by then if it does.
            self._failed_at = now + (self.settings.timeout if timeout is None else timeout)
        failed_at = None
        try:
            return super()._call(rpc, request, timeout=timeout, retry=retry)
        except (RuntimeUnavailable, CallTimedOut):
            failed_at = time.monotonic()
            raise
        finally:
            self._failed_at = failed_at


class _HurriedClient:
    """A client with the settings of the process's own, and less time."""

    def __init__(self) -> None:
        self._patient: GoRuntimeIntegration | None = None
        self._client: GoRuntimeIntegration | None = None

    def get(self) -> GoRuntimeIntegration:
        patient = get_go_runtime_integration()
        client = self._client
        if client is not None and patient is self._patient:
            return client
        # The one lock that no fork can leave held.
        with gate.changed:
            if self._client is None or patient is not self._patient:
                hurried = {"timeout": min(patient.settings.timeout, PATIENCE_SECONDS)}
                replaced, self._client = self._client, _HurriedRuntime(**to_arguments(patient.settings) | hurried)
                self._patient = patient
                if replaced is not None:
                    replaced.disconnect()
            return self._client


_hurried = _HurriedClient()


def get_hurried_runtime() -> GoRuntimeIntegration:
    """The runtime of this process, by a client whose calls end after two seconds, and at once while it is away.

    Raises:
        ValueError: The setting `GO_RUNTIME` is not valid.
    """
    return _hurried.get()

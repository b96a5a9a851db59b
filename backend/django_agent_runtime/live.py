"""The runtime, asked for somebody who waits for a page.

The client of the process tries for as long as `GO_RUNTIME["timeout"]` says. A request that only wants to know whether
the runtime is there must not hold a server's thread for that long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_agent_runtime._fork import gate
from django_agent_runtime.go_integration import get_go_runtime_integration

if TYPE_CHECKING:
    from django_agent_runtime.go_integration import GoRuntimeIntegration

# Long enough for a commit on a slow disk; what takes longer is sent again by the reconciler.
PATIENCE_SECONDS = 2.0


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
                hurried = patient.with_settings(timeout=min(patient.settings.timeout, PATIENCE_SECONDS))
                replaced, self._client = self._client, hurried
                self._patient = patient
                if replaced is not None:
                    replaced.disconnect()
            return self._client


_hurried = _HurriedClient()


def get_hurried_runtime() -> GoRuntimeIntegration:
    """The runtime of this process, by a client whose calls end after two seconds.

    Raises:
        ValueError: The setting `GO_RUNTIME` is not valid.
    """
    return _hurried.get()

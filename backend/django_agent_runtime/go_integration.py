"""The client of the agent runtime.

    from django_agent_runtime.go_integration import get_go_runtime_integration

    go_runtime = get_go_runtime_integration()
    result = go_runtime.execute_task("example_task", {"param1": "value1"})

Every method has a twin for asyncio with a leading `a` (`await go_runtime.aexecute_task(...)`). One object serves
all threads and event loops of a process, and its forks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._async.operations import AsyncOperations
from ._channel import Transport
from ._fork import gate
from ._subscriptions import EventHub
from ._sync.operations import SyncOperations
from ._watch import RunHub
from .conf import RuntimeSettings, TlsSettings, load
from .types import ConnectionState

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from .conf import SettingChanges

__all__ = ["GoRuntimeIntegration", "get_go_runtime_integration"]


class GoRuntimeIntegration(SyncOperations, AsyncOperations):
    """A client of one agent runtime.

    It opens nothing until the first call, connects again by itself, and is safe across threads and forks: see
    `_fork.py` for what happens at one. Every call has a deadline. Use it in a `with` or `async with` block to
    connect at its start and disconnect at its end, or keep it for the life of the process.

    Works without Django; in a Django project use `get_go_runtime_integration()`.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 50051,
        timeout: float = 30,
        reconnection_attempts: int = 5,
        reconnection_delay: float = 5,
        socket: str | None = None,
        token: str | None = None,
        tls: bool | Mapping[str, str] | TlsSettings | None = None,
        namespace: str = "default",
    ) -> None:
        """Nothing is opened yet.

        Args:
            host: Where the runtime listens.
            port: The port it listens on.
            timeout: Seconds a call may take when it does not say otherwise.
            reconnection_attempts: How often `connect()` tries.
            reconnection_delay: Seconds between two tries of `connect()`.
            socket: Path of the runtime's Unix socket, used instead of host and port.
            token: The runtime's token for this client.
            tls: True, or paths of PEM files: `{"ca": …, "cert": …, "key": …, "server_name": …}`.
            namespace: Keeps state, events and runs apart from those of other namespaces.

        Raises:
            ValueError: A sentence for every argument that does not fit.
        """
        self.settings: RuntimeSettings = load(
            {
                "host": host,
                "port": port,
                "timeout": timeout,
                "reconnection_attempts": reconnection_attempts,
                "reconnection_delay": reconnection_delay,
                "socket": socket,
                "token": token,
                "tls": tls,
                "namespace": namespace,
            }
        )
        self._transport = Transport(self.settings)
        self._hub = EventHub(self._transport)
        self._watches = RunHub(self._transport)

    def with_settings(self, **changes: Unpack[SettingChanges]) -> GoRuntimeIntegration:
        """Another client, with these settings changed and all others as here: another namespace, or less patience.

            reports = go_runtime.with_settings(namespace="reports", timeout=2)

        It has a connection of its own, which it opens on its first call and keeps until it is disconnected; keep the
        client for as long as it is needed. Nothing is called here, so that this is for asyncio too.

        Raises:
            ValueError: A sentence for every setting that does not fit.
        """
        return GoRuntimeIntegration(**to_arguments(self.settings) | dict(changes))

    @property
    def connection_state(self) -> ConnectionState:
        """How this client stands to the runtime, as of its last call or stream."""
        return self._transport.state

    @property
    def stats(self) -> dict[str, int]:
        """Counts since this client was made, in a forked child since the fork.

        `subscriptions`, and `watches` of runs: those open now. `events_delivered`: to callbacks. `callbacks_failed`:
        those that raised. `reconnects`: how often the lost event stream was open again.
        """
        return {
            "subscriptions": self._hub.size,
            "watches": self._watches.size,
            "events_delivered": self._hub.pool.events_delivered,
            "callbacks_failed": self._hub.pool.callbacks_failed,
            "reconnects": self._hub.reconnects,
        }

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.disconnect()

    async def __aenter__(self) -> Self:
        await self.aconnect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.adisconnect()

    def __repr__(self) -> str:
        return f"<GoRuntimeIntegration {self.settings.address} {self.settings.namespace!r} {self.connection_state}>"


class _Singleton:
    """The client of this process, and the setting it was made from."""

    def __init__(self) -> None:
        self._configured: object = None
        self._client: GoRuntimeIntegration | None = None

    def get(self) -> GoRuntimeIntegration:
        from django.conf import settings  # noqa: PLC0415 - this module works without Django

        configured = getattr(settings, "GO_RUNTIME", _NO_SETTING)
        client = self._client
        if client is not None and configured is self._configured:
            return client
        # The one lock that no fork can leave held.
        with gate.changed:
            if self._client is None or configured is not self._configured:
                replaced, self._client = self._client, GoRuntimeIntegration(**_arguments(configured))
                self._configured = configured
                if replaced is not None:
                    replaced.disconnect()
            return self._client


_NO_SETTING: Mapping[str, Any] = {}
_singleton = _Singleton()


def to_arguments(settings: RuntimeSettings) -> dict[str, Any]:
    """The arguments that make a client with these settings."""
    return {field.name: getattr(settings, field.name) for field in fields(settings)}


def _arguments(configured: Mapping[str, Any]) -> dict[str, Any]:
    return to_arguments(load(configured))


def get_go_runtime_integration() -> GoRuntimeIntegration:
    """The client of this process, made from the setting `GO_RUNTIME` on first use; nothing is opened yet.

    A setting that is replaced (`override_settings`) makes another client and disconnects the one before.

    Raises:
        ValueError: The setting is not valid; `manage.py check` says the same with hints.
    """
    return _singleton.get()

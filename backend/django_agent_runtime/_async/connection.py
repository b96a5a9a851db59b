"""The connection to the runtime."""

from __future__ import annotations

import asyncio
import logging

from django_agent_runtime import _channel, _messages
from django_agent_runtime._arguments import check_seconds
from django_agent_runtime.exceptions import CallTimedOut, RuntimeUnavailable
from django_agent_runtime.grpc_client.agentruntime.v1 import agent_service_pb2 as agent_pb
from django_agent_runtime.types import ServerInfo

from .calls import AsyncCalls

__all__ = ["AsyncConnection"]

logger = logging.getLogger(__name__)

_PING_SECONDS = 1.0


class AsyncConnection(AsyncCalls):
    """Connecting, and who is there."""

    async def aconnect(self) -> bool:
        """Make sure that the runtime can be reached.

        Tries `reconnection_attempts` times, `reconnection_delay` seconds apart. Calling it is optional: every call
        connects by itself, and again after a lost connection.

        Returns:
            True.

        Raises:
            RuntimeUnavailable: A ConnectionError that says what to do.
            AccessDenied: The runtime is there, and refuses the token.
        """
        attempts = self.settings.reconnection_attempts
        for attempt in range(1, attempts + 1):
            try:
                await self._acall(_channel.GET_SERVER_INFO, agent_pb.GetServerInfoRequest(), retry=False)
                return True
            except (RuntimeUnavailable, CallTimedOut) as error:
                if attempt == attempts:
                    raise RuntimeUnavailable(
                        f"no agent runtime at {self.settings.address} after {attempts} attempts: {error}",
                        request_id=error.request_id,
                    ) from error
                logger.info("agent runtime not reached", extra={"attempt": attempt, "err": str(error)})
            await asyncio.sleep(self.settings.reconnection_delay)
        raise AssertionError("reconnection_attempts is at least 1")

    async def adisconnect(self) -> None:
        """End every subscription and stream and close the connection; safe to call twice.

        Calls in flight fail with ClientClosed. A later call connects again.
        """
        self._transport.close()

    async def ais_connected(self) -> bool:
        """Whether the runtime answers now, asked with one call that waits at most a second."""
        try:
            await self._acall(
                _channel.GET_SERVER_INFO, agent_pb.GetServerInfoRequest(), timeout=_PING_SECONDS, retry=False
            )
        except (RuntimeUnavailable, CallTimedOut):
            return False
        return True

    async def await_ready(self, timeout: float | None = None) -> bool:
        """Wait until the runtime answers, trying again and again.

        Args:
            timeout: Seconds to wait; None: the `timeout` setting.

        Returns:
            True.

        Raises:
            RuntimeUnavailable: It did not within `timeout` seconds.
        """
        await self._acall(
            _channel.GET_SERVER_INFO, agent_pb.GetServerInfoRequest(), timeout=check_seconds("timeout", timeout)
        )
        return True

    async def aget_server_info(self, timeout: float | None = None) -> ServerInfo:
        """Which runtime this is and what its limits are.

        Args:
            timeout: Seconds the call may take; None: the `timeout` setting.
        """
        info = await self._acall(
            _channel.GET_SERVER_INFO, agent_pb.GetServerInfoRequest(), timeout=check_seconds("timeout", timeout)
        )
        return _messages.to_server_info(info)

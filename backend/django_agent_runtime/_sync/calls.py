"""Generated from `_async/calls.py` by `scripts/unasync.py`: edit that file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc

from django_agent_runtime._ahead import PendingCall
from django_agent_runtime._channel import CallMetadata, Q, R, Rpc, Transport, jittered, new_request_id
from django_agent_runtime._errors import CallFailure, failure_error
from django_agent_runtime.conf import RuntimeSettings

__all__ = ["SyncCalls"]

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


class SyncCalls:
    """What every method calls the runtime through."""

    settings: RuntimeSettings
    _transport: Transport

    def _call(self, rpc: Rpc[Q, R], request: Q, *, timeout: float | None = None, retry: bool = True) -> R:
        """Call until there is an answer, for at most `timeout` seconds (None: the setting).

        Only UNAVAILABLE is tried again, and every request that changes something names itself, so that an attempt
        whose answer was lost is joined, not repeated. Attempts do not wait for the connection to become ready: a
        call that did so until its deadline could not tell a runtime that is away from one that is slow.
        """
        deadline = time.monotonic() + (self.settings.timeout if timeout is None else timeout)
        named: Any = request
        request_id: str = (named.request_id if rpc.names_itself else "") or new_request_id()
        attempt = partial(self._transport.attempt, rpc, request, deadline)
        response: R = self._persist(attempt, request_id, deadline, retry=retry)
        return response

    def _call_each(self, rpc: Rpc[Q, R], requests: Iterator[tuple[Q, bool]], receive: Callable[[R], None]) -> None:
        """Call with each request, given with whether another one follows, one after the other.

        While a call is under way, the next request is made.
        """
        request, more = next(requests, (None, False))
        while request is not None:
            if not more:
                receive(self._call(rpc, request))
                return
            sending = PendingCall(partial(self._call, rpc, request))
            try:
                # Let it begin, before the next request takes this thread.
                time.sleep(0)
                request, more = next(requests, (None, False))
            finally:
                receive(sending.result())

    def _persist(
        self, attempt: Callable[[CallMetadata], Any], request_id: str, deadline: float, *, retry: bool = True
    ) -> Any:
        """What the first attempt gives that is no CallFailure; attempts are made until shortly before `deadline`."""
        metadata = self._transport.metadata(request_id)
        pause = _FIRST_PAUSE
        while True:
            outcome = attempt(metadata)
            if not isinstance(outcome, CallFailure):
                return outcome
            unavailable = outcome.code is grpc.StatusCode.UNAVAILABLE
            if not retry or not unavailable or time.monotonic() + pause >= deadline:
                outcome = self._transport.explain(outcome)
                raise failure_error(outcome, address=self.settings.address, request_id=request_id) from outcome
            time.sleep(jittered(pause))
            pause = min(pause * 2, _LONGEST_PAUSE)

"""The shared state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from django_agent_runtime import _channel, _messages
from django_agent_runtime._arguments import MAX_PAGE_SIZE, check_items, check_ttl, check_whole, duration
from django_agent_runtime._channel import new_request_id
from django_agent_runtime._codec import check_key, check_text, decode, encode
from django_agent_runtime._streams import AsyncStream
from django_agent_runtime._watch import Watch
from django_agent_runtime.exceptions import InvalidValue
from django_agent_runtime.grpc_client.agentruntime.v1 import state_service_pb2 as state_pb
from django_agent_runtime.types import DeleteOperation, OperationResult, SetOperation, StateChange, StateEntry

from .calls import AsyncCalls

__all__ = ["AsyncState"]


class AsyncState(AsyncCalls):
    """Keys and their values."""

    async def aget_state(self, key: str, default: Any = None) -> Any:
        """The value of a key of the shared state, or `default` if there is no such key.

        A stored null is None, whatever `default` is.
        """
        response = await self._acall(_channel.GET_STATE, state_pb.GetStateRequest(key=check_key(key)))
        return decode(response.entry.value) if response.HasField("entry") else default

    async def aget_state_entry(self, key: str) -> StateEntry | None:
        """A key of the shared state with its revision and times; None if there is no such key."""
        response = await self._acall(_channel.GET_STATE, state_pb.GetStateRequest(key=check_key(key)))
        return _messages.to_entry(response.entry) if response.HasField("entry") else None

    async def aset_state(
        self,
        key: str,
        value: Any,
        *,
        ttl: float | None = None,
        expected_revision: int | None = None,
        create_only: bool = False,
    ) -> bool:
        """Set a key of the shared state; once this returns, the value survives whatever dies.

        Args:
            key: 1 to 512 bytes of UTF-8.
            value: Any JSON value, nested at most 200 levels; it comes back exactly as written.
            ttl: Whole seconds after which the key is removed; None: kept.
            expected_revision: Write only if the key is at this revision; 0: only if it does not exist.
            create_only: Write only if the key does not exist.

        Returns:
            True. What stood in the way is raised.

        Raises:
            RevisionMismatch: The key is at another revision.
            KeyExists: `create_only`, and the key exists.
            InvalidValue: The key or the value cannot be stored; nothing was sent.
            TooLarge: The value is above the runtime's limit.
            StorageFull: The runtime has no room.
        """
        if create_only:
            if expected_revision:
                raise InvalidValue("create_only and expected_revision contradict each other")
            expected_revision = 0
        request = state_pb.SetStateRequest(
            key=check_key(key),
            value=encode(value),
            ttl=duration("ttl", check_ttl("ttl", ttl)),
            expected_revision=check_whole("expected_revision", expected_revision),
            request_id=new_request_id(),
        )
        await self._acall(_channel.SET_STATE, request)
        return True

    async def adelete_state(self, key: str, *, expected_revision: int | None = None) -> bool:
        """Delete a key of the shared state.

        Args:
            expected_revision: Delete only if the key is at this revision.

        Returns:
            Whether there was such a key.

        Raises:
            RevisionMismatch: The key is at another revision.
        """
        request = state_pb.DeleteStateRequest(
            key=check_key(key),
            expected_revision=check_whole("expected_revision", expected_revision),
            request_id=new_request_id(),
        )
        response = await self._acall(_channel.DELETE_STATE, request)
        return response.existed

    async def alist_state(
        self, prefix: str = "", *, keys_only: bool = False, page_size: int = 0
    ) -> AsyncIterator[StateEntry]:
        """Iterate over the keys that begin with `prefix`, in byte order; pages are fetched as they are needed.

        Args:
            prefix: Any string; a `*` at its end is left out. Empty: every key.
            keys_only: Leave values out; they are None.
            page_size: Entries fetched at a time, at most 1000; 0: the runtime's default.
        """
        request = state_pb.ListStateRequest(
            prefix=check_text("prefix", prefix).removesuffix("*"),
            keys_only=bool(keys_only),
            page_size=check_whole("page_size", page_size, MAX_PAGE_SIZE),
        )
        while True:
            page = await self._acall(_channel.LIST_STATE, request)
            for entry in page.entries:
                yield _messages.to_entry(entry)
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    async def atransact_state(self, operations: Iterable[SetOperation | DeleteOperation]) -> list[OperationResult]:
        """Apply 1 to 100 operations on the shared state, all or none. A key may occur once.

        Returns:
            One result for each operation, in order.

        Raises:
            RevisionMismatch: A key is at another revision than its operation expects; nothing was changed.
            AgentRuntimeError: As in `set_state`.
        """
        request = state_pb.TransactStateRequest(request_id=new_request_id())
        for index, operation in enumerate(check_items("operations", operations)):
            name = f"operations[{index}]"
            if not isinstance(operation, (SetOperation, DeleteOperation)):
                raise InvalidValue(f"{name} is {operation!r}, must be a SetOperation or a DeleteOperation")
            step = state_pb.StateOperation(
                expected_revision=check_whole(f"{name}.expected_revision", operation.expected_revision)
            )
            if isinstance(operation, SetOperation):
                step.set.key = check_key(operation.key)
                step.set.value = encode(operation.value)
                if ttl := duration(f"{name}.ttl", check_ttl(f"{name}.ttl", operation.ttl)):
                    step.set.ttl.CopyFrom(ttl)
            else:
                step.delete.key = check_key(operation.key)
            request.operations.append(step)
        response = await self._acall(_channel.TRANSACT_STATE, request)
        return [OperationResult(revision=item.revision, existed=item.existed) for item in response.results]

    def awatch_state(
        self, pattern: str = "*", *, include_current: bool = False, after_revision: int | None = None
    ) -> AsyncStream[StateChange]:
        """Iterate over the changes of the shared state as they happen, without end.

        It goes on over lost connections, restarts and forks. Of several changes to one key that happened while it
        was not connected, it may show only the last.

        Args:
            pattern: A key, or with a `*` at its end every key with the prefix before it.
            include_current: Begin with the entries as they are now.
            after_revision: Begin after this revision instead of now.

        Raises:
            EventsTruncated: While iterating: the runtime's disk was damaged, and changes this had still to see, or
                values it has seen, may be gone. Begin anew with `include_current`.
        """
        exact = not pattern.endswith("*")
        watch = Watch(
            self._transport,
            key=check_key(pattern) if exact else "",
            prefix="" if exact else check_text("pattern", pattern)[:-1],
            include_current=include_current,
            after_revision=check_whole("after_revision", after_revision),
        )
        return AsyncStream(watch, self.settings.timeout)

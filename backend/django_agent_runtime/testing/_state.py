"""The fake's shared state: a dictionary behind the real service definition."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import grpc

from django_agent_runtime.grpc_client.agentruntime.v1 import state_service_pb2 as pb
from django_agent_runtime.grpc_client.agentruntime.v1 import state_service_pb2_grpc
from django_agent_runtime.testing._wire import read_namespace, refuse, refuse_field

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_KEY_BYTES = 512

Answer = TypeVar("Answer", pb.SetStateResponse, pb.DeleteStateResponse, pb.TransactStateResponse)


@dataclass
class FakeStateService(state_service_pb2_grpc.StateServiceServicer):
    """Keys, revisions, pages, transactions and watches in memory; keys with a TTL vanish on reading."""

    max_value_bytes: int
    _entries: dict[tuple[str, str], pb.StateEntry] = field(default_factory=dict)
    _changes: list[tuple[str, pb.StateChange]] = field(default_factory=list)
    _answers: dict[tuple[str, str], pb.SetStateResponse | pb.DeleteStateResponse | pb.TransactStateResponse] = field(
        default_factory=dict
    )
    _revision: int = 0
    _stopped: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def stop(self) -> None:
        """End every watch."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def GetState(self, request: pb.GetStateRequest, context: grpc.ServicerContext) -> pb.GetStateResponse:  # noqa: N802
        """See the service definition."""
        namespace = read_namespace(context)
        self._check_key(context, request.key)
        with self._changed:
            return pb.GetStateResponse(entry=self._find(namespace, request.key))

    def SetState(self, request: pb.SetStateRequest, context: grpc.ServicerContext) -> pb.SetStateResponse:  # noqa: N802
        """See the service definition."""
        namespace = read_namespace(context)
        operation = pb.StateOperation(set=pb.StateOperation.Set(key=request.key, value=request.value))
        if request.HasField("ttl"):
            operation.set.ttl.CopyFrom(request.ttl)
        if request.HasField("expected_revision"):
            operation.expected_revision = request.expected_revision
        with self._changed:
            done = self._answers.get((namespace, request.request_id))
            if isinstance(done, pb.SetStateResponse):
                return done
            self._check(context, namespace, operation)
            answer = pb.SetStateResponse(revision=self._apply(namespace, operation).revision)
            return self._remember(namespace, request.request_id, answer)

    def DeleteState(self, request: pb.DeleteStateRequest, context: grpc.ServicerContext) -> pb.DeleteStateResponse:  # noqa: N802
        """See the service definition."""
        namespace = read_namespace(context)
        operation = pb.StateOperation(delete=pb.StateOperation.Delete(key=request.key))
        if request.HasField("expected_revision"):
            operation.expected_revision = request.expected_revision
        with self._changed:
            done = self._answers.get((namespace, request.request_id))
            if isinstance(done, pb.DeleteStateResponse):
                return done
            self._check(context, namespace, operation)
            answer = pb.DeleteStateResponse(existed=self._apply(namespace, operation).existed)
            return self._remember(namespace, request.request_id, answer)

    def ListState(self, request: pb.ListStateRequest, context: grpc.ServicerContext) -> pb.ListStateResponse:  # noqa: N802
        """See the service definition; the page token is the last key of the page before."""
        namespace = read_namespace(context)
        size = min(request.page_size or 100, 1000)
        with self._changed:
            keys = sorted(
                (key for space, key in list(self._entries) if space == namespace and key.startswith(request.prefix)),
                key=str.encode,
            )
            found = [entry for key in keys if key > request.page_token and (entry := self._find(namespace, key))]
        page = found[:size]
        if request.keys_only:
            page = [pb.StateEntry(key=entry.key, revision=entry.revision) for entry in page]
        return pb.ListStateResponse(entries=page, next_page_token=page[-1].key if len(found) > size else "")

    def TransactState(  # noqa: N802
        self, request: pb.TransactStateRequest, context: grpc.ServicerContext
    ) -> pb.TransactStateResponse:
        """See the service definition."""
        namespace = read_namespace(context)
        with self._changed:
            done = self._answers.get((namespace, request.request_id))
            if isinstance(done, pb.TransactStateResponse):
                return done
            for operation in request.operations:
                self._check(context, namespace, operation)
            results = [self._apply(namespace, operation) for operation in request.operations]
            return self._remember(namespace, request.request_id, pb.TransactStateResponse(results=results))

    def WatchState(  # noqa: N802
        self, request: pb.WatchStateRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchStateResponse]:
        """See the service definition."""
        namespace = read_namespace(context)
        context.add_callback(self._wake)
        with self._changed:
            position = 0 if request.HasField("after_revision") else len(self._changes)
            revision = request.after_revision if request.HasField("after_revision") else self._revision
            current = [
                pb.StateChange(kind=pb.StateChange.KIND_SET, entry=entry)
                for (space, key), entry in self._entries.items()
                if space == namespace and _is_watched(request, key)
            ]
        yield pb.WatchStateResponse(revision=revision)
        if request.include_current:
            current.sort(key=lambda change: change.entry.revision)
            yield pb.WatchStateResponse(changes=current, revision=revision, current_sent=True)
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stopped or not context.is_active() or len(self._changes) > position  # noqa: B023
                )
                if self._stopped or not context.is_active():
                    return
                changes = [
                    change
                    for space, change in self._changes[position:]
                    if space == namespace
                    and change.entry.revision > revision
                    and _is_watched(request, change.entry.key)
                ]
                position, latest = len(self._changes), self._revision
            yield pb.WatchStateResponse(changes=changes, revision=latest)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _find(self, namespace: str, key: str) -> pb.StateEntry | None:
        entry = self._entries.get((namespace, key))
        if entry and entry.HasField("expire_time") and entry.expire_time.ToNanoseconds() <= time.time_ns():
            self._record(namespace, pb.StateChange.KIND_EXPIRED, pb.StateEntry(key=key))
            del self._entries[namespace, key]
            return None
        return entry

    def _check_key(self, context: grpc.ServicerContext, key: str) -> None:
        if not 1 <= len(key.encode()) <= MAX_KEY_BYTES:
            refuse_field(context, "key", f"must be 1 to {MAX_KEY_BYTES} bytes")

    def _check(self, context: grpc.ServicerContext, namespace: str, operation: pb.StateOperation) -> None:
        key = operation.set.key or operation.delete.key
        self._check_key(context, key)
        size = len(operation.set.value)
        if size > self.max_value_bytes:
            refuse(
                context,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "TOO_LARGE",
                f"value has {size} bytes and the limit is {self.max_value_bytes}",
                metadata={"field": "value", "size": str(size), "limit": str(self.max_value_bytes)},
            )
        if not operation.HasField("expected_revision"):
            return
        entry = self._find(namespace, key)
        revision = entry.revision if entry else 0
        if operation.expected_revision == revision:
            return
        create_only = operation.expected_revision == 0
        refuse(
            context,
            grpc.StatusCode.ALREADY_EXISTS if create_only else grpc.StatusCode.ABORTED,
            "KEY_EXISTS" if create_only else "REVISION_MISMATCH",
            f"key {key!r} is at revision {revision}, not {operation.expected_revision}",
            metadata={"key": key, "revision": str(revision)},
        )

    def _apply(self, namespace: str, operation: pb.StateOperation) -> pb.StateOperationResult:
        if operation.HasField("delete"):
            existed = self._find(namespace, operation.delete.key) is not None
            if existed:
                del self._entries[namespace, operation.delete.key]
                self._record(namespace, pb.StateChange.KIND_DELETED, pb.StateEntry(key=operation.delete.key))
            return pb.StateOperationResult(existed=existed)
        existed = self._find(namespace, operation.set.key) is not None
        entry = pb.StateEntry(key=operation.set.key, value=operation.set.value)
        if operation.set.HasField("ttl"):
            entry.expire_time.FromNanoseconds(time.time_ns() + operation.set.ttl.ToNanoseconds())
        self._record(namespace, pb.StateChange.KIND_SET, entry)
        self._entries[namespace, entry.key] = entry
        return pb.StateOperationResult(revision=entry.revision, existed=existed)

    def _record(self, namespace: str, kind: pb.StateChange.Kind, entry: pb.StateEntry) -> None:
        self._revision += 1
        entry.revision = self._revision
        entry.update_time.GetCurrentTime()
        self._changes.append((namespace, pb.StateChange(kind=kind, entry=entry)))
        self._changed.notify_all()

    def _remember(self, namespace: str, request_id: str, answer: Answer) -> Answer:
        if request_id:
            self._answers[namespace, request_id] = answer
        return answer


def _is_watched(request: pb.WatchStateRequest, key: str) -> bool:
    return key == request.key if request.key else key.startswith(request.prefix)

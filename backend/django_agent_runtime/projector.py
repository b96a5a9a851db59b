"""The process that writes what the runtime says of its runs into Django's tables.

It follows the events of all runs of a namespace, deltas left out, from where the cursor stands. Each batch is one
transaction: the events, the runs' rows and the cursor; so that after any death the next one goes on exactly there. All
of it may be done again: an event has its number, and a row only goes forward.

One process of a namespace does this at a time. Its lease is in the cursor's row and not in the runtime, because that
row is locked by every batch anyhow: who has lost the lease cannot move the cursor, and so cannot write at all, whatever
the clocks say. The clocks only decide how soon another process takes over.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import DatabaseError, DataError, IntegrityError, close_old_connections, connections, router, transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Q
from django.utils import timezone

from django_agent_runtime.exceptions import AgentRuntimeError, EventsTruncated, InvalidRequest, RunNotFound
from django_agent_runtime.go_integration import get_go_runtime_integration
from django_agent_runtime.models import OPEN_STATUSES, AgentEvent, AgentRun, ProjectorCursor
from django_agent_runtime.projection import (
    PROJECTED_FIELDS,
    is_first_of_adopted,
    project_event,
    to_event_row,
    to_run_row,
)
from django_agent_runtime.services.ends import LOCAL_END_SEQUENCE
from django_agent_runtime.services.reconciliation import forget_progress, reconcile_runs, refresh_open_runs
from django_agent_runtime.types import ENDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from django_agent_runtime._streams import Stream
    from django_agent_runtime.types import Run, RunEvent, RunEventBatch

logger = logging.getLogger(__name__)

# So long after a projector was killed, another takes over. It is renewed five times as often, and by each batch.
LEASE_SECONDS = 5.0
# How often what was not acknowledged is sent again.
HOUSEKEEPING_SECONDS = 0.5
# How often the cursor is held against what the runtime says of a run.
AUDIT_SECONDS = 10.0
# How long it waits after a failure, and for a lease that another process has.
PAUSE_SECONDS = 1.0
# With `run_once`: after so long without a batch there are no more for now.
IDLE_SECONDS = 2.0
# The first may take longer: until then nothing tells a stream that has nothing from one that is still to be opened.
FIRST_SECONDS = 5.0
# They would be most of the rows, and nobody reads them once the message is there.
WITHOUT_TYPES = ("assistant.delta",)
# The cursor moves at least as often; while nothing is to be written, no more often.
CURSOR_SECONDS = 1.0
# So long events wait for others that are written with them: a transaction costs as much for one as for many.
BATCH_SECONDS = 0.05
ROWS_OF_STATEMENT = 500
# So many open runs are asked after between two looks at what waits to be sent.
REFRESH_ROWS = 500


class LeaseLostError(Exception):
    """Another process projects this namespace."""


class Projector:
    """Projects one namespace of the runtime. Use one object for one `run`, `run_once` or `start`."""

    def __init__(self, *, namespace: str | None = None) -> None:
        """Nothing is opened yet.

        Args:
            namespace: None: that of the setting `GO_RUNTIME`, whose rows it also sends to the runtime.
        """
        own = get_go_runtime_integration()
        self.namespace = own.settings.namespace if namespace is None else namespace
        self.owner = f"{socket.gethostname()[:100]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._is_own = self.namespace == own.settings.namespace
        self._runtime = own if self._is_own else own.with_settings(namespace=self.namespace)
        self._stopping = threading.Event()
        self._lost = threading.Event()
        # Held by a batch, which renews the lease itself: the renewal beside it would wait for its row, and then write a
        # time that has passed.
        self._writing = threading.Lock()
        self._batches: Stream[RunEventBatch] | None = None
        # What is to be done before the events are followed again: to project all anew, or to go on behind a loss.
        self._anew = threading.Event()
        self._behind_loss = 0
        self._is_behind_loss = False
        self._thread: threading.Thread | None = None
        self._reported = ""
        self._cursor_due = 0.0
        self.events_written = 0
        """How many events of runs that Django knows have been handed to the tables."""

    def start(self) -> None:
        """`run` in a thread of its own, for a process that does other things too."""
        self._thread = threading.Thread(target=self._run_thread, name="agent-runtime-projector", daemon=True)
        self._thread.start()

    def is_running(self) -> bool:
        """Whether the thread of `start` is there."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """End after the batch at hand, and wait for the thread of `start`; safe to call twice."""
        self._stopping.set()
        batches = self._batches
        if batches is not None:
            batches.close()
        if self._thread is not None:
            self._thread.join()

    def run(self) -> None:
        """Project until `stop`; while the runtime or the database is away, wait for it."""
        while not self._stopping.is_set():
            try:
                if self.take_lease():
                    with self._keeping_lease():
                        self._follow()
            except LeaseLostError:
                # What is wrong with the cursor, that one finds as well.
                self._anew.clear()
                logger.warning("another projector took over", extra={"namespace": self.namespace})
            except EventsTruncated as error:
                self._note_loss(error)
            except (AgentRuntimeError, DatabaseError) as error:
                if _is_of_another_journal(error):
                    self._anew.set()
                else:
                    self._report(error)
            except Exception:
                # Whoever started it relies on it.
                logger.exception("projection failed", extra={"namespace": self.namespace})
            # A connection that broke would fail for ever.
            close_old_connections()
            self._stopping.wait(PAUSE_SECONDS)
        # Where the database is gone, the lease lapses by itself.
        with suppress(DatabaseError):
            self._release_lease()

    def run_once(self, *, idle_seconds: float = IDLE_SECONDS) -> int:
        """Send what waits, project what there is, and return.

        Args:
            idle_seconds: After so long without a batch there are no more for now. For the first it waits five seconds
                at least.

        Returns:
            How many events were written.

        Raises:
            LeaseLostError: Another process projects this namespace.
            AgentRuntimeError: The runtime cannot be reached, or lost events.
        """
        if not self.take_lease():
            raise LeaseLostError(f"Another process projects the namespace {self.namespace!r}.")
        try:
            with self._keeping_lease():
                self._runtime.get_server_info()
                if self._is_own:
                    reconcile_runs()
                try:
                    self._follow_until_idle(idle_seconds)
                except InvalidRequest as error:
                    if not _is_of_another_journal(error):
                        raise
                    self._begin_anew()
                    self._follow_until_idle(idle_seconds)
            if self._lost.is_set():
                raise LeaseLostError(f"Another process took over the namespace {self.namespace!r}.")
        finally:
            self._release_lease()
        return self.events_written

    def take_lease(self) -> bool:
        """Become the one that projects this namespace, or stay it. False: another process is."""
        now = timezone.now()
        ProjectorCursor.objects.get_or_create(namespace=self.namespace)
        free = Q(owner="") | Q(owner=self.owner) | Q(lease_expires_at=None) | Q(lease_expires_at__lt=now)
        taken = ProjectorCursor.objects.filter(free, namespace=self.namespace).update(
            owner=self.owner, lease_expires_at=now + timedelta(seconds=LEASE_SECONDS)
        )
        self._lost.clear()
        return bool(taken)

    def apply(self, batch: RunEventBatch) -> None:
        """Write a batch and move the cursor behind it, both or neither.

        A sub-run of a run that has a row gets one too, and so do the runs of schedules. A batch of runs that Django
        knows nothing of (those of other programs) is not worth a transaction: the cursor passes it with a later one.

        Raises:
            LeaseLostError: Another process projects this namespace by now; nothing was written.
            AgentRuntimeError: The runtime could not say what a run was given that is to get a row; nothing was written.
        """
        places = _find_places(batch.run_ids)
        known = set(AgentRun.objects.filter(pk__in=places).values_list("pk", flat=True)) if places else set()
        adopted = self._find_adopted(batch.events, {key: of for key, of in places.items() if key not in known})
        places = {key: of for key, of in places.items() if key in known or key in adopted}
        if not places and time.monotonic() < self._cursor_due:
            return
        try:
            self._write(batch.events, places, adopted, batch.position)
        except (DataError, IntegrityError):
            # One event that the database does not take must not hold up all others.
            for run_id, of_run in places.items():
                for place in of_run:
                    self._write_alone(run_id, batch.events[place], adopted.get(run_id))
            self._write((), {}, {}, batch.position)
        self._cursor_due = time.monotonic() + CURSOR_SECONDS

    def _run_thread(self) -> None:
        try:
            self.run()
        finally:
            connections.close_all()

    def _follow(self) -> None:
        housekeeping = threading.Thread(target=self._keep_house, name="agent-runtime-reconciler", daemon=True)
        finished = self._housekeeping_finished = threading.Event()
        if self._anew.is_set():
            self._begin_anew()
        elif self._behind_loss:
            self._move_cursor(self._behind_loss)
        self._is_behind_loss, self._behind_loss = bool(self._behind_loss), 0
        try:
            with self._open() as batches:
                housekeeping.start()
                for batch in batches:
                    self.apply(batch)
            if self._lost.is_set():
                raise LeaseLostError
        finally:
            finished.set()
            if housekeeping.ident is not None:
                housekeeping.join()

    def _follow_until_idle(self, idle_seconds: float) -> None:
        with self._open() as batches:
            idle = _close_after(max(idle_seconds, FIRST_SECONDS), batches)
            for batch in batches:
                idle.cancel()
                self.apply(batch)
                idle = _close_after(idle_seconds, batches)

    def _open(self) -> Stream[RunEventBatch]:
        cursor = ProjectorCursor.objects.get(namespace=self.namespace)
        self._batches = self._runtime.follow_runs(
            cursor.sequence, without_types=WITHOUT_TYPES, named_only=True, min_interval=BATCH_SECONDS
        )
        if self._stopping.is_set():
            # It was asked for before there was anything to close.
            self._batches.close()
        return self._batches

    def _keep_house(self) -> None:
        """Reconcile, for as long as the batches are followed."""
        finished = self._housekeeping_finished
        audited_at = 0.0
        # Retention may have removed how a run ended while nobody projected. Some are asked after at a time: others wait
        # to be sent meanwhile.
        to_refresh, refreshed = self._is_own, None
        try:
            while not finished.wait(HOUSEKEEPING_SECONDS):
                try:
                    if self._is_own:
                        reconcile_runs()
                    # Behind a loss, rows lack what is lost until they were asked after.
                    may_audit = self._is_own and not (self._is_behind_loss and to_refresh)
                    if may_audit and time.monotonic() - audited_at >= AUDIT_SECONDS:
                        audited_at = time.monotonic()
                        if self._is_ahead():
                            self._anew.set()
                            if self._batches is not None:
                                self._batches.close()
                            return
                    if to_refresh:
                        refreshed = refresh_open_runs(after=refreshed, limit=REFRESH_ROWS)
                        to_refresh = refreshed is not None
                except (AgentRuntimeError, DatabaseError) as error:
                    logger.warning("reconciliation interrupted", extra={"err": str(error)})
                    close_old_connections()
                except Exception:
                    # A fault of one row's must not hold up all others.
                    logger.exception("reconciliation failed")
        finally:
            connections.close_all()

    @contextmanager
    def _keeping_lease(self) -> Iterator[None]:
        """Renew the lease beside what the block does, however long that takes; the batches of who lost it end."""
        over = threading.Event()
        thread = threading.Thread(
            target=self._renew_until, args=(over,), name="agent-runtime-projector-lease", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _renew_until(self, over: threading.Event) -> None:
        try:
            while not over.wait(LEASE_SECONDS / 5):
                try:
                    with self._writing:
                        kept = self._renew_lease()
                except DatabaseError as error:
                    logger.warning("lease not renewed", extra={"namespace": self.namespace, "err": str(error)})
                    close_old_connections()
                    continue
                if not kept:
                    self._lost.set()
                    batches = self._batches
                    if batches is not None:
                        batches.close()
        finally:
            connections.close_all()

    def _renew_lease(self) -> bool:
        expires_at = timezone.now() + timedelta(seconds=LEASE_SECONDS)
        mine = ProjectorCursor.objects.filter(namespace=self.namespace, owner=self.owner)
        return bool(mine.update(lease_expires_at=expires_at))

    def _release_lease(self) -> None:
        ProjectorCursor.objects.filter(namespace=self.namespace, owner=self.owner).update(
            owner="", lease_expires_at=None
        )

    def _find_adopted(
        self, events: Sequence[RunEvent], places: Mapping[uuid.UUID, Sequence[int]]
    ) -> dict[uuid.UUID, Run]:
        """Of the runs without a row: those that may get one, with their input."""
        adopted: dict[uuid.UUID, Run] = {}
        if not self._is_own:
            return adopted
        for run_id, of_run in places.items():
            run = next((events[place].run for place in of_run if is_first_of_adopted(events[place])), None)
            if run is not None:
                # Where it is not kept any more, there is no telling what it was given.
                with suppress(RunNotFound):
                    run = self._runtime.get_run(run.run_id)
                adopted[run_id] = run
        return adopted

    def _write(
        self,
        events: Sequence[RunEvent],
        places: Mapping[uuid.UUID, Sequence[int]],
        adopted: Mapping[uuid.UUID, Run],
        position: int | None,
    ) -> None:
        now = timezone.now()
        with self._writing, transaction.atomic():
            changes: dict[str, Any] = {"lease_expires_at": now + timedelta(seconds=LEASE_SECONDS), "updated_at": now}
            if position is not None:
                changes["sequence"] = position
            # First of all: from here on no other projector can write until this is committed.
            if not ProjectorCursor.objects.filter(namespace=self.namespace, owner=self.owner).update(**changes):
                raise LeaseLostError
            if places:
                self._write_events(events, places, adopted)
            if timezone.now() - now > timedelta(seconds=LEASE_SECONDS / 2):
                # Others who wait for the row judge by what is committed now, and not by when this began.
                self._renew_lease()

    def _write_events(
        self,
        events: Sequence[RunEvent],
        places: Mapping[uuid.UUID, Sequence[int]],
        adopted: Mapping[uuid.UUID, Run],
    ) -> None:
        # All in one order, as whoever deletes them locks them.
        wanted = {*places, *(uuid.UUID(run.parent_run_id) for run in adopted.values() if run.parent_run_id)}
        rows = AgentRun.objects.select_for_update().filter(pk__in=wanted).defer("input").order_by("pk")
        locked = {row.pk: row for row in rows}
        _add_rows(adopted, locked)
        known = {run_id: locked[run_id] for run_id in places if run_id in locked}
        revived = [row.pk for row in known.values() if row.has_ended and not row.last_sequence]
        if revived:
            # They were given up for lost, and the runtime had accepted them: the end that was noted here was none.
            AgentEvent.objects.filter(run__in=revived, seq=LOCAL_END_SEQUENCE, event_type__in=ENDS).delete()
        by_run = {run_id: [events[place] for place in places[run_id]] for run_id in known}
        kept = [event for of_run in by_run.values() for event in of_run]
        AgentEvent.objects.bulk_create(
            [to_event_row(event) for event in kept], batch_size=ROWS_OF_STATEMENT, ignore_conflicts=True
        )
        now = timezone.now()
        changed = []
        for run_id, row in known.items():
            before = row.last_sequence
            for event in by_run[run_id]:
                project_event(row, event, now=now)
            if row.last_sequence != before:
                changed.append(row)
        AgentRun.objects.bulk_update(changed, PROJECTED_FIELDS, batch_size=ROWS_OF_STATEMENT // 5)
        self.events_written += len(kept)

    def _write_alone(self, run_id: uuid.UUID, event: RunEvent, adopted: Run | None) -> None:
        try:
            self._write((event,), {run_id: (0,)}, {run_id: adopted} if adopted else {}, None)
        except (DataError, IntegrityError):
            logger.exception(
                "event left out of the projection", extra={"run_id": event.run_id, "sequence": event.sequence}
            )

    def _note_loss(self, error: EventsTruncated) -> None:
        """Have it go on behind events that are lost. Housekeeping asks after the runs whose end was among them."""
        logger.error(
            "events were lost before they were projected",
            extra={"namespace": self.namespace, "oldest_sequence": error.oldest_sequence, "err": str(error)},
        )
        self._behind_loss = max(0, error.oldest_sequence - 1)

    def _is_ahead(self) -> bool:
        """Whether the cursor has passed records that the tables lack.

        It has where the runtime began with another journal, which came to the cursor's number before it was followed:
        below that, the runtime refuses the cursor. The newest run that has not ended is looked at, of which an older
        copy of the journal knows less than its row.
        """
        # In this order: who has moved the cursor meanwhile has also written the row.
        cursor = ProjectorCursor.objects.get(namespace=self.namespace).sequence
        row = AgentRun.objects.filter(status__in=OPEN_STATUSES, submitted_at__isnull=False).order_by("-created_at")
        newest = row.only("last_sequence").first()
        if newest is None:
            return False
        try:
            live = self._runtime.get_run(str(newest.pk))
        except RunNotFound:
            return False
        return live.sequence < newest.last_sequence or newest.last_sequence < live.sequence <= cursor

    def _begin_anew(self) -> None:
        """Project all that there is, and for runs that go on in the other journal what that has of them instead."""
        logger.error("the journal is not the one of the cursor, projecting all", extra={"namespace": self.namespace})
        if self._is_own:
            forget_progress(hold=self._hold_lease)
        self._move_cursor(0)
        self._anew.clear()

    def _move_cursor(self, sequence: int) -> None:
        mine = ProjectorCursor.objects.filter(namespace=self.namespace, owner=self.owner)
        if not mine.update(sequence=sequence):
            raise LeaseLostError

    def _hold_lease(self) -> None:
        """Keep the lease to the end of the transaction.

        Raises:
            LeaseLostError: Another process has it.
        """
        if not self._renew_lease():
            raise LeaseLostError

    def _report(self, error: Exception) -> None:
        """Say once what goes on being so: that the runtime is away, or the tables are not there yet."""
        if str(error) != self._reported:
            is_behind = isinstance(error, DatabaseError) and not is_migrated()
            message = "migrations are missing, run manage.py migrate" if is_behind else "projection interrupted"
            logger.warning(message, extra={"namespace": self.namespace, "err": str(error)})
        self._reported = str(error)


def is_migrated() -> bool:
    """Whether the tables are as this version has them; also where that cannot be told."""
    connection = connections[router.db_for_write(ProjectorCursor)]
    try:
        executor = MigrationExecutor(connection)
        return not executor.migration_plan(executor.loader.graph.leaf_nodes("django_agent_runtime"))
    except Exception:  # noqa: BLE001 - the database may be away, and a project's migrations broken in any way
        return True


def _is_of_another_journal(error: Exception) -> bool:
    """Whether the runtime refuses the cursor: its journal has not come so far."""
    return isinstance(error, InvalidRequest) and any(field == "after_sequence" for field, _ in error.violations)


@contextmanager
def projecting(*, wanted: bool = True) -> Iterator[None]:
    """Project in a thread beside what the block does; nothing happens where the project has no such tables."""
    if not wanted or not apps.is_installed("django_agent_runtime"):
        yield
        return
    projector = Projector()
    projector.start()
    try:
        yield
    finally:
        projector.stop()


def _close_after(seconds: float, batches: Stream[RunEventBatch]) -> threading.Timer:
    """A timer that ends a stream, unless it is cancelled before."""
    timer = threading.Timer(seconds, batches.close)
    timer.daemon = True
    timer.start()
    return timer


def _find_places(run_ids: Sequence[str]) -> dict[uuid.UUID, list[int]]:
    """At which places of `run_ids` each run stands; in the order in which they come."""
    places: dict[uuid.UUID, list[int]] = {}
    for place, text in enumerate(run_ids):
        run_id = _as_uuid(text)
        if run_id is not None:
            places.setdefault(run_id, []).append(place)
    return places


def _add_rows(adopted: Mapping[uuid.UUID, Run], locked: dict[uuid.UUID, AgentRun]) -> None:
    """Add the rows of runs that have none, where their parents' are not gone; parents come before their sub-runs."""
    added = []
    for run_id, run in adopted.items():
        parent = locked.get(uuid.UUID(run.parent_run_id)) if run.parent_run_id else None
        if run_id not in locked and (parent or not run.parent_run_id):
            locked[run_id] = to_run_row(run, parent)
            added.append(locked[run_id])
    AgentRun.objects.bulk_create(added, batch_size=ROWS_OF_STATEMENT // 5)


def _as_uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None

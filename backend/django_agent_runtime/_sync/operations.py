"""Generated from `_async/operations.py` by `scripts/unasync.py`: edit that file."""

from __future__ import annotations

from .connection import SyncConnection
from .definitions import SyncDefinitions
from .events import SyncEvents
from .files import SyncFiles
from .graphs import SyncGraphs
from .run_events import SyncRunEvents
from .schedules import SyncSchedules
from .state import SyncState
from .tasks import SyncTasks
from .threads import SyncThreads

__all__ = ["SyncOperations"]


class SyncOperations(
    SyncConnection,
    SyncTasks,
    SyncGraphs,
    SyncRunEvents,
    SyncSchedules,
    SyncDefinitions,
    SyncThreads,
    SyncState,
    SyncEvents,
    SyncFiles,
):
    """The methods of `GoRuntimeIntegration` for threads."""

"""Every method of the client for asyncio, written once: their sync twins in `_sync` are generated from this package.

A method that calls the runtime is named with a leading `a`; `scripts/unasync.py` drops that letter and the awaits.
"""

from __future__ import annotations

from .connection import AsyncConnection
from .definitions import AsyncDefinitions
from .events import AsyncEvents
from .files import AsyncFiles
from .graphs import AsyncGraphs
from .run_events import AsyncRunEvents
from .schedules import AsyncSchedules
from .state import AsyncState
from .tasks import AsyncTasks
from .threads import AsyncThreads

__all__ = ["AsyncOperations"]


class AsyncOperations(
    AsyncConnection,
    AsyncTasks,
    AsyncGraphs,
    AsyncRunEvents,
    AsyncSchedules,
    AsyncDefinitions,
    AsyncThreads,
    AsyncState,
    AsyncEvents,
    AsyncFiles,
):
    """The methods of `GoRuntimeIntegration` for asyncio."""

"""Every write of runs and conversations, and every call to the runtime that goes with one.

A service writes its row, and once that is committed calls the runtime with the row's id. What the runtime did not
acknowledge, `reconcile_runs` sends again; the runtime joins what it has, so that a call may be repeated at will. The
state of a run is the runtime's: rows learn of it by the projector, except for runs that never got there.
"""

from django_agent_runtime.services.cancellation import cancel_run
from django_agent_runtime.services.conversations import create_conversation, update_conversation
from django_agent_runtime.services.deletion import delete_conversation, delete_run
from django_agent_runtime.services.reconciliation import reconcile_runs, refresh_open_runs, refresh_run
from django_agent_runtime.services.runs import CreatedRun, create_run, resume_run, retry_run
from django_agent_runtime.services.strategies import MultitaskStrategy
from django_agent_runtime.services.submission import RunOptions, submit_run
from django_agent_runtime.types import TASK_TYPE

__all__ = [
    "TASK_TYPE",
    "CreatedRun",
    "MultitaskStrategy",
    "RunOptions",
    "cancel_run",
    "create_conversation",
    "create_run",
    "delete_conversation",
    "delete_run",
    "reconcile_runs",
    "refresh_open_runs",
    "refresh_run",
    "resume_run",
    "retry_run",
    "submit_run",
    "update_conversation",
]

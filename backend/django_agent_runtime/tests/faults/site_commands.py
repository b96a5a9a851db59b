"""What a process of the site does in a test, and dies of: `python -m …site_commands NAME ARGUMENT…`."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import django
from django.core.management import call_command

if TYPE_CHECKING:
    from django_agent_runtime.principals import Principal

DEATH_CODE = 9


def get_actor() -> Principal:
    from django.contrib.auth.models import User  # noqa: PLC0415 - models need the settings

    from django_agent_runtime.principals import Principal  # noqa: PLC0415

    return Principal.of_user(User.objects.get_or_create(username="ada")[0])


def create_runs(least: str) -> None:
    """Create so many runs, and more until the test has had enough."""
    from django_agent_runtime.services import create_run  # noqa: PLC0415
    from django_agent_runtime.tests.faults.site_agents import get_folder  # noqa: PLC0415

    count, actor, enough = 0, get_actor(), get_folder() / "enough"
    while count < int(least) or not enough.exists():
        create_run(actor=actor, agent_key="mixed", messages=[], params={"rounds": 1, "events": 3})
        count += 1


def die_creating(stage: str) -> None:
    """Create a run, and be gone before the row is committed, before the runtime is called, or before it is noted."""
    from django.db import transaction  # noqa: PLC0415

    from django_agent_runtime.live import get_hurried_runtime  # noqa: PLC0415
    from django_agent_runtime.services import runs, submission  # noqa: PLC0415

    runtime = get_hurried_runtime()

    def die(*_: Any, **__: Any) -> None:
        os._exit(DEATH_CODE)

    class Runtime:
        def create_run(self, *arguments: Any, **options: Any) -> None:
            runtime.create_run(*arguments, **options)
            die()

    actor = get_actor()
    if stage == "commit":
        # It is called within the transaction, behind the insertion.
        patched: Any = patch.object(transaction, "on_commit", die)
    elif stage == "call":
        patched = patch.object(runs, "submit_run", die)
    else:
        patched = patch.object(submission, "get_hurried_runtime", Runtime)
    patched.start()
    runs.create_run(actor=actor, agent_key="mixed", messages=[], params={"rounds": 1})


def project(death: str) -> None:
    """Project runs; with a number, die in the midst of that batch, with its rows written and not committed."""
    from django_agent_runtime import projector  # noqa: PLC0415

    # Of its own: the next one need not wait for long.
    projector.LEASE_SECONDS = 1.0
    write, left = projector.Projector._write_events, int(death)

    def write_and_die(self: projector.Projector, *batch: Any) -> None:
        nonlocal left
        write(self, *batch)
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    if left:
        patch.object(projector.Projector, "_write_events", write_and_die).start()
    call_command("projectruns")


if __name__ == "__main__":
    django.setup()
    {"create_runs": create_runs, "die_creating": die_creating, "project": project}[sys.argv[1]](*sys.argv[2:])

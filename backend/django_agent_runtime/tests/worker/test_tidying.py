"""Database connections of runs that share a process."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group
from django.db import connection, connections

from django_agent_runtime.runtime.worker import tidying
from django_agent_runtime.runtime.worker.tidying import DatabaseTidying

pytestmark = pytest.mark.django_db(transaction=True)


def get_raw_connection() -> Any:
    connection.ensure_connection()
    return connection.connection


async def test_run_that_begins_closes_no_connection_another_reads_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tidying, "_INTERVAL_SECONDS", 0.0)
    await Group.objects.abulk_create([Group(name=str(number)) for number in range(500)])
    host = DatabaseTidying()
    host._needed = True
    host.run_begins()
    read = 0
    async for _ in Group.objects.order_by("pk").aiterator(chunk_size=100):
        read += 1
        if read % 100 == 0:
            host.run_begins()
            host.run_ended()
    assert read == 500


async def test_connections_are_closed_between_runs_and_broken_ones_at_any_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tidying, "_INTERVAL_SECONDS", 0.0)
    host = DatabaseTidying()
    host._needed = True
    look = sync_to_async(get_raw_connection)
    first = await look()
    host.run_begins()
    second = await look()
    assert second is not first, "nobody was using it"
    host.run_begins()
    assert await look() is second

    def break_connection() -> None:
        wrapper = connections["default"]
        wrapper.errors_occurred = True
        monkeypatch.setattr(wrapper, "is_usable", lambda: False)

    await sync_to_async(break_connection)()
    host.run_ended()
    assert await look() is not second

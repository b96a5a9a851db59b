"""The runtime dies and comes back: nothing is lost, nothing is repeated, and nobody has to do anything."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.tests.faults.processes import wait_until
from django_agent_runtime.types import ConnectionState, Event, NewEvent

if TYPE_CHECKING:
    from django_agent_runtime.testing.process import GoRuntimeProcess

pytestmark = pytest.mark.faults

SECONDS = 60.0
EVENTS = 10_000
BATCH = 50
KILLS = 3


def restart(runtime: GoRuntimeProcess) -> None:
    runtime.kill()
    runtime.start()


def test_calls_go_on_over_a_restart(mortal_runtime: GoRuntimeProcess) -> None:
    with GoRuntimeIntegration(**mortal_runtime.settings) as client:
        client.set_state("k", 1)
        mortal_runtime.kill()
        starting = threading.Thread(target=mortal_runtime.start)
        starting.start()
        assert client.get_state("k") == 1
        starting.join()
        assert client.connection_state is ConnectionState.CONNECTED


def test_a_task_over_a_restart_runs_once_as_far_as_the_journal_is_concerned(mortal_runtime: GoRuntimeProcess) -> None:
    with GoRuntimeIntegration(**mortal_runtime.settings) as client:
        outputs: list[dict[str, object]] = []
        calling = threading.Thread(
            target=lambda: outputs.append(client.execute_task("sleep", {"seconds": 1}, timeout=SECONDS))
        )
        calling.start()
        while not list(client.list_runs()):
            time.sleep(0)
        restart(mortal_runtime)
        calling.join()
        (run,) = client.list_runs()
        assert len(outputs) == 1
        assert run.state == "succeeded"


def test_a_subscription_over_restarts_loses_and_repeats_nothing(mortal_runtime: GoRuntimeProcess) -> None:
    seen: list[int] = []
    complete = threading.Event()

    def see(event: Event) -> None:
        seen.append(event.data)
        if event.data == EVENTS - 1:
            complete.set()

    with GoRuntimeIntegration(**mortal_runtime.settings | {"timeout": SECONDS}) as client:
        client.subscribe_to_events("t", see)

        def has_come_back(times: int) -> bool:
            return client.stats["reconnects"] >= times

        kills = 0
        kill_at = {EVENTS * turn // (KILLS + 1) // BATCH * BATCH for turn in range(1, KILLS + 1)}
        for start in range(0, EVENTS, BATCH):
            client.publish_events([NewEvent("t", number) for number in range(start, start + BATCH)])
            if start in kill_at:
                # One that is lost again before it gave anything would not count.
                wait_until(partial(has_come_back, kills), "the subscription")
                restart(mortal_runtime)
                kills += 1
        assert complete.wait(SECONDS)
        assert seen == list(range(EVENTS))
        assert client.stats["reconnects"] >= KILLS


def test_streams_and_watches_go_on_over_a_restart(mortal_runtime: GoRuntimeProcess) -> None:
    with (
        GoRuntimeIntegration(**mortal_runtime.settings) as client,
        client.stream_events("t") as events,
        client.watch_state("k") as changes,
    ):
        client.publish_event("t", 1)
        client.set_state("k", 1)
        assert next(events).data == 1
        assert next(changes).value == 1
        restart(mortal_runtime)
        client.publish_event("t", 2)
        client.set_state("k", 2)
        assert next(events).data == 2
        assert next(changes).value == 2


def test_a_watch_that_began_with_what_is_there_goes_on_over_a_restart(mortal_runtime: GoRuntimeProcess) -> None:
    with GoRuntimeIntegration(**mortal_runtime.settings) as client:
        client.set_state("k", 1)
        with client.watch_state("k", include_current=True) as changes:
            assert next(changes).value == 1
            restart(mortal_runtime)
            client.set_state("k", 2)
            assert next(changes).value == 2


def test_a_client_may_come_before_the_runtime(mortal_runtime: GoRuntimeProcess) -> None:
    mortal_runtime.kill()
    client = GoRuntimeIntegration(**mortal_runtime.settings)
    seen = threading.Event()
    subscribing = threading.Thread(target=client.subscribe_to_events, args=("t", lambda _event: seen.set()))
    subscribing.start()
    mortal_runtime.start()
    subscribing.join()
    client.publish_event("t", 1)
    assert seen.wait(SECONDS)
    client.disconnect()


def test_the_state_of_the_connection_is_shown(mortal_runtime: GoRuntimeProcess) -> None:
    with GoRuntimeIntegration(**mortal_runtime.settings | {"timeout": 0.3}) as client:
        mortal_runtime.kill()
        with pytest.raises(ConnectionError):
            client.get_state("k")
        states = [client.connection_state]
        mortal_runtime.start()
        assert client.wait_ready(SECONDS)
        states.append(client.connection_state)
        assert states == [ConnectionState.RECONNECTING, ConnectionState.CONNECTED]

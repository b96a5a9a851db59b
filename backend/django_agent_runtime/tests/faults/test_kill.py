"""`kill -9` of the runtime under load: what was acknowledged is there, and clients go on by themselves."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.testing import GoRuntimeProcess, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_agent_runtime.tests.faults.conftest import Load

pytestmark = pytest.mark.faults

LOCAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
# How many acknowledged calls there are between two kills.
CALLS_A_ROUND = 600


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[GoRuntimeProcess]:
    with GoRuntimeProcess(tmp_path) as process:
        yield process


@pytest.mark.parametrize("rounds", [3, pytest.param(100, marks=pytest.mark.soak)])
def test_nothing_acknowledged_is_lost(runtime: GoRuntimeProcess, start_load: type[Load], rounds: int) -> None:
    with GoRuntimeIntegration(host=runtime.host, port=runtime.port, timeout=60) as client:
        outputs: dict[int, object] = {}
        published: dict[int, int] = {}

        def set_state(number: int) -> None:
            client.set_state(f"kill/{number}", {"number": number})

        def publish(number: int) -> None:
            (event,) = client.publish_events([{"event_type": "kill.event", "data": number}])
            published[number] = event.sequence

        def execute(number: int) -> None:
            outputs[number] = client.execute_task("echo", {"number": number}, idempotency_key=f"kill-{number}")

        with start_load([set_state, publish, execute]) as load:
            for _ in range(rounds):
                load.wait_for(CALLS_A_ROUND)
                runtime.kill()
                runtime.start()
            load.wait_for(CALLS_A_ROUND)
        # Once more, with nothing under way: this time only the disk can answer.
        runtime.kill()
        runtime.start()
        assert load.errors == []
        states, events, runs = load.acknowledged

        kept = {entry.key: entry.value for entry in client.list_state("kill/")}
        assert {f"kill/{number}": {"number": number} for number in states}.items() <= kept.items()

        seen: dict[int, int] = {}
        last = max(published.values())
        for event in client.stream_events("kill.event", from_beginning=True):
            assert event.data not in seen, "an event came twice"
            seen[event.data] = event.sequence
            if event.sequence >= last:
                break
        assert {number: seen[number] for number in events} == {number: published[number] for number in events}

        assert {number: outputs[number] for number in runs} == {number: {"number": number} for number in runs}
        kept_runs = list(client.list_runs(task_type="echo", page_size=500))
        assert Counter(run.state for run in kept_runs) == {"succeeded": len(kept_runs)}
        inputs = [client.get_run(run.run_id).input or {} for run in kept_runs]
        numbers = Counter(task["number"] for task in inputs)
        assert set(runs) <= set(numbers)
        assert numbers.most_common(1)[0][1] == 1, "a call made two runs"


@pytest.mark.skipif(not LOCAL_PORTS.exists(), reason="reads of which ports Linux gives outgoing connections one")
def test_port_that_a_killed_runtime_comes_back_to_is_none_of_an_outgoing_connection() -> None:
    first, last = map(int, LOCAL_PORTS.read_text().split())
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert [port for port in ports if first <= port <= last] == []


def test_run_in_flight_is_begun_again_and_its_caller_gets_the_output(runtime: GoRuntimeProcess) -> None:
    with GoRuntimeIntegration(host=runtime.host, port=runtime.port, timeout=60) as client, ThreadPoolExecutor() as pool:
        # Long enough to be under way still when the kill comes.
        answer = pool.submit(client.execute_task, "sleep", {"seconds": 5}, idempotency_key="in-flight")
        run = client.submit_task("sleep", {"seconds": 5}, idempotency_key="in-flight")
        while run.state == "queued":
            run = client.get_run(run.run_id)
        runtime.kill()
        runtime.start()
        answer.result()
        run = client.get_run(run.run_id)
        assert (run.state, run.attempt) == ("succeeded", 2)
        assert len(list(client.list_runs())) == 1

"""`manage.py runagent` as processes that are killed, frozen, poisoned, reloaded and stopped."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.faults

PATIENCE_SECONDS = 40.0


@pytest.fixture
def site(runtime: Any, make_site: Callable[..., Any]) -> Any:
    """A project whose runtime is the fake."""
    return make_site(runtime.port)


def pids_of(runtime: Any) -> list[int]:
    """The workers that have introduced themselves, by their process ids."""
    names = [worker.name for worker in runtime.workers.values()]
    return [int(name.rpartition(":")[2]) for name in names]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_exit(site: Any, process: subprocess.Popen[bytes]) -> int:
    site.poll(lambda: process.poll() is not None, "exit")
    return process.returncode


def test_says_what_it_serves(runtime: Any, site: Any) -> None:
    process = site.start("--concurrency", "3", "--agent-keys", "wait, quick", "--worker-name", "name")
    runtime.wait_until(lambda: runtime.hellos, timeout=PATIENCE_SECONDS)
    hello = runtime.hellos[0]
    assert (hello.name, hello.concurrency, [agent.agent_id for agent in hello.agents]) == ("name", 3, ["wait", "quick"])
    process.send_signal(signal.SIGINT)
    assert wait_for_exit(site, process) == 0
    log = site.log.read_text()
    assert "wait, quick" in log
    assert "1 process of 3 runs at a time" in log
    assert f"127.0.0.1:{runtime.port}, namespace default" in log


@pytest.mark.parametrize(("how", "exit_code"), [("exits", 3), ("fails", 1), ("returns", 0)])
def test_fork_that_comes_back_from_an_agent_ends(runtime: Any, site: Any, how: str, exit_code: int) -> None:
    site.start("--concurrency", "3")
    run = runtime.wait_for(runtime.submit("fork", params={"how": how}), timeout=PATIENCE_SECONDS)
    assert run.output["final_output"] == {"exit_code": exit_code}
    others = [runtime.submit("quick") for _ in range(20)]
    assert [runtime.wait_for(other, timeout=PATIENCE_SECONDS).state for other in others] == ["succeeded"] * 20


def test_killed_process_is_replaced_and_steps_are_not_repeated(runtime: Any, site: Any) -> None:
    supervisor = site.start("--processes", "2", "--grace", "5", SITE_LEASE="2")
    runtime.wait_until(lambda: len(runtime.workers) == 2, timeout=PATIENCE_SECONDS)
    run = runtime.submit("steps")
    runtime.wait_for_event(run, "charged", PATIENCE_SECONDS)
    victim = run.events[0].payload["pid"]
    os.kill(victim, signal.SIGKILL)
    runtime.wait_until(lambda: len(runtime.workers) == 3, timeout=PATIENCE_SECONDS)
    site.touch("go-on")
    assert runtime.wait_for(run, timeout=PATIENCE_SECONDS).state == "succeeded"
    # Another lease may have lapsed on a machine that is busy.
    assert run.attempt >= 2
    assert run.output["final_output"]["first"] == victim
    assert run.output["final_output"]["pid"] != victim
    assert (site.folder / "charges").read_text() == "charge\n"
    supervisor.send_signal(signal.SIGTERM)
    assert wait_for_exit(site, supervisor) == 0
    assert not any(is_alive(pid) for pid in pids_of(runtime))


def test_poison_run_fails_without_harming_others(runtime: Any, site: Any) -> None:
    supervisor = site.start("--processes", "2", SITE_LEASE="1")
    runtime.wait_until(lambda: len(runtime.workers) == 2, timeout=PATIENCE_SECONDS)
    poison = runtime.submit("poison")
    # Those that are in the process that dies lose that attempt.
    others = [runtime.submit("quick", max_attempts=10) for _ in range(20)]
    runtime.wait_for(poison, timeout=PATIENCE_SECONDS)
    assert (poison.state, poison.reason, poison.attempt) == ("failed", "ATTEMPTS_EXHAUSTED", 3)
    others += [runtime.submit("quick") for _ in range(20)]
    for run in others:
        assert runtime.wait_for(run, timeout=PATIENCE_SECONDS).state == "succeeded"
    assert supervisor.poll() is None
    # Each attempt takes one along, but for one whose lease lapses before its code begins; two go on.
    runtime.wait_until(lambda: len(runtime.workers) >= 4, timeout=PATIENCE_SECONDS)


def test_frozen_worker_wakes_after_its_lease(runtime: Any, site: Any) -> None:
    frozen = site.start("--noreload", SITE_LEASE="1")
    run = runtime.submit("wait")
    runtime.wait_for_event(run, "begun", PATIENCE_SECONDS)
    frozen.send_signal(signal.SIGSTOP)
    other = site.start("--noreload")
    runtime.wait_until(lambda: run.events[-1].payload["pid"] == other.pid, timeout=PATIENCE_SECONDS)
    frozen.send_signal(signal.SIGCONT)
    site.wait_for_file(f"cancelled-{frozen.pid}")
    site.touch("go-on")
    assert runtime.wait_for(run, timeout=PATIENCE_SECONDS).output["final_output"] == {"pid": other.pid}
    # It goes on as a worker.
    runtime.wait_until(lambda: [hello.name for hello in runtime.hellos].count(runtime.hellos[0].name) >= 2)
    other.send_signal(signal.SIGTERM)
    assert wait_for_exit(site, other) == 0
    late = runtime.wait_for(runtime.submit("quick"), timeout=PATIENCE_SECONDS)
    assert late.output["final_output"]["pid"] == frozen.pid


every_way = pytest.mark.parametrize(
    ("options", "variables"),
    [(["--noreload"], {}), (["--processes", "2"], {}), ([], {"SITE_DEBUG": "1"})],
    ids=["alone", "supervised", "reloaded"],
)


@every_way
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_gives_back(
    runtime: Any, site: Any, options: list[str], variables: dict[str, str], number: signal.Signals
) -> None:
    worker = site.start(*options, "--grace", "0", **variables)
    run = runtime.submit("wait")
    runtime.wait_for_event(run, "begun", PATIENCE_SECONDS)
    worker.send_signal(number)
    assert wait_for_exit(site, worker) == 0
    assert (run.state, run.attempt, run.history[-1]) == ("queued", 0, "given back"), run.history


@every_way
def test_stop_lets_finish_and_a_second_signal_hurries(
    runtime: Any, site: Any, options: list[str], variables: dict[str, str]
) -> None:
    worker = site.start(*options, "--grace", "3600", **variables)
    runs = [runtime.submit("wait"), runtime.submit("deaf")]
    for run in runs:
        runtime.wait_for_event(run, "begun", PATIENCE_SECONDS)
    worker.send_signal(signal.SIGINT)
    runtime.wait_until(lambda: all(known.draining for known in runtime.workers.values()), timeout=PATIENCE_SECONDS)
    site.touch("go-on")
    assert runtime.wait_for(runs[0], timeout=PATIENCE_SECONDS).state == "succeeded"
    assert worker.poll() is None
    worker.send_signal(signal.SIGINT)
    # The other one's code sleeps in a thread that nothing can stop: the process ends all the same.
    assert wait_for_exit(site, worker) == 0
    assert (runs[1].state, runs[1].history[-1]) == ("queued", "given back")


def test_workers_do_not_outlive_their_supervisor(runtime: Any, site: Any) -> None:
    supervisor = site.start("--processes", "2", "--grace", "0")
    runtime.wait_until(lambda: len(runtime.workers) == 2, timeout=PATIENCE_SECONDS)
    pids = pids_of(runtime)
    supervisor.kill()
    site.poll(lambda: not any(is_alive(pid) for pid in pids), "end of the workers")


def test_database_connections_are_closed_behind_runs(runtime: Any, site: Any) -> None:
    """With CONN_MAX_AGE as it is by default, each run opens a connection of its own, and one only."""
    site.start("--noreload", "--no-projector")
    for number, agent in enumerate(["orm", "orm", "plain-orm", "plain-orm", "orm"], 1):
        run = runtime.wait_for(runtime.submit(agent), timeout=PATIENCE_SECONDS)
        assert run.output["final_output"] == {"opened": [number] * 3}


def test_code_is_reloaded(runtime: Any, site: Any) -> None:
    site.start(SITE_DEBUG="1")
    first = runtime.submit("quick")
    assert runtime.wait_for(first, timeout=PATIENCE_SECONDS).output["final_output"]["version"] == "1"
    waiting = runtime.submit("wait")
    runtime.wait_for_event(waiting, "begun", PATIENCE_SECONDS)
    agents = (site.folder / "site_agents.py").read_text()
    change(site, "VERSION = (", lambda: "Waiting for the code to change" in site.log.read_text())
    assert waiting.history == ["started 1", "given back"]
    second = runtime.submit("quick")
    change(site, agents.replace('VERSION = "1"', 'VERSION = "2"'), lambda: second.state == "succeeded")
    assert runtime.wait_for(second, timeout=PATIENCE_SECONDS).output["final_output"]["version"] == "2"
    site.touch("go-on")
    assert runtime.wait_for(waiting, timeout=PATIENCE_SECONDS).state == "succeeded"
    # Ctrl-C in a terminal reaches both processes. The newest one may be about to be reloaded once more.
    tries = itertools.count()

    def interrupt() -> bool:
        if next(tries) % 200 == 0:
            with suppress(ProcessLookupError):
                os.kill(pids_of(runtime)[-1], signal.SIGINT)
        return site.processes[0].poll() is not None

    site.poll(interrupt, "exit")
    assert site.processes[0].returncode == 0


def change(site: Any, text: str, seen: Callable[[], bool]) -> None:
    """Write the agents anew, as an editor does, and again until it is `seen`: a watcher that has just been started
    takes the file as it finds it for the one that was loaded."""
    path = site.folder / "site_agents.py"
    path.write_text(text)
    tries = itertools.count()

    def look() -> bool:
        if next(tries) % 200 == 0:
            before = path.stat().st_mtime
            os.utime(path, (before + 5, before + 5))
        return seen()

    site.poll(look, "reload")

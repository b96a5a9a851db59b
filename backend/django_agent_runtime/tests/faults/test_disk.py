"""A disk that is full, fails or was damaged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

from django_agent_runtime.exceptions import AgentRuntimeError, CallTimedOut, RuntimeUnavailable, StorageFull
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.testing import GoRuntimeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.faults


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 160 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def connect(runtime: GoRuntimeProcess, timeout: float = 30) -> GoRuntimeIntegration:
    return GoRuntimeIntegration(host=runtime.host, port=runtime.port, timeout=timeout)


def read_ready(runtime: GoRuntimeProcess) -> dict[str, list[str]]:
    with urllib.request.urlopen(f"http://{runtime.host}:{runtime.http_port}/readyz") as response:
        ready: dict[str, list[str]] = json.load(response)
        return ready


def set_until_refused(
    client: GoRuntimeIntegration,
    prefix: str,
    value: object,
    refusals: type[AgentRuntimeError] | tuple[type[AgentRuntimeError], ...],
) -> tuple[int, AgentRuntimeError]:
    """Set `prefix` with 0, 1, 2… until a call is refused: how many were set, and the refusal."""
    for number in range(1000):
        try:
            client.set_state(f"{prefix}{number}", value)
        except refusals as refusal:
            return number, refusal
    pytest.fail("a thousand values were set")


def test_full_disk_refuses_writes_and_serves_reads(small_disk: Path) -> None:
    value = "x" * 500_000
    with GoRuntimeProcess(small_disk) as runtime, connect(runtime) as client:
        kept, refusal = set_until_refused(client, "disk/", value, StorageFull)
        assert refusal.reason == "STORAGE_FULL"
        assert kept > 0
        for number in range(kept):
            assert client.get_state(f"disk/{number}") == value
        with pytest.raises(StorageFull):
            client.publish_event("disk.full", value)
        with pytest.raises(StorageFull):
            client.execute_task("echo", {"value": value})

        runtime.kill()
        runtime.start()
        assert sorted(entry.key for entry in client.list_state("disk/", keys_only=True)) == sorted(
            f"disk/{number}" for number in range(kept)
        )


def test_disk_filled_by_somebody_else(small_disk: Path) -> None:
    with GoRuntimeProcess(small_disk) as runtime, connect(runtime) as client:
        client.set_state("before", 1)
        # Less is left than the runtime keeps free, and more than it writes before it looks again.
        rest = shutil.disk_usage(small_disk).free - (32 << 20)
        filler = small_disk / "filler"
        subprocess.run(["fallocate", "--length", str(rest), filler], check=True)
        set_until_refused(client, "after/", "x" * 100_000, StorageFull)
        assert client.get_state("before") == 1
        filler.unlink()
        deadline = time.monotonic() + 30
        while True:
            try:
                client.set_state("again", 2)
                break
            except StorageFull:
                assert time.monotonic() < deadline, "writes are refused although there is room"
        assert client.get_state("again") == 2


def test_damage_is_named_and_sequences_are_not_reused(tmp_path: Path) -> None:
    with GoRuntimeProcess(tmp_path) as runtime, connect(runtime) as client:
        last = 0
        for start in range(0, 5000, 1000):
            events = [{"event_type": "damage", "data": start + number} for number in range(1000)]
            last = client.publish_events(events)[-1].sequence
        client.set_state("other", "stays")
        runtime.kill()
        (stream,) = [folder for folder in runtime.data_dir.rglob("EVENTS") if folder.is_dir()]
        block = max(stream.rglob("*.blk"), key=lambda path: int(path.stem))
        content = bytearray(block.read_bytes())
        content[len(content) // 2] ^= 0x10
        block.write_bytes(content)

        runtime.start()
        (warning,) = read_ready(runtime)["warnings"]
        assert "EVENTS" in warning
        assert client.get_server_info().warnings == (warning,)
        with urllib.request.urlopen(f"http://{runtime.host}:{runtime.http_port}/metrics") as response:
            metrics = response.read().decode().splitlines()
        lost = [line for line in metrics if line.startswith("agent_runtime_journal_lost_records ")]
        assert lost
        assert float(lost[0].rsplit(" ", 1)[1]) > 0
        assert "EVENTS" in runtime.log_path.read_text()

        (after,) = client.publish_events([{"event_type": "damage", "data": "after"}])
        assert after.sequence > last
        seen = [0]
        for event in client.stream_events("damage", from_beginning=True):
            assert event.sequence > seen[-1]
            seen.append(event.sequence)
            if event.sequence == after.sequence:
                break
        assert 2000 < len(seen) <= 5001
        assert client.get_state("other") == "stays"


@pytest.fixture
def traced(tmp_path: Path) -> TracedRuntime:
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    return TracedRuntime(tmp_path)


class TracedRuntime:
    """A runtime under strace. `-D` leaves the process id to the runtime, so that signals reach it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trace = folder / "trace"

    def process(self, *options: str) -> GoRuntimeProcess:
        plain = GoRuntimeProcess(self.folder)
        wrapper = self.folder / "traced"
        calls = "syncfs,fdatasync,fsync,write,pwrite64,writev"
        command = f"exec strace -D -f -ttt -T -y -s 300 -e trace={calls} -o {self.trace} {' '.join(options)}"
        wrapper.write_text(f'#!/bin/sh\n{command} "{plain.binary}" "$@"\n')
        wrapper.chmod(0o755)
        return GoRuntimeProcess(self.folder, binary=wrapper)


def test_sync_comes_between_write_and_acknowledgement(traced: TracedRuntime) -> None:
    acknowledged: dict[str, float] = {}
    with traced.process() as runtime, connect(runtime) as client:
        for number in range(20):
            key = f"marker-{number:04d}"
            client.set_state("trace", key)
            acknowledged[key] = time.time()
    begun: dict[str, float] = {}
    written: dict[str, float] = {}
    syncs: list[tuple[float, float]] = []
    for line in traced.trace.read_text(errors="replace").splitlines():
        thread, stamp, call = line.split(maxsplit=2)
        at = float(stamp)
        if "unfinished ..." in call:
            begun[thread] = at
            if ".blk>" in call:
                written.update({key: at for key in acknowledged if key in call})
            continue
        start = begun.pop(thread, at) if call.startswith("<...") else at
        took = float(call.rsplit("<", 1)[1].rstrip(">")) if call.endswith(">") and "=" in call else 0.0
        if "sync" in call.split("(")[0]:
            syncs.append((start, start + took))
        elif ".blk>" in call:
            written.update({key: start + took for key in acknowledged if key in call})
    assert written.keys() == acknowledged.keys(), "no write of the value to a block was seen"
    for key, at in acknowledged.items():
        assert any(written[key] <= start and end <= at for start, end in syncs), f"{key} was acknowledged before a sync"


def test_failed_sync_acknowledges_nothing_and_ends_the_process(traced: TracedRuntime) -> None:
    runtime = traced.process("-e inject=syncfs,fdatasync,fsync:error=EIO:when=40+")
    with runtime, connect(runtime, timeout=5) as client:
        kept, _ = set_until_refused(client, "sync/", "value", (RuntimeUnavailable, CallTimedOut))
        assert runtime._process
        assert runtime._process.wait(30) != 0
    with GoRuntimeProcess(traced.folder) as healthy, connect(healthy) as client:
        assert {f"sync/{number}" for number in range(kept)} <= {entry.key for entry in client.list_state("sync/")}

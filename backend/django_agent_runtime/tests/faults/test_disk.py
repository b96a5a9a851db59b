"""A disk that is full, fails or was damaged."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from django_agent_runtime.exceptions import (
    AgentRuntimeError,
    CallTimedOut,
    EventsTruncated,
    RuntimeUnavailable,
    StorageFull,
)
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.testing import GoRuntimeProcess
from django_agent_runtime.types import Event, EventGap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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


def read_ready(runtime: GoRuntimeProcess, status: int = 200) -> dict[str, Any]:
    """What `/readyz` says; it must answer with this status."""
    try:
        response = urllib.request.urlopen(f"http://{runtime.host}:{runtime.http_port}/readyz")
    except urllib.error.HTTPError as refusal:
        response = refusal
    with response:
        ready: dict[str, Any] = json.load(response)
        assert response.status == status, ready
        return ready


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what only other processes can bring about."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"


def has_room(runtime: GoRuntimeProcess) -> bool:
    with suppress(AssertionError):
        return bool(read_ready(runtime)["ready"])
    return False


def check_full(runtime: GoRuntimeProcess, client: GoRuntimeIntegration) -> None:
    """Nothing new is accepted, and the refusals say so and when to try again."""
    value = "x" * 500_000
    for refused in (
        lambda: client.set_state("full", value),
        lambda: client.publish_event("full", value),
        lambda: client.execute_task("echo", {"value": value}),
    ):
        with pytest.raises(StorageFull) as refusal:
            refused()
        assert refusal.value.retry_after
    ready = read_ready(runtime, 503)
    assert (ready["ready"], ready["serving"]) == (False, True)
    (reason,) = ready["reasons"]
    assert "no space left" in reason
    assert client.get_server_info().warnings == (reason,)


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


def test_a_store_at_its_limit_finishes_runs_and_takes_deletions(tmp_path: Path) -> None:
    value = "x" * 500_000
    runtime = GoRuntimeProcess(tmp_path, arguments=("--max-store-bytes", str(16 << 20)))
    with runtime, connect(runtime) as client:
        finishing = client.submit_task("sleep", {"seconds": 1})
        endless = client.submit_task("sleep", {"seconds": 600})
        for prefix in ("first/", "second/", "third/"):
            kept, _ = set_until_refused(client, prefix, value, StorageFull)
            assert kept > 20
            check_full(runtime, client)
            if prefix == "first/":
                assert client.wait_run(finishing.run_id).state == "succeeded"
                assert client.cancel_run(endless.run_id).state == "cancelled"
            elif prefix == "second/":
                runtime.kill()
                runtime.start()
                check_full(runtime, client)
            assert all(client.delete_state(f"{prefix}{number}") for number in range(kept))
            wait_until(lambda: has_room(runtime))
        assert client.get_server_info().warnings == ()
        assert client.execute_task("echo", {"again": True}) == {"again": True}


def test_start_on_a_disk_without_a_byte_left(small_disk: Path) -> None:
    with GoRuntimeProcess(small_disk) as runtime, connect(runtime) as client:
        client.set_state("before", "kept")
        run = client.submit_task("sleep", {"seconds": 600})
        while run.state == "queued":
            run = client.get_run(run.run_id)
        runtime.kill()
        filler = small_disk / "filler"
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(bytes(160 << 20))

        runtime.start()
        check_full(runtime, client)
        assert client.get_state("before") == "kept"
        assert client.get_run(run.run_id).attempt == 2
        assert client.cancel_run(run.run_id).state == "cancelled"
        assert client.delete_state("before")
        runtime.kill()
        runtime.start()
        assert client.get_state("before") is None
        check_full(runtime, client)

        filler.unlink()
        wait_until(lambda: has_room(runtime))
        client.set_state("after", "kept")
        wait_until((runtime.data_dir / "reserve").exists)


def test_full_disk_refuses_writes_and_serves_reads(small_disk: Path) -> None:
    value = "x" * 500_000
    with GoRuntimeProcess(small_disk) as runtime, connect(runtime) as client:
        kept, refusal = set_until_refused(client, "disk/", value, StorageFull)
        assert refusal.reason == "STORAGE_FULL"
        assert kept > 0
        for number in range(kept):
            assert client.get_state(f"disk/{number}") == value
        check_full(runtime, client)
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
        flip_bit(stream_blocks(runtime, "EVENTS")[-1])
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
        while seen[-1] < after.sequence:
            try:
                with client.stream_events("damage", after_sequence=seen[-1]) as stream:
                    while seen[-1] < after.sequence:
                        event = next(stream)
                        assert event.sequence > seen[-1]
                        seen.append(event.sequence)
            except EventsTruncated as told:
                seen.append(told.oldest_sequence - 1)
        assert 2000 < len(seen) <= 5002
        assert client.get_state("other") == "stays"


def stream_blocks(runtime: GoRuntimeProcess, stream: str) -> list[Path]:
    """The blocks of a stream, oldest first."""
    (folder,) = [folder for folder in runtime.data_dir.rglob(stream) if folder.is_dir()]
    return sorted(folder.rglob("*.blk"), key=lambda path: int(path.stem))


def flip_bit(block: Path) -> None:
    content = bytearray(block.read_bytes())
    content[len(content) // 2] ^= 0x10
    block.write_bytes(content)


def test_a_lost_range_is_named_until_it_is_acknowledged(tmp_path: Path) -> None:
    with GoRuntimeProcess(tmp_path) as runtime, connect(runtime) as client:
        client.publish_events([{"event_type": "damage", "data": number} for number in range(1000)])
        runtime.stop()
        flip_bit(stream_blocks(runtime, "EVENTS")[-1])
        named = []
        for _ in range(2):
            runtime.start()
            named.append(read_ready(runtime)["warnings"])
            runtime.stop()
        assert len(named[0]) == 1
        assert named[0] == named[1]
        assert runtime.log_path.read_text().count("journal was damaged before") == 1

        command: list[str | Path] = [runtime.binary, "damage", "acknowledge", "--data-dir", runtime.data_dir]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert said.splitlines() == named[0]
        runtime.start()
        assert read_ready(runtime)["warnings"] == []


class Received:
    """What a subscription got, gaps among it."""

    def __init__(self) -> None:
        self.items: list[Event | EventGap] = []
        self.queue: queue.SimpleQueue[Event | EventGap] = queue.SimpleQueue()

    def receive_up_to(self, sequence: int) -> None:
        while not (self.items and isinstance(self.items[-1], Event) and self.items[-1].sequence == sequence):
            self.items.append(self.queue.get(timeout=60))

    def sequences(self) -> list[int | EventGap]:
        return [item if isinstance(item, EventGap) else item.sequence for item in self.items]


def test_subscribers_are_told_of_a_lost_range_once(tmp_path: Path) -> None:
    with GoRuntimeProcess(tmp_path) as runtime, connect(runtime) as client:
        text = "x" * 8000
        for _ in range(30):
            client.publish_events([{"event_type": f"damage.{n % 2}", "data": text} for n in range(100)])
        client.disconnect()
        runtime.stop()
        flip_bit(stream_blocks(runtime, "EVENTS")[1])
        runtime.start()

    # Odd sequences are of damage.0, even ones of damage.1.
    published = list(range(1, 3001))
    with runtime, connect(runtime) as client:
        for pattern, wanted in (("damage.*", {0, 1}), ("damage.1", {0})):
            received = Received()
            put = received.queue.put
            subscription = client.subscribe_to_events(pattern, put, from_sequence=1, on_gap=put)
            received.receive_up_to(published[-1])
            # Over a restart the subscription is behind the gap, and hears no more of it.
            runtime.kill()
            runtime.start()
            after = client.publish_events([{"event_type": f"damage.{n}", "data": "after"} for n in range(2)])
            published += [event.sequence for event in after]
            received.receive_up_to(published[-1])
            client.unsubscribe_from_events(subscription)
            (gap,) = [item for item in received.items if isinstance(item, EventGap)]
            expected = [sequence for sequence in published if sequence % 2 in wanted]
            before = [sequence for sequence in expected if sequence < gap.first]
            behind = [sequence for sequence in expected if sequence > gap.last]
            assert before
            assert behind
            assert received.sequences() == [*before, gap, *behind]

        with client.stream_events("damage.*", after_sequence=0) as events:
            with pytest.raises(EventsTruncated) as caught:
                list(events)
            assert caught.value.oldest_sequence == gap.last + 1
        with client.stream_events("damage.*", after_sequence=gap.last) as events:
            assert next(events).sequence == gap.last + 1


def test_a_watch_of_values_that_were_lost_is_told(tmp_path: Path) -> None:
    with GoRuntimeProcess(tmp_path) as runtime, connect(runtime) as client:
        with client.watch_state("k/*") as changes:
            for number in range(500):
                client.set_state(f"k/{number}", "x" * 50_000)
            seen = [next(changes).revision for _ in range(500)]
            # A start notes which blocks are full.
            runtime.stop()
            runtime.start()
            runtime.kill()
            # Cut off between two records: the values are gone and what is left is intact.
            block = stream_blocks(runtime, "STATE")[1]
            content = block.read_bytes()
            at = 0
            while at < len(content) // 2:
                at += int.from_bytes(content[at : at + 4], "little") & 0x7FFFFFFF
            os.truncate(block, at)
            runtime.start()
            assert len(read_ready(runtime)["warnings"]) == 1
            with pytest.raises(EventsTruncated):
                next(changes)
        left = {entry.key for entry in client.list_state("k/", keys_only=True)}
        assert 0 < len(left) < 500
        with client.watch_state("k/*", include_current=True) as changes:
            assert {next(changes).key for _ in left} == left
            client.set_state("k/after", 1)
            runtime.kill()
            runtime.start()
            client.set_state("k/again", 1)
            revisions = [next(changes).revision for _ in range(2)]
            assert seen[-1] < revisions[0] < revisions[1]


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

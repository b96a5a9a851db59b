"""A run's events as Server-Sent Events, without a server around them."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.test import AsyncClient, override_settings

from django_agent_runtime.api import run_stream
from django_agent_runtime.api.event_stream import BlocksResponse
from django_agent_runtime.api.run_stream import RunEventStream
from django_agent_runtime.exceptions import EventsTruncated
from django_agent_runtime.go_integration import get_go_runtime_integration
from django_agent_runtime.models import AgentEvent, AgentRun, ProjectorCursor
from django_agent_runtime.projector import Projector
from django_agent_runtime.services import cancel_run, create_run, reconcile_runs
from django_agent_runtime.testing import FakeGoRuntime, GoRuntimeProcess
from django_agent_runtime.tests.runs.support import MESSAGES, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from django.contrib.auth.models import User
    from rest_framework.test import APIClient

    from django_agent_runtime.principals import Principal

pytestmark = pytest.mark.django_db(transaction=True)

T = TypeVar("T")

USER_TYPES = ["assistant.delta", "assistant.message", "run.succeeded"]
ALL_TYPES = ["run.queued", "run.started", "tool.call", "state.checkpoint", *USER_TYPES]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_stream, "LOOK_SECONDS", 0.05)


@pytest.fixture(autouse=True)
def closed_connections(transactional_db: None) -> Iterator[None]:
    """Close the connection of the thread in which Django's asynchronous methods work."""
    yield
    asyncio.run(sync_to_async(connections.close_all)())


async def in_thread(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a synchronous function elsewhere, and leave no connection there."""

    def call() -> T:
        try:
            return function(*args, **kwargs)
        finally:
            connections.close_all()

    return await asyncio.to_thread(call)


def open_stream(run: AgentRun, after_sequence: int = 0, visibility: str = "user", **options: Any) -> RunEventStream:
    settings: dict[str, Any] = {"named": True, "keepalive_seconds": 15.0} | options
    return RunEventStream(run.pk, after_sequence=after_sequence, visibility=visibility, **settings)


def parse(block: bytes) -> dict[str, Any]:
    fields = dict(line.split(": ", 1) for line in block.decode().strip().splitlines())
    return fields | ({"data": json.loads(fields["data"])} if "data" in fields else {})


async def read_all(stream: RunEventStream) -> list[dict[str, Any]]:
    """All blocks but the opening."""
    blocks = [parse(block) async for block in stream.write()]
    assert blocks[0]["retry"] == "2000"
    return blocks[1:]


async def take(blocks: AsyncIterator[bytes], count: int) -> list[dict[str, Any]]:
    return [parse(await blocks.__anext__()) for _ in range(count)]


async def take_event(blocks: AsyncIterator[bytes]) -> dict[str, Any]:
    """The next event; the heartbeats before it are left out."""
    while (block := await blocks.__anext__()) == run_stream.HEARTBEAT:
        pass
    return parse(block)


def types_of(blocks: list[dict[str, Any]]) -> list[str]:
    return [block["event"] for block in blocks if "event" in block]


def wait_for(run: AgentRun, state: str) -> None:
    runtime = get_go_runtime_integration()
    wait_until(lambda: runtime.get_run(str(run.pk)).state == state)


@pytest.fixture
def finished(runtime: FakeGoRuntime, actor: Principal) -> AgentRun:
    """A run that the runtime has done."""
    run = create_run(actor=actor, agent_key="chat-agent", messages=MESSAGES).run
    wait_for(run, "succeeded")
    return run


@pytest.mark.parametrize(
    ("visibility", "types"),
    [
        ("user", USER_TYPES),
        ("debug", ["tool.call", *USER_TYPES]),
        ("internal", ALL_TYPES),
    ],
)
async def test_stream_has_what_its_reader_may_see_and_ends_with_the_run(
    finished: AgentRun, visibility: str, types: list[str]
) -> None:
    blocks = await read_all(open_stream(finished, visibility=visibility))
    assert types_of(blocks) == types
    sequences = [int(block["id"]) for block in blocks]
    assert sequences == sorted(set(sequences))


async def test_event_is_as_the_guides_clients_read_it(finished: AgentRun) -> None:
    blocks = await read_all(open_stream(finished))
    [message] = [block for block in blocks if block["event"] == "assistant.message"]
    data = message["data"]
    assert data["content"] == "Hello to you!"
    assert data["payload"] == {"content": "Hello to you!"}
    assert (data["type"], data["run_id"], str(data["seq"])) == ("assistant.message", str(finished.pk), message["id"])
    assert data["ts"].endswith("Z")
    assert data["visibility"] == "user"
    [end] = [block for block in blocks if block["event"] == "run.succeeded"]
    assert end["data"]["output"]["final_output"] == {"response": "Hello to you!"}


async def test_envelope_goes_before_the_payloads_own_members(runtime: FakeGoRuntime, actor: Principal) -> None:
    def collide(run: Any) -> dict[str, Any]:
        run.emit("custom\nid: 7", {"type": "x", "seq": "x", "run_id": "x", "ts": "x", "payload": "x"})
        return {}

    runtime.add_agent("chat-agent", collide)
    run = (await in_thread(create_run, actor=actor, agent_key="chat-agent", messages=MESSAGES)).run
    blocks = await read_all(open_stream(run))
    data = blocks[0]["data"]
    assert blocks[0]["event"] == "custom id: 7"
    assert (data["type"], data["run_id"], str(data["seq"])) == ("custom\nid: 7", str(run.pk), blocks[0]["id"])
    assert data["payload"]["payload"] == "x"


async def test_unnamed_events_go_to_onmessage(finished: AgentRun) -> None:
    blocks = await read_all(open_stream(finished, named=False))
    assert all("event" not in block for block in blocks)
    assert [block["data"]["type"] for block in blocks] == USER_TYPES


async def test_reader_that_resumes_anywhere_misses_and_repeats_nothing(finished: AgentRun) -> None:
    whole = await read_all(open_stream(finished, visibility="internal"))
    for place, block in enumerate(whole):
        rest = await read_all(open_stream(finished, int(block["id"]), visibility="internal"))
        assert rest == whole[place + 1 :]


async def test_silence_is_filled_with_heartbeats(runtime: FakeGoRuntime, actor: Principal) -> None:
    run = (await in_thread(create_run, actor=actor, agent_key="asking-agent", messages=MESSAGES)).run
    async with aclosing(open_stream(run, keepalive_seconds=0.05).write()) as blocks:
        [opening] = await take(blocks, 1)
        assert opening.keys() == {"retry"}
        assert (await take_event(blocks))["event"] == "run.interrupted"
        assert [list(block) for block in await take(blocks, 2)] == [[""], [""]]
        await in_thread(cancel_run, actor=actor, run=run)
        rest = [parse(block) async for block in blocks]
    assert types_of(rest) == ["run.cancelled"]


async def test_run_that_is_cancelled_before_it_was_sent_ends_its_stream(
    runtime: FakeGoRuntime, actor: Principal
) -> None:
    run = await AgentRun.objects.acreate(user=actor.user, agent_key="chat-agent")
    async with aclosing(open_stream(run).write()) as blocks:
        _, waiting = await take(blocks, 2)
        assert waiting["event"] == "run.waiting_for_runtime"
        assert "id" not in waiting
        await in_thread(cancel_run, actor=actor, run=run)
        rest = [parse(block) async for block in blocks]
    assert types_of(rest) == ["run.cancelled"]


async def test_stream_of_a_run_that_waits_goes_on_when_the_runtime_is_back(actor: Principal, tmp_path: Path) -> None:
    runtime = GoRuntimeProcess(tmp_path)
    with override_settings(GO_RUNTIME=runtime.settings):
        run = await AgentRun.objects.acreate(user=actor.user, agent_key="chat-agent", input={"messages": MESSAGES})
        async with aclosing(open_stream(run, visibility="internal", keepalive_seconds=0.2).write()) as blocks:
            await take(blocks, 1)
            assert (await take_event(blocks))["event"] == "run.waiting_for_runtime"
            assert [list(block) for block in await take(blocks, 1)] == [[""]]
            await asyncio.to_thread(runtime.start)
            try:
                assert await in_thread(wait_until, reconcile_runs) == 1
                assert (await take_event(blocks))["event"] == "run.queued"
            finally:
                await asyncio.to_thread(runtime.stop)


@pytest.mark.usefixtures("no_runtime")
async def test_run_that_has_ended_is_read_from_its_rows_while_the_runtime_is_away(actor: Principal) -> None:
    run = await AgentRun.objects.acreate(user=actor.user, agent_key="chat-agent", status="succeeded")
    await AgentEvent.objects.abulk_create(
        AgentEvent(run=run, seq=seq, event_type=kind, visibility=level, payload={"n": seq})
        for seq, kind, level in [(3, "run.queued", "internal"), (5, "error", "user"), (9, "run.succeeded", "internal")]
    )
    blocks = await read_all(open_stream(run))
    assert [(block["id"], block["event"]) for block in blocks] == [("5", "error"), ("9", "run.succeeded")]
    assert types_of(await read_all(open_stream(run, 5))) == ["run.succeeded"]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sequences of the events that were read from the tables."""
    sequences: list[int] = []
    from_db = AgentEvent.from_db.__func__  # type: ignore[attr-defined]  # a classmethod is a function inside

    def load(cls: type[AgentEvent], *arguments: Any) -> AgentEvent:
        event: AgentEvent = from_db(cls, *arguments)
        sequences.append(event.seq)
        return event

    monkeypatch.setattr(AgentEvent, "from_db", classmethod(load))
    return sequences


@pytest.mark.parametrize("runtime_is_there", [True, False])
@pytest.mark.parametrize("more", [-1, 0, 1])
async def test_rows_are_read_a_page_at_a_time(
    actor: Principal,
    loaded: list[int],
    request: pytest.FixtureRequest,
    more: int,
    *,
    runtime_is_there: bool,
) -> None:
    request.getfixturevalue("runtime" if runtime_is_there else "no_runtime")
    run = await AgentRun.objects.acreate(user=actor.user, agent_key="chat-agent", status="succeeded")
    sequences = [3 * place for place in range(1, 2 * run_stream.EVENTS_OF_PAGE + more + 1)]
    await AgentEvent.objects.abulk_create(
        AgentEvent(run=run, seq=seq, event_type="assistant.message" if seq < sequences[-1] else "run.succeeded")
        for seq in sequences
    )
    async with aclosing(open_stream(run).write()) as blocks:
        _, first = await take(blocks, 2)
        assert loaded == sequences[: run_stream.EVENTS_OF_PAGE]
        rest = [parse(block) async for block in blocks]
    assert [int(block["id"]) for block in [first, *rest]] == sequences
    assert loaded == sequences


@pytest.mark.usefixtures("runtime")
async def test_run_that_the_runtime_no_longer_has_is_read_from_its_rows(actor: Principal) -> None:
    run = await AgentRun.objects.acreate(user=actor.user, agent_key="chat-agent", status="failed")
    await AgentEvent.objects.acreate(run=run, seq=5, event_type="run.failed", payload={"error": "it broke"})
    [end] = await read_all(open_stream(run))
    assert (end["event"], end["data"]["error"]) == ("run.failed", "it broke")


KEPT = [(3, "run.queued", "internal"), (5, "assistant.message", "user"), (6, "state.checkpoint", "internal")]


@pytest.mark.parametrize(
    ("kept", "seen", "last_sequence"),
    [(KEPT, 0, 9), (KEPT, 5, 9), (KEPT[:1], 5, 9), ([], 0, 9), ([], 5, 9), (KEPT, 0, 0), (KEPT, 5, 0), ([], 0, 0)],
)
@pytest.mark.usefixtures("runtime")
def test_end_that_is_not_kept_is_made_of_the_row(
    ada: User, api: APIClient, kept: list[tuple[int, str, str]], seen: int, last_sequence: int
) -> None:
    error = {"message": "it broke", "reason": "AGENT_FAILED", "retryable": False, "error_type": "ValueError"}
    run = AgentRun.objects.create(
        user=ada, agent_key="chat-agent", status="failed", error=error, last_sequence=last_sequence
    )
    AgentEvent.objects.bulk_create(
        AgentEvent(run=run, seq=seq, event_type=kind, visibility=level) for seq, kind, level in kept
    )
    ProjectorCursor.objects.create(namespace=get_go_runtime_integration().settings.namespace, sequence=9)
    url = f"/api/agents/runs/{run.pk}/events/"
    accept = {"Accept": "text/event-stream"}
    response = api.get(url, headers=accept | {"Last-Event-ID": str(seen)})
    *_, end = [parse(block) for block in response.streaming_content]  # type: ignore[attr-defined]
    assert (end["event"], end["data"]["seq"], end["data"]["visibility"]) == ("run.failed", int(end["id"]), "user")
    assert end["data"]["payload"] == {"error": "it broke", "reason": "AGENT_FAILED", "error_type": "ValueError"}
    assert int(end["id"]) >= max(seen + 1, last_sequence, *(seq + 1 for seq, _, _ in kept))
    assert api.get(url, headers=accept | {"Last-Event-ID": end["id"]}).status_code == 204


def test_run_whose_events_are_gone_ends_its_stream_as_it_ended(finished: AgentRun, api: APIClient) -> None:
    url = f"/api/agents/runs/{finished.pk}/events/"
    accept = {"Accept": "text/event-stream"}

    def read_end() -> dict[str, Any]:
        return [parse(block) for block in api.get(url, headers=accept).streaming_content][-1]  # type: ignore[attr-defined]

    as_it_was = read_end()
    Projector().run_once(idle_seconds=0.3)
    AgentEvent.objects.filter(run=finished).delete()
    with FakeGoRuntime() as empty, override_settings(GO_RUNTIME=empty.settings):
        end = read_end()
        # The row has all of it but when it was written, and who else may see it.
        unknown = {"ts": "", "visibility": ""}
        assert end["data"] | unknown == as_it_was["data"] | unknown
        assert end["id"] == as_it_was["id"]
        assert api.get(url, headers=accept | {"Last-Event-ID": end["id"]}).status_code == 204


@pytest.mark.usefixtures("runtime")
async def test_run_that_is_deleted_ends_its_stream(actor: Principal) -> None:
    run = AgentRun(agent_key="a")
    assert await read_all(open_stream(run)) == []


async def test_stream_ends_after_its_longest_time(finished: AgentRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_stream, "MAX_STREAM_SECONDS", 0.0)
    assert await read_all(open_stream(finished)) == []


async def test_failure_in_the_midst_is_said_in_the_stream(finished: AgentRun, monkeypatch: pytest.MonkeyPatch) -> None:
    class Truncated:
        async def next_within(self, _seconds: float) -> Any:
            raise EventsTruncated("gone", metadata={"oldest_sequence": "7"})

        async def aclose(self) -> None:
            return

    monkeypatch.setattr(get_go_runtime_integration(), "awatch_run", lambda *_, **__: Truncated())
    [failure] = await read_all(open_stream(finished))
    assert (failure["event"], failure["id"]) == ("stream.error", "6")
    assert failure["data"]["problem"]["code"] == "EVENTS_TRUNCATED"


@pytest.mark.parametrize("is_async", [True, False])
async def test_reader_that_leaves_frees_everything(runtime: FakeGoRuntime, actor: Principal, *, is_async: bool) -> None:
    run = (await in_thread(create_run, actor=actor, agent_key="asking-agent", messages=MESSAGES)).run
    client = get_go_runtime_integration()
    response = BlocksResponse(open_stream(run).write(), is_async=is_async)
    if is_async:
        blocks = response.__aiter__()
        assert parse(await blocks.__anext__())["retry"] == "2000"
        assert parse(await blocks.__anext__())["event"] == "run.interrupted"
        assert client.stats["watches"] == 1
        # As Django does it when the reader has left.
        await blocks.aclose()  # type: ignore[attr-defined]
        response.close()
        del blocks, response
    else:

        def read() -> None:
            chunks = iter(response)
            assert parse(next(chunks))["retry"] == "2000"
            assert parse(next(chunks))["event"] == "run.interrupted"
            assert client.stats["watches"] == 1
            response.close()

        await in_thread(read)
    await asyncio.to_thread(wait_until, lambda: client.stats["watches"] == 0)


def test_answer_has_the_headers_that_stop_proxies(finished: AgentRun, api: APIClient) -> None:
    for url in (f"/api/agents/runs/{finished.pk}/events/", f"/api/agents/runs/{finished.pk}/events/stream/"):
        response = api.get(url, headers={"Accept": "text/event-stream", "Accept-Encoding": "gzip"})
        assert response["Content-Type"] == "text/event-stream"
        assert response["Cache-Control"] == "no-cache, no-transform"
        assert response["X-Accel-Buffering"] == "no"
        assert response["Content-Encoding"] == "identity"
        assert "Access-Control-Allow-Origin" not in response
        blocks = [parse(block) for block in response.streaming_content]  # type: ignore[attr-defined]
        assert types_of(blocks) == USER_TYPES


def test_blocks_are_not_compressed_and_so_not_held_back(finished: AgentRun, api: APIClient, settings: Any) -> None:
    settings.MIDDLEWARE = ["django.middleware.gzip.GZipMiddleware", *settings.MIDDLEWARE]
    accept = {"Accept": "text/event-stream", "Accept-Encoding": "gzip"}
    response = api.get(f"/api/agents/runs/{finished.pk}/events/", headers=accept)
    chunks = iter(response.streaming_content)  # type: ignore[attr-defined]
    assert next(chunks) == b"retry: 2000\n\n"
    response.close()


def test_debug_events_are_for_the_owner(finished: AgentRun, api: APIClient) -> None:
    url = f"/api/agents/runs/{finished.pk}/events/"
    accept = {"Accept": "text/event-stream"}
    response = api.get(f"{url}?include_debug=true", headers=accept)
    assert types_of([parse(block) for block in response.streaming_content])[0] == "tool.call"  # type: ignore[attr-defined]
    refused = api.get(f"{url}?include_all=true", headers=accept)
    assert (refused.status_code, refused.json()["code"]) == (403, "PERMISSION_DENIED")


def test_reader_that_has_seen_the_end_is_told_not_to_come_again(ada: User, api: APIClient) -> None:
    run = AgentRun.objects.create(user=ada, agent_key="a", status="failed")
    AgentEvent.objects.create(run=run, seq=9, event_type="run.failed")
    url = f"/api/agents/runs/{run.pk}/events/"
    response = api.get(url, headers={"Accept": "text/event-stream", "Last-Event-ID": "9"})
    assert (response.status_code, response.content) == (204, b"")


async def test_first_event_is_sent_before_the_last_under_asgi(runtime: FakeGoRuntime, actor: Principal) -> None:
    run = (await in_thread(create_run, actor=actor, agent_key="asking-agent", messages=MESSAGES)).run
    client = AsyncClient()
    await client.aforce_login(actor.user)  # type: ignore[arg-type]
    response = await client.get(f"/api/agents/runs/{run.pk}/events/stream/", headers={"Accept": "text/event-stream"})
    blocks = response.__aiter__()  # type: ignore[attr-defined]
    await take(blocks, 1)
    assert (await take_event(blocks))["event"] == "run.interrupted"
    await blocks.aclose()

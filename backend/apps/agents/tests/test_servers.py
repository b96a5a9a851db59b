"""Runs from a request to the last event: real servers, the real runtime, a worker and a projector."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from backend.apps.agents.tests.servers import BODY, PATIENCE_SECONDS, SERVERS, Accounts, Site, serve, wait_until
from django_agent_runtime.conf import load
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.runtime.interfaces import AgentRuntime, EventType, RunContext, RunResult, Visibility
from django_agent_runtime.runtime.worker.worker import Worker
from django_agent_runtime.runtime_conf import load as load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

MAKE_BARE_RUN = """
from django.contrib.auth.models import User
from django_agent_runtime.models import AgentRun
user = User.objects.get(username="ada")
print(AgentRun.objects.create(user=user, agent_key="chat-agent", input={"messages": []}).pk)
"""
ENDS = {"run.succeeded", "run.failed", "run.cancelled", "run.timed_out"}
WORKER = "runagent --noreload"
PROJECTOR = "projectruns"
# By what the pools of a server may grow while it answers.
OTHER_THREADS = 20


class Stream:
    """One reader of a run's events, on a connection of its own."""

    def __init__(self, site: Site, run_id: str, query: str = "", *, address: str = "events/", **headers: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE_SECONDS)
        headers = {"Authorization": f"Token {site.tokens[0]}", "Accept": "text/event-stream"} | headers
        self.connection.request("GET", f"/api/agents/runs/{run_id}/{address}?{query}", headers=headers)
        self.response = self.connection.getresponse()
        assert self.response.status == 200, self.response.read()
        assert "retry" in self.read_block()

    def read_block(self) -> dict[str, Any]:
        """The fields of the next block; empty at the end."""
        fields: dict[str, Any] = {}
        while line := self.response.readline().decode().rstrip("\n"):
            name, value = line.split(": ", 1)
            fields[name] = json.loads(value) if name == "data" else value
        return fields

    def read_event(self) -> dict[str, Any]:
        """The next event, heartbeats left out; empty at the end."""
        while block := self.read_block():
            if "data" in block:
                return block
        return {}

    def read_all(self) -> list[dict[str, Any]]:
        """Every event until the stream ends."""
        events = []
        while event := self.read_event():
            events.append(event)
        self.close()
        return events

    def close(self) -> None:
        self.response.close()
        self.connection.close()


class TellingAgent(AgentRuntime):
    """Says the same on each level: names that a stream has for its own, and what is easily written in another way."""

    key = "telling-agent"

    async def run(self, ctx: RunContext) -> RunResult:
        answer = await ctx.interrupt({"question": "Shall I?"})
        for level in Visibility:
            own = {"type": "mine", "seq": -1, "run_id": None, "ts": [], "visibility": "mine", "payload": {"seq": 0}}
            others = {"text": "1 €\u2028\r\n\n</data>", "large": 2**70, "small": -1e-7, "types": {"type": "mine"}}
            await ctx.emit(f"told.{level}", own | others, visibility=level)
        await ctx.emit("two\r\nlines\u2028 of τύπος\n", {"answer": answer}, visibility=Visibility.USER)
        await ctx.emit(EventType.ASSISTANT_DELTA, {"content": "Done."})
        return RunResult()


@contextmanager
def work(site: Site, agent: AgentRuntime) -> Iterator[None]:
    """Have the agent served by a worker that knows nothing of the site."""
    worker = Worker(load(site.runtime.settings), {agent.key: agent}, settings=load_settings({}))
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        with GoRuntimeIntegration(**site.runtime.settings) as client:
            wait_until(lambda: agent.key in {known.agent_id for known in client.list_agents()})
        yield
    finally:
        worker.stop(0)
        thread.join()


def read_blocks(port: int, path: str, **headers: str) -> tuple[int, list[dict[str, Any]]]:
    """The status of a stream that has an end, and the fields of its events."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    connection.request("GET", path, headers={"Accept": "text/event-stream"} | headers)
    with connection.getresponse() as response:
        text = response.read().decode()
    connection.close()
    blocks = [dict(line.split(": ", 1) for line in block.split("\n")) for block in text.split("\n\n") if block]
    return response.status, [block | {"data": json.loads(block["data"])} for block in blocks if "data" in block]


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def site(server: str, accounts: Accounts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The site with all that belongs to it."""
    with serve(server, tmp_path_factory.mktemp("site"), accounts) as site:
        site.runtime.start()
        site.start(WORKER)
        site.start(PROJECTOR)
        yield site


def types_of(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


def find_live(site: Site, run_id: str) -> Any:
    """The run as the runtime has it; None where that did not answer soon enough."""
    _, run = site.call("GET", f"runs/{run_id}/")
    return None if run["stale"] else run


def list_kept_types(site: Site, run_id: str, query: str = "") -> list[str]:
    return [event["type"] for event in site.call("GET", f"runs/{run_id}/events/?{query}")[1]["results"]]


def test_run_is_done_streamed_and_kept(site: Site) -> None:
    status, conversation = site.call("POST", "conversations/", {"agent_key": "chat-agent", "title": "A chat"})
    assert status == 201
    run_id = site.create(conversation_id=conversation["id"])
    events = Stream(site, run_id).read_all()
    assert types_of(events)[-2:] == ["assistant.message", "run.succeeded"]
    assert events[-2]["data"]["content"]
    assert wait_until(partial(find_live, site, run_id))["status"] == "succeeded"
    # The projector may write them in more than one batch.
    wait_until(lambda: list_kept_types(site, run_id)[-1:] == ["run.succeeded"])
    wait_until(lambda: len(site.call("GET", f"conversations/{conversation['id']}/messages/")[1]["messages"]) == 2)


def test_reader_resumes_anywhere_without_gap_or_repeat(site: Site) -> None:
    run_id = site.create()
    whole = Stream(site, run_id, "include_debug=true").read_all()
    assert types_of(whole)[-1] == "run.succeeded"
    for place, event in enumerate(whole[:-1]):
        rest = Stream(site, run_id, "include_debug=true", **{"Last-Event-ID": event["id"]}).read_all()
        assert rest == whole[place + 1 :]


def test_stream_of_the_runtime_is_that_of_django(site: Site) -> None:
    with work(site, TellingAgent()):
        run_id = site.create(agent_key="telling-agent")
        wait_until(lambda: site.call("GET", f"runs/{run_id}/")[1]["status"] == "waiting")
        assert site.call("POST", f"runs/{run_id}/resume/", {"value": "Yes"})[0] == 200
        assert types_of(Stream(site, run_id).read_all())[-1] == "run.succeeded"

    def read_both(level: str, query: str, **headers: str) -> tuple[int, list[dict[str, Any]]]:
        status, ticket = site.call("POST", f"runs/{run_id}/stream-ticket/?{level}")
        assert status == 201, ticket
        straight = read_blocks(site.runtime.http_port, f"{ticket['path']}&{query}", **headers)
        headers |= {"Authorization": f"Token {site.tokens[0]}"}
        assert straight == read_blocks(site.port, f"/api/agents/runs/{run_id}/events/?{level}&{query}", **headers)
        return straight

    told = []
    for level in ("", "include_debug=true"):
        status, whole = read_both(level, "")
        assert status == 200
        told.append([kind for kind in types_of(whole) if kind.startswith("told.")])
        _, unnamed = read_both(level, "unnamed=1")
        assert unnamed == [{"id": event["id"], "data": event["data"]} for event in whole]
        for place, event in enumerate(whole):
            rest = (200, whole[place + 1 :]) if event != whole[-1] else (204, [])
            assert read_both(level, "", **{"Last-Event-ID": event["id"]}) == rest
            assert read_both(level, f"from_seq={event['id']}") == rest
    assert told == [["told.user"], ["told.debug", "told.user"]]


def test_open_stream_goes_on_when_the_runtime_was_killed(site: Site) -> None:
    run_id = site.create(delay_seconds=1)
    stream = Stream(site, run_id)
    site.runtime.kill()
    site.runtime.start()
    assert types_of(stream.read_all())[-2:] == ["assistant.message", "run.succeeded"]


def test_other_users_see_nothing(site: Site) -> None:
    run_id = site.create()
    for path in (f"runs/{run_id}/", f"runs/{run_id}/events/", f"runs/{run_id}/events/stream/"):
        assert site.call("GET", path, user=1)[0] == 404


def test_streams_do_not_hold_up_other_requests(site: Site) -> None:
    streams = [Stream(site, site.create(delay_seconds=600)) for _ in range(3)]
    assert site.call("GET", "runs/")[0] == 200
    for stream in streams:
        stream.close()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads as Linux shows them")
def test_open_streams_hold_no_thread_of_an_asgi_server(site: Site, server: str) -> None:
    if server != "uvicorn":
        pytest.skip("a WSGI server has a thread for each answer")
    run_id = site.create(delay_seconds=600)
    Stream(site, run_id).close()
    before = site.count_threads()
    with ExitStack() as stack:
        streams = [Stream(site, run_id, address=f"events/{more}") for more in ("", "stream/") for _ in range(25)]
        for stream in streams:
            stack.callback(stream.close)
        # What the pools of server and client may have grown by.
        assert site.count_threads() <= before + OTHER_THREADS
        assert site.call("POST", f"runs/{run_id}/cancel/")[0] == 200
        for stream in streams:
            assert types_of(stream.read_all()) == ["run.cancelled"]


def test_cancel_ends_the_run_and_its_stream(site: Site) -> None:
    run_id = site.create(delay_seconds=600)
    stream = Stream(site, run_id)
    assert site.call("POST", f"runs/{run_id}/cancel/")[0] == 200
    assert types_of(stream.read_all()) == ["run.cancelled"]
    wait_until(lambda: run_id in [run["id"] for run in site.call("GET", "runs/?status=cancelled")[1]["results"]])


def test_rollback_takes_back_the_runs_before_it(site: Site) -> None:
    _, conversation = site.call("POST", "conversations/", {})

    def create(text: str, **changes: Any) -> str:
        messages = [{"role": "user", "content": text}]
        return site.create(conversation_id=conversation["id"], messages=messages, **changes)

    def find_status(run_id: str) -> Any:
        return site.call("GET", f"runs/{run_id}/")[1]["status"]

    def list_asked() -> list[str]:
        _, history = site.call("GET", f"conversations/{conversation['id']}/messages/?include_failed_runs=true")
        return [message["content"] for message in history["messages"] if message["role"] == "user"]

    Stream(site, create("ended")).read_all()
    waiting = create("waiting", agent_key="refund-agent")
    wait_until(lambda: find_status(waiting) == "waiting")
    delayed = create("delayed", delay_seconds=600)
    new = create("new", multitask_strategy="rollback")
    assert types_of(Stream(site, new).read_all())[-1] == "run.succeeded"
    wait_until(lambda: [find_status(run_id) for run_id in (waiting, delayed)] == ["cancelled"] * 2)
    wait_until(lambda: list_asked() == ["ended", "new"])
    # Nor is it brought back by what is projected later.
    Stream(site, create("last")).read_all()
    wait_until(lambda: list_asked() == ["ended", "new", "last"])


def test_deleted_run_is_cancelled_when_the_runtime_is_back(site: Site) -> None:
    run_ids = [site.create(agent_key="refund-agent", delay_seconds=600) for _ in range(2)]
    assert site.call("DELETE", f"runs/{run_ids[0]}/") == (204, None)
    site.runtime.kill()
    assert site.call("DELETE", f"runs/{run_ids[1]}/") == (204, None)
    assert [site.call("GET", f"runs/{run_id}/")[0] for run_id in run_ids] == [404, 404]
    site.runtime.start()
    with GoRuntimeIntegration(**site.runtime.settings) as client:
        for run_id in run_ids:
            assert client.wait_run(run_id, timeout=PATIENCE_SECONDS).state == "cancelled"


def test_bare_row_is_sent_by_the_projector(site: Site) -> None:
    """As when Django was killed between commit and call."""
    [run_id] = site.shell(MAKE_BARE_RUN)
    assert types_of(Stream(site, run_id).read_all())[-1] == "run.succeeded"


def test_projector_that_was_killed_goes_on_where_it_was(site: Site) -> None:
    run_ids = [site.create() for _ in range(20)]
    site.kill(PROJECTOR)
    for run_id in run_ids:
        Stream(site, run_id).read_all()
    site.start(PROJECTOR)

    def find_ends(run_id: str) -> list[str]:
        return [kind for kind in list_kept_types(site, run_id, "include_debug=true") if kind in ENDS]

    for run_id in run_ids:
        assert wait_until(partial(find_ends, run_id)) == ["run.succeeded"]


def test_run_that_was_created_without_a_runtime_is_done_when_there_is_one(
    server: str, accounts: Accounts, tmp_path: Path
) -> None:
    with serve(server, tmp_path, accounts) as site:
        site.start(PROJECTOR)
        status, created = site.call("POST", "runs/", BODY)
        assert (status, created["status"], created["submitted_at"]) == (201, "queued", None)
        stream = Stream(site, created["id"])
        waiting = stream.read_event()
        assert (waiting["event"], "id" in waiting) == ("run.waiting_for_runtime", False)
        site.runtime.start()
        site.start(WORKER)
        assert types_of(stream.read_all())[-2:] == ["assistant.message", "run.succeeded"]


def test_projection_goes_on_when_the_data_of_the_runtime_was_removed(tmp_path: Path, accounts: Accounts) -> None:
    with serve("gunicorn", tmp_path, accounts) as site:
        site.runtime.start()
        site.start(WORKER)
        site.start(PROJECTOR)

        def wait_for_row(run_id: str) -> None:
            # Of the list, which does not ask the runtime.
            wait_until(
                lambda: (
                    (run_id, "succeeded")
                    in {(run["id"], run["status"]) for run in site.call("GET", "runs/")[1]["results"]}
                )
            )

        for _ in range(3):
            before = site.create()
        wait_for_row(before)
        site.runtime.stop()
        shutil.rmtree(site.runtime.data_dir)
        site.runtime.start()
        [bare] = site.shell(MAKE_BARE_RUN)
        for run_id in (site.create(), bare):
            wait_for_row(run_id)

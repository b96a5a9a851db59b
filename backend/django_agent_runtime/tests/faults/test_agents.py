"""Agents, their tools and sub-agents, graphs, threads and people, while the processes under them are killed.

`FAULT_SEED` as in `test_randomized`.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest

from django_agent_runtime.exceptions import RunEnded, RunNotWaiting
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.testing import GoRuntimeProcess
from django_agent_runtime.tests.faults.chaos import HEALING_SECONDS, LEASE_SECONDS, Chaos, Crew, choose_seed
from django_agent_runtime.tests.faults.model_server import TOKENS_OF_ANSWER, Answer, ModelServer
from django_agent_runtime.tests.faults.processes import read_history, settle
from django_agent_runtime.tests.faults.promises import find_wrong_history
from django_agent_runtime.types import RetryPolicy, RunState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from django_agent_runtime.tests.faults.processes import Network, Site
    from django_agent_runtime.types import Run

pytestmark = pytest.mark.faults

ERRANDS_AT_A_TIME = 6
PARTS = 3
MADE = ("made-0", "made-1")
THREADS = 4
# Each kill of the runtime counts an attempt of what it was at.
PATIENT = {"max_attempts": 100, "initial_backoff": "50ms", "max_backoff": "500ms"}

MAKER = {
    "name": "maker",
    "instructions": "You are the maker.",
    "retry": PATIENT,
    "tools": [
        {
            "function": {
                "name": "site.work",
                "description": "Works.",
                "parameters": {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]},
            }
        }
    ],
    "parameters": {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]},
    "output": {"type": "object", "properties": {"token": {"type": "string"}}, "required": ["token"]},
}
BOSS = {
    "name": "boss",
    "instructions": "You are the boss.",
    "retry": PATIENT,
    "agents": ["maker"],
    "tools": [{"function": MAKER["tools"][0]["function"] | {"approval": True}}],  # type: ignore[index]
    "parameters": {"type": "object", "properties": {"errand": {"type": "string"}}, "required": ["errand"]},
    "output": {
        "type": "object",
        "properties": {"made": {"type": "array", "items": {"type": "string"}}, "approved": {"type": "string"}},
        "required": ["made", "approved"],
    },
}
# The model's answers to the boss, and to the makers: what an errand spends.
ANSWERS = 3 + 2 * len(MADE)

STEPS = """
name: steps
state: {rounds: {reducer: add, initial: 0}}
nodes:
  count: {kind: transform, set: {rounds: "1.0"}}
edges: [[START, count]]
branches: {count: [{when: "state.rounds < 8.0", to: count}, {to: END}]}
output: {rounds: state.rounds}
"""
ERRAND = """
name: errand
state:
  errand: {}
  parts: {}
  tokens: {reducer: append}
  agreed: {reducer: merge}
  made: {}
  rounds: {}
nodes:
  begin: {kind: transform}
  work: {kind: python, with: {function: site.work, arguments: {key: 'state.item'}}, set: {tokens: "[out.token]"}}
  ask: {kind: human, with: {ask: "{{ state.errand }}, first?"}, set: {agreed: '{"first": out}'}}
  ask_too: {kind: human, with: {ask: "{{ state.errand }}, second?"}, set: {agreed: '{"second": out}'}}
  boss:
    kind: agent
    with: {agent: boss, task_type: work, input: {errand: state.errand}}
    set: {made: out}
  steps: {kind: graph, with: {graph: steps}, set: {rounds: out.rounds}}
edges: [[START, begin], [begin, ask], [begin, ask_too], [begin, boss], [begin, steps]]
branches: {begin: [{each: state.parts, to: work}]}
output: {tokens: state.tokens, agreed: state.agreed, made: state.made.made, approved: state.made.approved,
  rounds: state.rounds}
"""
TALK = """
name: talk
state: {said: {reducer: append}, turns: {reducer: add, initial: 0.0}}
nodes:
  listen: {kind: transform, set: {turns: "1.0"}}
  think: {kind: transform}
  answer: {kind: transform}
edges: [[START, listen], [listen, think], [think, answer]]
"""


class Script:
    """What the model says, to whom, after what: the same whenever it is asked the same."""

    def __init__(self) -> None:
        self.asked = Counter[str]()
        """How often it was asked for each errand."""

    def __call__(self, messages: list[dict[str, Any]]) -> Answer:
        asked = json.loads(next(text_of(message) for message in messages if message["role"] == "user"))["input"]
        errand = asked.get("errand") or asked["key"].partition("/")[0]
        self.asked[errand] += 1
        return answer(messages, asked)


def answer(messages: list[dict[str, Any]], asked: dict[str, str]) -> Answer:
    """What comes next for the boss, or for a maker."""
    told = " ".join(text_of(message) for message in messages if message["role"] in {"system", "developer"})
    tokens = [token_of(text_of(message)) for message in messages if message["role"] == "tool"]
    if "You are the maker." in told:
        return json.dumps({"token": tokens[0]}) if tokens else [("site_work", {"key": asked["key"]})]
    errand = asked["errand"]
    if not tokens:
        return [("maker", {"key": f"{errand}/{name}"}) for name in MADE]
    if len(tokens) == len(MADE):
        return [("site_work", {"key": f"{errand}/approved"})]
    return json.dumps({"made": tokens[:-1], "approved": tokens[-1]})


def text_of(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def token_of(result: str) -> str:
    """The token in the result of a tool, or what there is in its place, which is then seen not to be one."""
    return str(json.loads(result)["token"]) if result.startswith("{") else result


class Load:
    """Errands and turns of threads, which are watched, and answered when they ask."""

    def __init__(self, seed: int, client: GoRuntimeIntegration) -> None:
        self.errands: dict[str, str] = {}
        self.turns: dict[str, tuple[str, str]] = {}
        self.answers: dict[str, dict[str, str]] = {}
        self._dice = random.Random(seed)
        self._client = client
        self._room = threading.Semaphore(ERRANDS_AT_A_TIME)

    def create_runs(self, over: threading.Event) -> None:
        """Until it is over; then those that are under way are seen to their ends."""
        with ThreadPoolExecutor(2 * ERRANDS_AT_A_TIME) as pool:
            futures = []
            for number in itertools.count():
                self._room.acquire()
                if over.is_set():
                    break
                errand = f"errand-{number}"
                run_id = self._submit(
                    "errand", {"errand": errand, "parts": [f"{errand}/part/{n}" for n in range(PARTS)]}
                )
                self.errands[run_id] = errand
                futures.append(pool.submit(self._attend, run_id))
                thread_id = f"thread-{self._dice.randrange(THREADS)}"
                turn = self._submit("talk", {"thread_id": thread_id, "said": [errand]})
                self.turns[turn] = (thread_id, errand)
            for future in futures:
                future.result(HEALING_SECONDS)

    def _submit(self, graph_id: str, task: dict[str, Any]) -> str:
        run_id = str(uuid.UUID(int=self._dice.getrandbits(128), version=4))
        retry = RetryPolicy(max_attempts=100, initial_backoff=0.05, max_backoff=0.5)
        self._client.submit_task("langgraph_task", {"graph_id": graph_id, **task}, run_id=run_id, retry=retry)
        return run_id

    def _attend(self, run_id: str) -> None:
        try:
            self._answer(run_id)
        finally:
            self._room.release()

    def _answer(self, run_id: str) -> None:
        """Answer what a run asks, and what its sub-runs ask, each question by itself and with what tells it apart."""
        attended = {run_id}
        with ThreadPoolExecutor(4) as pool, self._client.watch_run(run_id, visibility="internal") as events:
            for event in events:
                if event.type == "run.interrupted":
                    self._give_answers(run_id, event.payload)
                elif event.type == "run.waiting":
                    for child in set(event.payload["run_ids"]) - attended:
                        attended.add(child)
                        pool.submit(self._answer, child)

    def _give_answers(self, run_id: str, asked: dict[str, Any]) -> None:
        questions = asked["payload"].get("questions")
        answers: Any = "yes"
        if questions:
            # Only the first, so that the others are asked again.
            answers = {questions[0]["id"]: self._say(questions[0]["value"])}
        elif asked["payload"].get("type") != "tool_approval":
            answers = self._say(asked["payload"])
        with suppress(RunEnded, RunNotWaiting):
            self._client.resume_run(run_id, answers, interrupt_id=asked["interrupt_id"])

    def _say(self, question: dict[str, Any]) -> str:
        return f"yes to {question['question']}"


@pytest.fixture
def script() -> Script:
    """What the model of this test says."""
    return Script()


@pytest.fixture
def model(script: Script) -> Iterator[ModelServer]:
    """The model that all agents ask."""
    with ModelServer(script, seed=1, failures=5) as server:
        yield server


@pytest.fixture
def runtime(tmp_path: Path, model: ModelServer) -> Iterator[GoRuntimeProcess]:
    """A runtime whose agents ask that model."""
    environment = {"OPENAI_BASE_URL": model.url, "AGENT_RUNTIME_MODEL": "openai/scripted"}
    with GoRuntimeProcess(tmp_path, environment=environment) as process:
        yield process


@pytest.mark.parametrize(
    "seconds", [15, pytest.param(900, marks=[pytest.mark.soak, pytest.mark.timeout(0)], id="soak")]
)
def test_agents_and_graphs_do_everything_once_whatever_befalls(
    client: GoRuntimeIntegration,
    runtime: GoRuntimeProcess,
    network: Network,
    site: Site,
    script: Script,
    seconds: float,
) -> None:
    seed = choose_seed()
    site.lease = LEASE_SECONDS
    client.register_agent(MAKER)
    client.register_agent(BOSS)
    for graph in (STEPS, ERRAND, TALK):
        client.register_graph(graph)
    with ExitStack() as stack:
        crew = stack.enter_context(Crew(site, runtime.port))
        far = stack.enter_context(GoRuntimeIntegration(host="127.0.0.1", port=network.port, timeout=HEALING_SECONDS))
        load = Load(seed, far)
        Chaos(seed, runtime, crew, network).befall(load.create_runs, seconds)
        runs = settle(client)
        histories = {run_id: read_history(client, run_id) for run_id in runs}
    done = {token: (key, run_id) for run_id, key, _, token in site.read_lines("effects")}
    breaches = [breach for run_id, run in runs.items() for breach in find_wrong_history(run, histories[run_id])]
    breaches += find_wrong_errands(load.errands, runs, done, script) + find_wrong_threads(load.turns, runs, client)
    assert not breaches, "\n".join(breaches)
    assert load.errands


def find_wrong_errands(
    errands: dict[str, str], runs: dict[str, Run], done: dict[str, tuple[str, str]], script: Script
) -> list[str]:
    """What errands came to that is not what their parts did, or was done by more runs than it takes."""
    breaches = []
    children: dict[str, list[Run]] = {}
    for run in runs.values():
        children.setdefault(run.parent_run_id, []).append(run)

    def count_below(run_id: str) -> Counter[str]:
        below = Counter[str]()
        for child in children.get(run_id, []):
            below[child.agent_id] += 1
            below += count_below(child.run_id)
        return below

    for run_id, errand in errands.items():
        run = runs[run_id]
        if run.state is not RunState.SUCCEEDED or run.output is None:
            breaches.append(f"{errand}: ended as {run.state} ({run.error})")
            continue
        output = run.output["output"]
        tokens = [*output["tokens"], *output["made"], output["approved"]]
        keys = [done[token][0] if token in done else token for token in tokens]
        planned = [f"{errand}/part/{number}" for number in range(PARTS)]
        planned += [f"{errand}/{name}" for name in (*MADE, "approved")]
        if keys != planned:
            breaches.append(f"{errand}: was made of {keys}")
        if output["agreed"] != {name: f"yes to {errand}, {name}?" for name in ("first", "second")}:
            breaches.append(f"{errand}: was answered {output['agreed']}")
        if output["rounds"] != 8:
            breaches.append(f"{errand}: took {output['rounds']} steps")
        # An answer that a crash lost was paid for as well.
        answers = run.output["usage"]["total_tokens"] / TOKENS_OF_ANSWER["total_tokens"]
        if not ANSWERS <= answers <= script.asked[errand]:
            breaches.append(f"{errand}: has spent {answers} answers of {script.asked[errand]}, {ANSWERS} are needed")
        below = count_below(run_id)
        if below != {"boss": 1, "maker": len(MADE), "function:site.work": PARTS + len(MADE) + 1}:
            breaches.append(f"{errand}: was done by {below}")
    return breaches


def find_wrong_threads(
    turns: dict[str, tuple[str, str]], runs: dict[str, Run], client: GoRuntimeIntegration
) -> list[str]:
    """Threads that do not have what was said in them, each once and in order."""
    breaches = [f"turn {turns[run_id]}: {runs[run_id].error}" for run_id in turns if runs[run_id].error]
    said: dict[str, list[str]] = {}
    for thread_id, text in turns.values():
        said.setdefault(thread_id, []).append(text)
    for thread_id, texts in said.items():
        values = client.get_thread_state(thread_id).values
        if values != {"said": texts, "turns": len(texts)}:
            breaches.append(f"{thread_id}: has {values}, was told {texts}")
    return breaches

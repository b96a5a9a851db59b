"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """The dimensions of a run."""

    rounds: int
    """How often the contenders of a comparison take turns."""
    calls: int
    """Calls a contender makes in its turn, where latency is measured."""
    slow_calls: int
    """The same for contenders that take several milliseconds."""
    warmup_calls: int
    """Calls each contender makes before the first round."""
    threads: int
    thread_rounds: int
    thread_seconds: float
    """How long a turn is, where the throughput of threads is measured."""
    queue_rounds: int
    queued_tasks: int
    event_rounds: int
    events: int
    """Events published, and read, in a turn."""
    growth: tuple[int, ...]
    """Numbers of state keys, and as many events, at which the runtime is looked at; rising from 0."""
    growth_calls: int
    """Reads of random keys at each of them."""
    install_peers: bool
    """Whether peers with virtual environments of their own are installed where they are not."""
    run_rounds: int
    run_calls: int
    """Runs of a Python agent that each side does in its turn, one at a time."""
    agno_tasks: int
    """How many agno gets in place of `queued_tasks`: it takes a minute for a thousand."""
    token_rounds: int
    first_tokens: int
    """Tokens of the one run of a round whose way to the reader is measured."""
    token_runs: int
    """Runs that emit tokens at the same time."""
    token_paces: tuple[float, ...]
    """Tokens a second of each of them that are tried, rising, until one is not held."""
    probe_seconds: float
    """For how long a rate is tried."""
    hold_seconds: float
    """For how long the highest of those that were held is to be held."""
    runtime_readers: int
    django_readers: int
    reader_tokens: int
    reader_interval: float
    """Seconds between the tokens that all of these readers get."""
    backlog_runs: int
    backlog_steps: int
    rest_rounds: int
    rest_calls: int
    rest_rate_rounds: int
    rest_threads: int
    rest_seconds: float
    """How long a turn is, where requests a second are measured."""
    graph_rounds: int
    graph_calls: int
    """Runs of a graph in a turn; of those that are slow, one."""
    graph_steps: int
    """Nodes that follow each other in such a run."""
    graph_tasks: int
    """Tasks side by side in another graph."""
    graph_messages: int
    """Of a conversation whose bytes are counted."""
    graph_conversations: int
    graph_waiting_rounds: int


FULL = Sizes(
    rounds=150,
    calls=25,
    slow_calls=4,
    warmup_calls=200,
    threads=32,
    thread_rounds=25,
    thread_seconds=0.5,
    queue_rounds=3,
    queued_tasks=2000,
    event_rounds=5,
    events=30_000,
    growth=(0, 100_000, 250_000, 500_000, 1_000_000),
    growth_calls=1000,
    install_peers=True,
    run_rounds=100,
    run_calls=5,
    agno_tasks=100,
    token_rounds=15,
    first_tokens=50,
    token_runs=300,
    # The last is more than two worker processes emit.
    token_paces=(20, 30, 40, 60, 80, 100, 130, 160, 200, 300, 450),
    probe_seconds=10,
    hold_seconds=60,
    runtime_readers=10_000,
    django_readers=1000,
    reader_tokens=20,
    reader_interval=1.0,
    backlog_runs=100_000,
    backlog_steps=10,
    rest_rounds=50,
    rest_calls=5,
    rest_rate_rounds=5,
    rest_threads=8,
    rest_seconds=2.0,
    graph_rounds=40,
    graph_calls=10,
    graph_steps=100,
    graph_tasks=100,
    graph_messages=400,
    graph_conversations=3,
    graph_waiting_rounds=5,
)

QUICK = Sizes(
    rounds=3,
    calls=20,
    slow_calls=5,
    warmup_calls=5,
    threads=8,
    thread_rounds=2,
    thread_seconds=0.2,
    queue_rounds=1,
    queued_tasks=50,
    event_rounds=2,
    events=2000,
    growth=(0, 500, 1000, 2000),
    growth_calls=50,
    install_peers=False,
    run_rounds=2,
    run_calls=5,
    agno_tasks=5,
    token_rounds=2,
    first_tokens=10,
    token_runs=30,
    token_paces=(20, 40),
    probe_seconds=1,
    hold_seconds=2,
    runtime_readers=200,
    django_readers=50,
    reader_tokens=5,
    reader_interval=0.2,
    backlog_runs=2000,
    backlog_steps=4,
    rest_rounds=2,
    rest_calls=5,
    rest_rate_rounds=1,
    rest_threads=4,
    rest_seconds=0.5,
    graph_rounds=2,
    graph_calls=2,
    graph_steps=20,
    graph_tasks=20,
    graph_messages=50,
    graph_conversations=1,
    graph_waiting_rounds=1,
)

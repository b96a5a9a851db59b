"""What must be true of runs once everything has healed, whatever befell them."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from django_agent_runtime.types import RunState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from django_agent_runtime.types import Run, RunEvent


class Effect(NamedTuple):
    """One execution of a step's code."""

    run_id: str
    key: str
    attempt: int
    token: str


def find_breaches(run: Run, history: Sequence[RunEvent], effects: Iterable[Effect]) -> list[str]:
    """Every way in which what happened in a run of `mixed` is not what is promised.

    Args:
        run: The run's record, with its output.
        history: All its events.
        effects: What its steps did.
    """
    breaches = [*_find_gaps(history), *_find_repeated_steps(run, history, effects)]
    return find_wrong_history(run, history) + [f"{run.run_id}: {breach}" for breach in breaches]


def find_wrong_history(run: Run, history: Sequence[RunEvent]) -> list[str]:
    """What of it holds of every run."""
    breaches = [*_find_wrong_ends(run, history), *_find_wrong_attempts(history), *_find_records_again(history)]
    return [f"{run.run_id}: {breach}" for breach in breaches]


def _find_wrong_ends(run: Run, history: Sequence[RunEvent]) -> Iterable[str]:
    ends = [event for event in history if event.ends_run]
    if len(ends) != 1 or history[-1] is not ends[0]:
        yield f"it ends with {[event.type for event in ends]}, not all of them last"
        return
    (end,) = ends
    if end.type != f"run.{run.state}":
        yield f"its record says {run.state}, and its history {end.type}"
    if run.state is RunState.SUCCEEDED:
        if end.payload.get("output") != run.output:
            yield f"its record has the output {run.output}, and its history {end.payload}"
    elif run.error is None or (end.payload["reason"], end.payload["error"]) != (run.error.reason, run.error.message):
        yield f"its record has the error {run.error}, and its history {end.payload}"


def _find_wrong_attempts(history: Sequence[RunEvent]) -> Iterable[str]:
    sequences = [event.sequence for event in history]
    if sequences != sorted(set(sequences)):
        yield f"its sequences do not rise: {sequences}"
    current = 0
    for event in history:
        if event.type == "run.started":
            # A run that was parked goes on with the attempt it had.
            if event.attempt not in (current, current + 1):
                yield f"attempt {event.attempt} began after {current}"
            current = event.attempt
        elif event.attempt != current:
            yield f"{event.type} of attempt {event.attempt} came in attempt {current}"


def _find_gaps(history: Sequence[RunEvent]) -> Iterable[str]:
    """What each execution of the code told has no gap, no repeat, and nothing of another's in between."""
    told = [event for event in history if event.type == "progress"]
    executions = [
        (execution, list(events))
        for execution, events in itertools.groupby(told, lambda event: event.payload["execution"])
    ]
    names = [execution for execution, _ in executions]
    if len(names) != len(set(names)):
        yield f"executions speak at the same time: {names}"
    for execution, events in executions:
        numbers = [event.payload["n"] for event in events]
        if numbers != list(range(len(numbers))):
            yield f"execution {execution} is seen to tell {numbers}"
        if {event.payload["attempt"] for event in events} != {events[0].attempt}:
            yield f"execution {execution} was kept under another attempt than its own"


def _find_records_again(history: Sequence[RunEvent]) -> Iterable[str]:
    keys = Counter(event.payload["key"] for event in history if event.type == "step.completed")
    for key, count in keys.items():
        if count > 1:
            yield f"step {key} was recorded {count} times"


def _find_repeated_steps(run: Run, history: Sequence[RunEvent], effects: Iterable[Effect]) -> Iterable[str]:
    recorded = {event.payload["key"]: event for event in history if event.type == "step.completed"}
    done: dict[str, list[Effect]] = defaultdict(list)
    for effect in effects:
        done[effect.key].append(effect)
    for key, event in recorded.items():
        if key.startswith("work#") and event.payload["result"] not in {effect.token for effect in done[key]}:
            yield f"step {key} has a result that nobody made"
    for key, of_key in done.items():
        kept = recorded.get(key)
        late = [effect for effect in of_key if kept is not None and effect.attempt > kept.attempt]
        if late:
            yield f"step {key}, recorded in attempt {kept and kept.attempt}, was done again: {late}"
        # Only what was not recorded may be done again, and only by another attempt.
        twice = [attempt for attempt, count in Counter(effect.attempt for effect in of_key).items() if count > 1]
        if twice:
            yield f"step {key} was done more than once in the attempts {twice}"
    if run.state is RunState.SUCCEEDED and run.output is not None:
        results = [
            recorded[f"work#{number}"].payload["result"]
            for number in range(1, len(recorded) + 1)
            if f"work#{number}" in recorded
        ]
        if run.output["final_output"]["tokens"] != results:
            yield f"its steps returned {run.output['final_output']['tokens']}, and {results} are recorded"


def find_wrong_outcome(run: Run, history: Sequence[RunEvent], plan: Mapping[str, Any]) -> list[str]:
    """How a run ended otherwise than what it was to do allows."""
    allowed = {RunState.SUCCEEDED}
    if plan["for_ever"]:
        allowed = {RunState.CANCELLED}
    elif plan["refuses"] or plan["poison"]:
        allowed = {RunState.FAILED}
    elif plan["cancelled"]:
        allowed = {RunState.SUCCEEDED, RunState.CANCELLED}
    if run.state not in allowed:
        return [f"{run.run_id}: ended as {run.state} ({run.error}), planned was {plan}"]
    if run.state is not RunState.SUCCEEDED or run.output is None:
        return []
    output = run.output["final_output"]
    last = [event for event in history if event.type == "progress"][-1]
    expected = {
        "tokens": plan["rounds"],
        "answers": plan["questions"],
        "children": plan["children"],
        "told": last.payload["n"] + 1,
    }
    made = {name: value if isinstance(value, int) else len(value) for name, value in output.items()}
    wrong = [] if made == expected else [f"{run.run_id}: made {output}, planned was {plan}"]
    if output["answers"] != [{"to": number} for number in range(plan["questions"])]:
        wrong.append(f"{run.run_id}: got other answers than were given: {output['answers']}")
    if run.attempt < plan["fails_until"]:
        wrong.append(f"{run.run_id}: succeeded in attempt {run.attempt}, before it could: {plan}")
    return wrong

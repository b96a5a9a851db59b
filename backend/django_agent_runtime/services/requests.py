"""What callers may ask for: what of it can be kept, and what was asked before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import timezone
from typing import TYPE_CHECKING, Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Q

from django_agent_runtime._arguments import check_time
from django_agent_runtime.exceptions import IdempotencyConflict, InvalidRequest, InvalidValue, PermissionDenied
from django_agent_runtime.models import MAX_AGENT_KEY_CHARACTERS, MAX_IDEMPOTENCY_KEY_CHARACTERS, AgentRun
from django_agent_runtime.projection import is_storable

if TYPE_CHECKING:
    from datetime import datetime

    from django_agent_runtime.principals import Principal


def find_repeated(run: AgentRun) -> AgentRun | None:
    """The run that was asked for before in the same words, under the same key of the same owner, if there is one.

    Raises:
        IdempotencyConflict: The key was used with another request.
    """
    if not run.idempotency_key:
        return None
    of_owner = Q(user_id=run.user_id, anonymous_session_id=run.anonymous_session_id)
    earlier = AgentRun.objects.filter(of_owner, idempotency_key=run.idempotency_key).first()
    if earlier is not None and earlier.payload_hash != run.payload_hash:
        raise IdempotencyConflict(
            "The idempotency key was used before, with another request.", metadata={"run_id": str(earlier.pk)}
        )
    return earlier


def hash_request(*parts: Any) -> str:
    """One text for all that makes two requests the same."""
    text = json.dumps(parts, cls=DjangoJSONEncoder, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def check_may_change(actor: Principal, run: AgentRun) -> None:
    """Refuse who is not the owner of a run.

    Raises:
        PermissionDenied: The actor may not change it.
    """
    if not actor.may_change(run):
        raise PermissionDenied("Only the owner of a run may change it.")


def check_request(
    agent_key: str, run_input: Mapping[str, Any], metadata: Mapping[str, Any] | None, idempotency_key: str
) -> None:
    """Refuse a run that cannot be kept as it was asked for.

    Raises:
        InvalidRequest: Naming each value at fault.
    """
    check_values(
        agent_key=agent_key,
        messages=run_input["messages"],
        params=run_input["params"],
        metadata=dict(metadata or {}),
    )
    if not 1 <= len(agent_key) <= MAX_AGENT_KEY_CHARACTERS:
        raise InvalidRequest.of("agent_key", f"must have 1 to {MAX_AGENT_KEY_CHARACTERS} characters")
    check_idempotency_key(idempotency_key)


def check_idempotency_key(idempotency_key: str) -> None:
    """Refuse a key that cannot be kept.

    Raises:
        InvalidRequest: It is too long, or has what no database keeps.
    """
    check_values(idempotency_key=idempotency_key)
    if len(idempotency_key) > MAX_IDEMPOTENCY_KEY_CHARACTERS:
        reason = f"must have at most {MAX_IDEMPOTENCY_KEY_CHARACTERS} characters"
        raise InvalidRequest.of("idempotency_key", reason)


def format_start(run_at: datetime, delay: float | None) -> str:
    """The time before which a run does not begin, as its row has it.

    Raises:
        InvalidValue: It is not one moment everywhere, or there is a delay too.
    """
    check_time("run_at", run_at)
    if delay is not None:
        raise InvalidValue.of("run_at", "contradicts delay: give one of them")
    try:
        return run_at.astimezone(timezone.utc).isoformat()
    except OverflowError:
        raise InvalidValue.of("run_at", "is beyond the calendar") from None


def check_values(**values: Any) -> None:
    """Refuse what a database cannot keep as it is.

    Raises:
        InvalidRequest: Naming each value at fault.
    """
    reason = "has a NUL character, half of a surrogate pair, a number beyond a double, or more than 200 levels"
    violations = [(name, reason) for name, value in values.items() if not is_storable(value)]
    if violations:
        raise InvalidRequest("Some values cannot be kept.", violations=violations)

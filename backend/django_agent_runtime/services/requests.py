"""What callers may ask for: what of it can be kept, and what was asked before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.core.serializers.json import DjangoJSONEncoder

from django_agent_runtime.exceptions import IdempotencyConflict, InvalidRequest, PermissionDenied
from django_agent_runtime.models import MAX_AGENT_KEY_CHARACTERS, MAX_IDEMPOTENCY_KEY_CHARACTERS, AgentRun
from django_agent_runtime.projection import is_storable

if TYPE_CHECKING:
    from django_agent_runtime.principals import Principal


def find_repeated(actor: Principal, idempotency_key: str) -> AgentRun | None:
    """The actor's run under the key, if there is one."""
    return AgentRun.objects.filter(**actor.owner_fields(), idempotency_key=idempotency_key).first()


def check_repeated(earlier: AgentRun, payload_hash: str) -> AgentRun:
    """The earlier run, if it was asked for in the same words.

    Raises:
        IdempotencyConflict: It was another request.
    """
    if earlier.payload_hash != payload_hash:
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
        idempotency_key=idempotency_key,
    )
    violations = []
    if not 1 <= len(agent_key) <= MAX_AGENT_KEY_CHARACTERS:
        violations.append(("agent_key", f"must have 1 to {MAX_AGENT_KEY_CHARACTERS} characters"))
    if len(idempotency_key) > MAX_IDEMPOTENCY_KEY_CHARACTERS:
        violations.append(("idempotency_key", f"must have at most {MAX_IDEMPOTENCY_KEY_CHARACTERS} characters"))
    if violations:
        raise InvalidRequest("The run does not fit.", violations=violations)


def check_values(**values: Any) -> None:
    """Refuse what a database cannot keep as it is.

    Raises:
        InvalidRequest: Naming each value at fault.
    """
    reason = "has a NUL character, half of a surrogate pair, a number beyond a double, or more than 200 levels"
    violations = [(name, reason) for name, value in values.items() if not is_storable(value)]
    if violations:
        raise InvalidRequest("Some values cannot be kept.", violations=violations)

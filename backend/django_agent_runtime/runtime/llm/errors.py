"""What goes wrong between an agent and a model provider, told apart by what to do about it.

The texts are safe to show: they hold nothing of the request, the answer or the key. The SDK's own error is the cause.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django_agent_runtime.runtime.errors import AgentError, DoNotRetry, RetryAfter

__all__ = ["ModelError", "ModelRateLimited", "ModelRejected", "ModelUnavailable", "translate_errors"]

_TOO_MANY_REQUESTS = 429
_CLIENT_ERRORS = range(400, 500)
# The request was not processed, or collided with another: the same may work next time.
_WORTH_ANOTHER_TRY = {408, 409, 425, _TOO_MANY_REQUESTS}
_FAILURES = range(400, 600)
_STATUS_OF = {
    "rate_limit_error": _TOO_MANY_REQUESTS,
    "rate_limit_exceeded": _TOO_MANY_REQUESTS,
    "overloaded_error": 529,
}
# The SDKs' own, those of httpx which they let through once an answer has begun, and a stream's end before the answer's,
# which no SDK minds.
_NO_ANSWER = {"APIError", "APIConnectionError", "Timeout", "TransportError", "EOFError"}
_NOT_ALLOWED = (401, 403)
_NO_QUOTA = {"insufficient_quota", "billing_hard_limit_reached"}


class ModelError(AgentError):
    """A provider did not answer.

    Attributes:
        provider: `openai`, `anthropic` or `litellm`.
        model: The model that was asked.
        status_code: Of the provider's HTTP answer; None when there was none.
    """

    provider: str = ""
    model: str = ""
    status_code: int | None = None


class ModelUnavailable(ModelError):
    """It cannot be reached, failed, or took too long. Another attempt may succeed."""


class ModelRateLimited(ModelError, RetryAfter):
    """Too many requests or tokens; `seconds` is what the provider asks to wait."""

    def __init__(self, seconds: float, message: str = "") -> None:
        RetryAfter.__init__(self, seconds, message)


class ModelRejected(ModelError, DoNotRetry):
    """The key, the model or the request is not accepted, or there is no quota left: no attempt will succeed."""


@contextmanager
def translate_errors(provider: str, model: str) -> Iterator[None]:
    """Raise what an SDK raises about its provider as a `ModelError`; others pass."""
    try:
        yield
    except AgentError:
        raise
    except Exception as error:
        made = _translate(error, f"model {model!r} at {provider}")
        if made is None:
            raise
        made.provider, made.model = provider, model
        made.status_code = _read_status(error)
        raise made from error


def _translate(error: Exception, subject: str) -> ModelError | None:
    """All three SDKs have one author's shape: a class per kind, with the response where there was one."""
    status = _read_status(error)
    if status is None:
        is_theirs = bool({base.__name__ for base in type(error).__mro__} & _NO_ANSWER)
        return ModelUnavailable(f"{subject} cannot be reached, or broke off its answer") if is_theirs else None
    if status == _TOO_MANY_REQUESTS:
        return _translate_limit(error, subject)
    if status in _CLIENT_ERRORS and status not in _WORTH_ANOTHER_TRY:
        if status in _NOT_ALLOWED:
            return ModelRejected(f"{subject} does not accept the key, or not for this model (HTTP {status})")
        return ModelRejected(f"{subject} does not accept the model or the request (HTTP {status})")
    return ModelUnavailable(f"{subject} failed (HTTP {status})")


def _translate_limit(error: Exception, subject: str) -> ModelError:
    if _read_codes(error) & _NO_QUOTA:
        return ModelRejected(f"{subject} cannot be asked: the account has no quota left (HTTP 429)")
    seconds = _read_retry_after(error)
    if seconds is None:
        return ModelUnavailable(f"{subject} is rate limited (HTTP 429)")
    return ModelRateLimited(seconds, f"{subject} is rate limited; try again in {seconds:g} s (HTTP 429)")


def _read_status(error: Exception) -> int | None:
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and status in _FAILURES:
        return status
    # An error inside an answer that began well has its status in words.
    return next((known for code, known in _STATUS_OF.items() if code in _read_codes(error)), None)


def _read_codes(error: Exception) -> set[str]:
    body = getattr(error, "body", None)
    parts = [body, body.get("error")] if isinstance(body, dict) else []
    found = [getattr(error, "code", None), getattr(error, "type", None)]
    found += [part.get(key) for part in parts if isinstance(part, dict) for key in ("code", "type")]
    return {code for code in found if isinstance(code, str)}


def _read_retry_after(error: Exception) -> float | None:
    # LiteLLM's errors have a response that was made up, and the true headers beside it.
    headers = getattr(error, "litellm_response_headers", None)
    headers = headers or getattr(getattr(error, "response", None), "headers", None) or {}
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1)):
        try:
            seconds = float(headers.get(name) or 0) * scale
        except ValueError:
            # A date, which clocks that differ make useless.
            continue
        if 0 < seconds < float("inf"):
            return seconds
    return None

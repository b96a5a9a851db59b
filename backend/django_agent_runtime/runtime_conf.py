"""The setting `DJANGO_AGENT_RUNTIME`: how this project's agents run.

None is the default, whatever the key, and a number may be the text of one, as the environment has it.

`validate` says what is wrong with a mapping and `load` turns a valid one into `AgentRuntimeSettings`; both are pure,
so that system checks, workers and tests judge by the same rules. Nothing here imports Django until
`get_agent_runtime_settings` is called.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from django_agent_runtime._redaction import DEFAULT_REDACTED, is_member_pattern
from django_agent_runtime.conf import MAX_SECONDS, Problem
from django_agent_runtime.runtime.interfaces import EventType, Visibility

__all__ = [
    "DEFAULT_VISIBILITY",
    "AgentRuntimeSettings",
    "get_agent_runtime_settings",
    "load",
    "validate",
    "visibility_of",
]

DEFAULT_VISIBILITY: Mapping[str, Visibility] = MappingProxyType(
    {
        EventType.RUN_QUEUED.value: Visibility.INTERNAL,
        EventType.RUN_STARTED.value: Visibility.INTERNAL,
        EventType.RUN_SUCCEEDED.value: Visibility.INTERNAL,
        EventType.RUN_FAILED.value: Visibility.USER,
        EventType.RUN_CANCELLED.value: Visibility.USER,
        EventType.RUN_TIMED_OUT.value: Visibility.USER,
        EventType.RUN_HEARTBEAT.value: Visibility.INTERNAL,
        EventType.RUN_RETRYING.value: Visibility.USER,
        EventType.RUN_INTERRUPTED.value: Visibility.USER,
        EventType.RUN_RESUMED.value: Visibility.USER,
        EventType.RUN_WAITING.value: Visibility.INTERNAL,
        EventType.TOOL_CALL.value: Visibility.DEBUG,
        EventType.TOOL_RESULT.value: Visibility.DEBUG,
        EventType.ASSISTANT_MESSAGE.value: Visibility.USER,
        EventType.ASSISTANT_DELTA.value: Visibility.USER,
        EventType.STATE_CHECKPOINT.value: Visibility.INTERNAL,
        EventType.STEP_COMPLETED.value: Visibility.INTERNAL,
        EventType.ERROR.value: Visibility.USER,
    }
)
"""What an event's type alone says of who sees it. A type that is not here is for `user`."""


@dataclass(frozen=True, slots=True)
class AgentRuntimeSettings:
    """How agents run. Each field is a key of the setting, in lower case."""

    queue_backend: str = "postgres"
    """Accepted for code that sets it. Whatever it is, runs are queued in the runtime's journal."""
    event_bus_backend: str = "db"
    """Accepted for code that sets it. Whatever it is, events go through the runtime's journal."""
    redis_url: str | None = None
    """Accepted for code that sets it; nothing connects to it."""
    model_provider: str = "openai"
    default_model: str = "gpt-4o"
    openai_api_key: str | None = field(default=None, repr=False)
    """None: OPENAI_API_KEY of the environment."""
    anthropic_api_key: str | None = field(default=None, repr=False)
    """None: ANTHROPIC_API_KEY of the environment."""
    lease_ttl_seconds: float = 30
    """After so long without a word of its worker, a run is given to another."""
    heartbeat_interval_seconds: float = 10
    """How often a worker is heard of at least; a third of the lease where that is less."""
    run_timeout_seconds: float = 900
    """For one attempt of a run."""
    step_timeout_seconds: float | None = None
    """For a `ctx.step`; None: as long as the run may take."""
    max_retries: int = 3
    """Attempts in all. The setting may be 0, for none beyond the first: that is 1 here."""
    default_max_attempts: int = 3
    """Another name of `max_retries`; where one of them is set, the other is the same."""
    retry_backoff_base: float = 2
    """Seconds before the second attempt, and how many times longer each wait is than the one before."""
    retry_backoff_max: float = 300
    """Seconds, the longest wait."""
    default_processes: int = 1
    """Worker processes of `runagent`."""
    default_concurrency: int = 10
    """Runs that a worker process executes at a time."""
    runtime_registry: tuple[Any, ...] = ()
    """Where agents are found: `runtime.registry.discover` says what an entry may be."""
    anonymous_session_model: str | None = None
    """`app_label.Model`."""
    event_visibility: Mapping[str, Visibility] = field(default_factory=lambda: DEFAULT_VISIBILITY)
    """By event type, the defaults included."""
    debug_mode: bool = False
    """Whether events for `debug` are shown as those for `user` are."""
    langfuse_enabled: bool = False
    """Accepted for code that sets it, and does nothing: traces are OpenTelemetry's, see `tracing.configure`."""
    sse_keepalive_seconds: float = 15
    """After so long without an event, a stream says that it is still there."""
    public_stream_url: str | None = None
    """Where browsers reach the runtime's HTTP port, for streams straight from it; None: nowhere."""
    trace_content: str = "asked"
    """Of which runs inputs and outputs go into the spans of workers: `never`, `asked` (metadata `{"trace": true}`)
    or `always`."""
    trace_redact: tuple[str, ...] = DEFAULT_REDACTED
    """Names of JSON members whose values are masked there; * stands for any characters."""

    @property
    def heartbeat_seconds(self) -> float:
        """How often a worker must be heard of, for its leases to survive two lost heartbeats."""
        return min(self.heartbeat_interval_seconds, self.lease_ttl_seconds / 3)


def validate(mapping: object) -> list[Problem]:
    """Everything wrong with `mapping`, in the order of its keys; empty when it can be used."""
    if not isinstance(mapping, Mapping):
        return [Problem("", f"must be a dict, not {type(mapping).__name__}", "DJANGO_AGENT_RUNTIME = {}")]
    mapping = _read_values(mapping)
    problems = []
    for key, value in mapping.items():
        rule = _RULES.get(key)
        if rule is None:
            problems.append(Problem(str(key), "is not a setting", f"Known settings: {', '.join(_RULES)}."))
        elif not rule.accepts(value):
            shown = f"a {type(value).__name__}" if key in _SECRETS else repr(value)
            problems.append(Problem(key, f"is {shown}, must be {rule.expects}", rule.hint))
    attempts, retries = mapping.get("DEFAULT_MAX_ATTEMPTS"), mapping.get("MAX_RETRIES")
    if "DEFAULT_MAX_ATTEMPTS" in mapping and "MAX_RETRIES" in mapping and attempts != (retries or 1):
        message = f"is {attempts!r} while MAX_RETRIES is {retries!r}"
        problems.append(Problem("DEFAULT_MAX_ATTEMPTS", message, "They are two names of one setting: keep one."))
    return problems


def load(mapping: Mapping[str, Any]) -> AgentRuntimeSettings:
    """The settings in `mapping`, defaults filled in. Keys that are no setting are left out.

    Raises:
        ValueError: One sentence for every other problem that `validate` finds.
    """
    problems = [problem for problem in validate(mapping) if problem.key in _RULES or not problem.key]
    if problems:
        raise ValueError("; ".join(f"DJANGO_AGENT_RUNTIME {p.key!r} {p.message} ({p.hint})" for p in problems))
    values = {key.lower(): value for key, value in _read_values(mapping).items() if key in _RULES}
    if values.get("max_retries") == 0:
        values["max_retries"] = 1
    for name, twin in (("max_retries", "default_max_attempts"), ("default_max_attempts", "max_retries")):
        if name in values:
            values.setdefault(twin, values[name])
    values["runtime_registry"] = tuple(values.get("runtime_registry") or ())
    if "trace_redact" in values:
        values["trace_redact"] = tuple(values["trace_redact"] or ())
    overrides = {str(key): Visibility(value) for key, value in (values.get("event_visibility") or {}).items()}
    values["event_visibility"] = MappingProxyType({**DEFAULT_VISIBILITY, **overrides})
    for optional in _OPTIONAL:
        values[optional] = values.get(optional) or None
    if values["public_stream_url"]:
        values["public_stream_url"] = values["public_stream_url"].rstrip("/")
    return AgentRuntimeSettings(**values)


def get_agent_runtime_settings() -> AgentRuntimeSettings:
    """Those of this Django project; the defaults where there is none.

    Raises:
        ImproperlyConfigured: They are wrong.
    """
    try:
        from django.conf import settings  # noqa: PLC0415  # tests of agents need no Django
        from django.core.exceptions import ImproperlyConfigured  # noqa: PLC0415
    except ImportError:
        return AgentRuntimeSettings()
    given = getattr(settings, "DJANGO_AGENT_RUNTIME", {}) if settings.configured or _has_project() else {}
    try:
        return load(given)
    except ValueError as error:
        raise ImproperlyConfigured(str(error)) from error


def visibility_of(event_type: str, settings: AgentRuntimeSettings) -> Visibility:
    """Who sees an event that does not say so itself."""
    return settings.event_visibility.get(str(event_type), Visibility.USER)


class _Rule(NamedTuple):
    accepts: Callable[[Any], bool]
    expects: str
    hint: str
    number: type[int | float] | None = None
    """What the text of a number is read as."""


def _read_values(mapping: Mapping[Any, Any]) -> dict[Any, Any]:
    """What is set, texts of numbers as numbers."""
    return {key: _read_number(key, value) for key, value in mapping.items() if value is not None or key not in _RULES}


def _read_number(key: Any, value: Any) -> Any:
    rule = _RULES.get(key)
    if rule is None or rule.number is None or not isinstance(value, str):
        return value
    try:
        return rule.number(value)
    except ValueError:
        return value


def _has_project() -> bool:
    import os  # noqa: PLC0415

    return bool(os.environ.get("DJANGO_SETTINGS_MODULE"))


def _choice(default: str, *choices: str) -> _Rule:
    expects = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
    return _Rule(lambda value: value in choices, expects, f"The default is {default!r}.")


def _seconds(default: float | None, least: float, most: float = MAX_SECONDS) -> _Rule:
    def accepts(value: Any) -> bool:
        # NaN is not between anything.
        return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most

    return _Rule(accepts, f"a number of seconds from {least:g} to {most:g}", f"The default is {default}.", float)


def _whole(default: int, most: int, *, least: int = 1) -> _Rule:
    def accepts(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    return _Rule(accepts, f"a whole number from {least} to {most}", f"The default is {default}.", int)


def _text(hint: str, pattern: str = r"\S(?:.*\S)?", *, expects: str = "a text", optional: bool = True) -> _Rule:
    def accepts(value: Any) -> bool:
        if value == "":
            return optional
        return isinstance(value, str) and re.fullmatch(pattern, value) is not None

    return _Rule(accepts, expects, hint)


def _flag() -> _Rule:
    return _Rule(lambda value: isinstance(value, bool), "True or False", "The default is False.")


def _is_registry(value: Any) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        return False
    return all(not isinstance(entry, str) or re.fullmatch(r"[\w.]+(?::[\w.]+)?", entry) for entry in value)


def _is_redaction(value: Any) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        return False
    return all(is_member_pattern(name) for name in value)


def _is_visibility(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    levels = {level.value for level in Visibility}
    return all(isinstance(key, str) and isinstance(level, str) and str(level) in levels for key, level in value.items())


def _is_url(value: Any) -> bool:
    if value == "":
        return True
    if not isinstance(value, str) or re.search(r"\s", value):
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and not (parts.query or parts.fragment)
    except ValueError:
        return False


_KEY_HINT = "The key itself, read from the environment rather than written into a file."
_SECRETS = {"OPENAI_API_KEY", "ANTHROPIC_API_KEY", "REDIS_URL"}
_OPTIONAL = ("redis_url", "openai_api_key", "anthropic_api_key", "anonymous_session_model", "public_stream_url")
_MOST_ATTEMPTS = 100
_LONGEST_LEASE = 3600
# It is also the multiplier of the pauses, which the runtime bounds.
_LARGEST_MULTIPLIER = 1000

_RULES: dict[str, _Rule] = {
    "QUEUE_BACKEND": _choice("postgres", "postgres", "redis_streams"),
    "EVENT_BUS_BACKEND": _choice("db", "db", "redis"),
    "REDIS_URL": _text("Nothing connects to it: the runtime has its own journal."),
    "MODEL_PROVIDER": _choice("openai", "openai", "anthropic", "litellm", "offline"),
    "DEFAULT_MODEL": _text("The default is 'gpt-4o'.", optional=False),
    "OPENAI_API_KEY": _text(_KEY_HINT),
    "ANTHROPIC_API_KEY": _text(_KEY_HINT),
    "LEASE_TTL_SECONDS": _seconds(30, 1, _LONGEST_LEASE),
    "HEARTBEAT_INTERVAL_SECONDS": _seconds(10, 0.1, _LONGEST_LEASE),
    "RUN_TIMEOUT_SECONDS": _seconds(900, 0.001),
    "STEP_TIMEOUT_SECONDS": _seconds(None, 0.001),
    "MAX_RETRIES": _whole(3, _MOST_ATTEMPTS, least=0),
    "DEFAULT_MAX_ATTEMPTS": _whole(3, _MOST_ATTEMPTS),
    "RETRY_BACKOFF_BASE": _seconds(2, 1, _LARGEST_MULTIPLIER),
    "RETRY_BACKOFF_MAX": _seconds(300, 0.001),
    "DEFAULT_PROCESSES": _whole(1, 1000),
    "DEFAULT_CONCURRENCY": _whole(10, 10_000),
    "RUNTIME_REGISTRY": _Rule(
        _is_registry, "a list of import paths", "['myapp.agents:register_agents'], or paths of agents or modules."
    ),
    "ANONYMOUS_SESSION_MODEL": _text(
        "As in AUTH_USER_MODEL: 'accounts.AnonymousSession'.", r"\w+\.\w+", expects="'app_label.Model'"
    ),
    "EVENT_VISIBILITY": _Rule(
        _is_visibility,
        "a dict of event types, each 'internal', 'debug' or 'user'",
        "Types that it leaves out are as they are without it: {'tool.call': 'user'}.",
    ),
    "DEBUG_MODE": _flag(),
    "LANGFUSE_ENABLED": _flag(),
    "SSE_KEEPALIVE_SECONDS": _seconds(15, 0.1, 3600),
    "PUBLIC_STREAM_URL": _Rule(
        _is_url, "an http or https URL without a query", "'https://runs.example.com', for browsers to reach."
    ),
    "TRACE_CONTENT": _choice("asked", "never", "asked", "always"),
    "TRACE_REDACT": _Rule(
        _is_redaction, "a list of names of JSON members", "['password', '*_key'], where * stands for any characters."
    ),
}

if {name.lower() for name in _RULES} != {item.name for item in fields(AgentRuntimeSettings)}:
    raise AssertionError("runtime_conf: every setting needs a rule")

"""The agents of this process, by their keys."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from django_agent_runtime.exceptions import AgentNotFound
from django_agent_runtime.runtime.decorators import FunctionAgent, agent
from django_agent_runtime.runtime.interfaces import AgentRuntime
from django_agent_runtime.runtime_conf import get_agent_runtime_settings

__all__ = [
    "agent",
    "clear_registry",
    "discover",
    "get_runtime",
    "list_runtimes",
    "register_runtime",
    "unregister",
]

_MAX_KEY_BYTES = 200


def register_runtime(
    agent: AgentRuntime | type[AgentRuntime] | Callable[[Any], Any],  # the parameter's natural name
    key: str | None = None,
) -> AgentRuntime:
    """Add an agent to those of this process.

    Registering the same again changes nothing, and another instance of the same class takes its place.

    Args:
        agent: An agent; a class of agents, which is called without arguments; or a function of the context.
        key: None: the agent's own.

    Returns:
        The registered agent.

    Raises:
        TypeError: It is none of these.
        ValueError: Another agent has this key, or it is none: 1 to 200 bytes of text.
    """
    made = _make_agent(agent, key)
    return _registry.add(made.key if key is None else key, made)


def unregister(key: str) -> None:
    """Take an agent out; nothing happens where there is none."""
    _registry.remove(key)


def get_runtime(key: str) -> AgentRuntime:
    """The agent with this key, after `discover`.

    Raises:
        AgentNotFound: There is none (a LookupError); the text names those there are.
        ImproperlyConfigured: As in `discover`.
    """
    discover()
    found = _registry.agents.get(key)
    if found is None:
        known = ", ".join(sorted(_registry.agents))
        raise AgentNotFound(
            f"no agent {key!r} is registered here; there are: {known or 'none'}", metadata={"known": known}
        )
    return found


def list_runtimes() -> dict[str, AgentRuntime]:
    """All agents by key, after `discover`, in the order of their keys.

    Raises:
        ImproperlyConfigured: As in `discover`.
    """
    discover()
    return dict(sorted(_registry.agents.items()))


def discover() -> None:
    """Register what RUNTIME_REGISTRY of the settings names: once in a process, whoever calls it how often.

    An entry is an import path, `package.module:name` or `package.module.name`. What it names may be a function
    without parameters, which is called and registers agents; an agent, a class of agents or a module, whose agents
    (those in its variables) are registered.

    Raises:
        ImproperlyConfigured: An entry cannot be loaded; the text names it. The entries before it stay registered, and
            the next call goes on with it.
    """
    _registry.discover()


def clear_registry() -> None:
    """Forget every agent, also that they were discovered; for tests."""
    _registry.clear()


class _Registry:
    def __init__(self) -> None:
        self.agents: dict[str, AgentRuntime] = {}
        self._lock = threading.Lock()
        # Another than the first, which what is being loaded needs in whichever thread; and entered again by it.
        self._discovery = threading.RLock()
        self._loading = False
        self._loaded: set[object] = set()
        self._done = False

    def add(self, key: object, made: AgentRuntime) -> AgentRuntime:
        if not isinstance(key, str) or not 1 <= len(key.encode(errors="replace")) <= _MAX_KEY_BYTES:
            raise ValueError(f"{made!r} has the key {key!r}; it must be a text of 1 to {_MAX_KEY_BYTES} bytes")
        with self._lock:
            there = self.agents.get(key)
            if there is not None and _identity(there) != _identity(made):
                raise ValueError(f"two agents have the key {key!r}: {there!r} and {made!r}")
            self.agents[key] = made
        return made

    def remove(self, key: str) -> None:
        with self._lock:
            self.agents.pop(key, None)

    def clear(self) -> None:
        with self._discovery, self._lock:
            self.agents.clear()
            self._loaded.clear()
            self._done = False

    def _is_busy(self) -> bool:
        """Whether there is nothing left to load, or it is being loaded and asks."""
        return self._done or self._loading

    def discover(self) -> None:
        if self._done:
            return
        with self._discovery:
            if self._is_busy():
                return
            self._loading = True
            try:
                for entry in get_agent_runtime_settings().runtime_registry:
                    if entry not in self._loaded:
                        _load(entry)
                        self._loaded.add(entry)
                self._done = True
            finally:
                self._loading = False


_registry = _Registry()


def _identity(made: AgentRuntime) -> object:
    """What two agents with one key must have in common: by default their class."""
    return getattr(made, "identity", type(made))


def _make_agent(given: object, key: str | None) -> AgentRuntime:
    if isinstance(given, AgentRuntime):
        return given
    if inspect.isclass(given) and issubclass(given, AgentRuntime):
        return given()
    if callable(given) and not inspect.isclass(given):
        return FunctionAgent(given, key=key)
    raise TypeError(f"{given!r} is no agent: it must be an AgentRuntime, a class of them, or a function of the context")


def _load(entry: object) -> None:
    from django.core.exceptions import ImproperlyConfigured  # noqa: PLC0415  # there are entries, so there is Django

    try:
        found = _import(entry) if isinstance(entry, str) else entry
        if isinstance(found, ModuleType):
            _register_module(found)
        elif isinstance(found, AgentRuntime) or inspect.isclass(found):
            register_runtime(found)
        elif inspect.iscoroutinefunction(found):
            raise TypeError("it is a coroutine function; what registers agents is a plain one")  # noqa: TRY301
        elif callable(found):
            found()
        else:
            raise TypeError(f"it is a {type(found).__name__}, neither an agent nor a function")  # noqa: TRY301
    except Exception as error:
        raise ImproperlyConfigured(
            f"DJANGO_AGENT_RUNTIME['RUNTIME_REGISTRY']: {entry!r} cannot be loaded: {type(error).__name__}: {error}"
        ) from error


def _import(path: str) -> Any:
    module, colon, name = path.partition(":")
    if not colon:
        # A module of that name, or else a name in the module before the last dot.
        parent, dot, last = path.rpartition(".")
        if not dot or _is_module(path, parent):
            return importlib.import_module(path)
        module, name = parent, last
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _is_module(path: str, parent: str) -> bool:
    if not hasattr(importlib.import_module(parent), "__path__"):
        return False
    return importlib.util.find_spec(path) is not None


def _register_module(module: ModuleType) -> None:
    found = [value for value in vars(module).values() if isinstance(value, AgentRuntime)]
    if not found:
        raise ValueError(f"module {module.__name__!r} has no agents in its variables")
    for made in found:
        register_runtime(made)

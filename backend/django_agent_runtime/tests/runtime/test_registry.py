from __future__ import annotations

import importlib.machinery
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_agent_runtime.exceptions import AgentNotFound
from django_agent_runtime.runtime.interfaces import AgentRuntime, RunContext, RunResult
from django_agent_runtime.runtime.registry import (
    agent,
    clear_registry,
    discover,
    get_runtime,
    list_runtimes,
    register_runtime,
    unregister,
)

if TYPE_CHECKING:
    from collections.abc import Callable


class Chat(AgentRuntime):
    key = "chat"

    async def run(self, ctx: RunContext) -> RunResult:
        return RunResult()


class OtherChat(Chat):
    pass


@pytest.fixture
def make_module(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    def make(name: str, **content: Any) -> ModuleType:
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return make


def test_an_agent_is_found_by_its_key() -> None:
    chat = register_runtime(Chat())
    assert get_runtime("chat") is chat
    assert register_runtime(Chat, key="second").key == "chat"
    assert list(list_runtimes()) == ["chat", "second"]
    unregister("chat")
    assert list(list_runtimes()) == ["second"]


def test_unknown_key_names_those_there_are() -> None:
    register_runtime(Chat())
    with pytest.raises(LookupError, match=r"'hcat'.*chat") as error:
        get_runtime("hcat")
    assert isinstance(error.value, AgentNotFound)


def test_function_becomes_an_agent() -> None:
    def greet(ctx: Any) -> str:
        return "hello"

    made = register_runtime(greet)
    assert (made.key, register_runtime(greet, key="other").key) == ("greet", "other")


def test_two_agents_of_one_key_are_refused() -> None:
    first = register_runtime(Chat())
    with pytest.raises(ValueError, match="two agents have the key 'chat'"):
        register_runtime(OtherChat())
    assert get_runtime("chat") is first


def test_two_functions_of_one_key_are_refused() -> None:
    register_runtime(agent(key="x")(lambda _: None))
    with pytest.raises(ValueError, match="two agents have the key 'x'"):
        register_runtime(agent(key="x")(lambda _: None))


def test_registering_again_takes_the_place() -> None:
    register_runtime(Chat())
    again = register_runtime(Chat())
    assert get_runtime("chat") is again


@pytest.mark.parametrize("key", ["", "k" * 201, 7])
def test_key_that_is_none(key: Any) -> None:
    with pytest.raises(ValueError, match="1 to 200 bytes"):
        register_runtime(Chat(), key=key)


@pytest.mark.parametrize("given", [7, "chat", dict])
def test_what_is_no_agent_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match="is no agent"):
        register_runtime(given)


def register_chat() -> None:
    register_runtime(Chat())


@pytest.mark.parametrize(
    "entry",
    [
        "shop.agents:register_agents",
        "shop.agents.register_agents",
        "shop.agents:Chat",
        "shop.agents.chat",
        "shop.agents",
    ],
)
def test_entries_of_every_form(entry: str, settings: Any, make_module: Callable[..., ModuleType]) -> None:
    agents = make_module("shop.agents", register_agents=register_chat, Chat=Chat, chat=Chat())
    agents.__spec__ = _spec("shop.agents")
    make_module("shop", agents=agents, __path__=[])
    settings.DJANGO_AGENT_RUNTIME = {"RUNTIME_REGISTRY": [entry]}
    assert list(list_runtimes()) == ["chat"]


def test_decorated_function_is_an_entry(settings: Any, make_module: Callable[..., ModuleType]) -> None:
    make_module("shop", greet=agent(key="greeter")(lambda _: "hello"))
    settings.DJANGO_AGENT_RUNTIME = {"RUNTIME_REGISTRY": ["shop:greet"]}
    assert get_runtime("greeter").key == "greeter"


@pytest.mark.parametrize(
    ("entry", "cause"),
    [
        ("nowhere.agents:register", "ModuleNotFoundError"),
        ("shop:missing", "AttributeError"),
        ("shop:number", "TypeError"),
        ("shop:breaks", "ZeroDivisionError"),
        ("shop", "has no agents"),
        ("shop:later", "coroutine function"),
    ],
)
def test_bad_entry_is_named(entry: str, cause: str, settings: Any, make_module: Callable[..., ModuleType]) -> None:

    async def later() -> None: ...

    make_module("shop", number=7, breaks=lambda: 1 / 0, good=register_chat, later=later)
    settings.DJANGO_AGENT_RUNTIME = {"RUNTIME_REGISTRY": ["shop:good", entry]}
    with pytest.raises(ImproperlyConfigured, match=f"'{entry}' cannot be loaded: .*{cause}"):
        discover()
    with pytest.raises(ImproperlyConfigured, match=entry):
        get_runtime("chat")


def test_discovery_happens_once_whoever_asks(settings: Any, make_module: Callable[..., ModuleType]) -> None:
    calls: list[int] = []
    entered, go_on = threading.Event(), threading.Event()

    def register() -> None:
        calls.append(1)
        # As a register function does that asks what there is.
        assert list_runtimes() == {}
        entered.set()
        assert go_on.wait(30)
        register_chat()

    make_module("shop", register=register)
    settings.DJANGO_AGENT_RUNTIME = {"RUNTIME_REGISTRY": ["shop:register"]}
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append(list(list_runtimes()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert entered.wait(30)
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert found == [["chat"]] * 8
    assert calls == [1]


def test_entry_that_failed_is_tried_again(settings: Any, make_module: Callable[..., ModuleType]) -> None:
    calls: list[str] = []
    module = make_module("shop", first=lambda: calls.append("first"))
    settings.DJANGO_AGENT_RUNTIME = {"RUNTIME_REGISTRY": ["shop:first", "shop:second"]}
    with pytest.raises(ImproperlyConfigured):
        discover()
    vars(module)["second"] = lambda: calls.append("second")
    discover()
    assert calls == ["first", "second"]
    clear_registry()
    discover()
    assert calls == ["first", "second", "first", "second"]


def _spec(name: str) -> Any:
    return importlib.machinery.ModuleSpec(name, None)

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import json
import sys
import threading
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, TypedDict

import pytest
from pydantic import BaseModel, Field

from django_agent_runtime.runtime.current import use_context
from django_agent_runtime.runtime.interfaces import (
    AgentError,
    RunContext,
    Tool,
    ToolArgumentsError,
    ToolNotFound,
    ToolRegistry,
)
from django_agent_runtime.runtime.local import LocalRunContext
from django_agent_runtime.runtime.sync import SyncRunContext


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    """Where to."""

    street: str
    zip: int = Field(description="Five digits")


class Place(TypedDict):
    town: str


@dataclass
class Found:
    title: str
    when: dt.date


def get_weather(location: str, days: int = 3, unit: Literal["c", "f"] = "c") -> str:
    """Get the weather.

    For the days to come.

    Args:
        location: The town.
        days: How many days,
            at most ten.

    Returns:
        A text.
    """
    return f"{location} {days} {unit}"


def test_schema_of_hints_and_google_docstring() -> None:
    tool = Tool.from_function(get_weather)
    assert tool.to_openai_format() == {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather.\n\nFor the days to come.",
            "parameters": {
                "type": "object",
                "properties": {
                    "location": {"type": "string", "description": "The town."},
                    "days": {"type": "integer", "default": 3, "description": "How many days,\nat most ten."},
                    "unit": {"enum": ["c", "f"], "type": "string", "default": "c"},
                },
                "required": ["location"],
                "additionalProperties": False,
            },
        },
    }
    assert tool.to_anthropic_format() == {
        "name": "get_weather",
        "description": tool.description,
        "input_schema": tool.parameters,
    }


def test_schema_of_rest_docstring_models_and_annotations() -> None:
    def order(address: Address, colour: Colour, note: str | None = None, many: Annotated[int, Field(ge=1)] = 1) -> None:
        """Order.

        :param address: Goes there.
        :param note: For the driver.
        """

    parameters = Tool.from_function(order).parameters
    json.dumps(parameters)
    assert parameters["properties"]["note"]["description"] == "For the driver."
    assert parameters["properties"]["many"]["minimum"] == 1
    assert parameters["properties"]["address"]["description"] == "Goes there."
    assert parameters["$defs"]["Address"]["properties"]["zip"]["description"] == "Five digits"
    assert parameters["$defs"]["Colour"]["enum"] == ["red", "blue"]
    assert parameters["required"] == ["address", "colour"]
    assert "title" not in json.dumps(parameters)


async def test_arguments_become_what_the_hints_say() -> None:
    got: dict[str, Any] = {}

    def order(address: Address, colour: Colour, price: Decimal, at: dt.datetime, tags: set[str]) -> None:
        got.update(locals())

    await Tool.from_function(order).execute(
        json.dumps(
            {
                "address": {"street": "A", "zip": 1},
                "colour": "blue",
                "price": "1.10",
                "at": "2026-01-02T03:04:05Z",
                "tags": ["x", "x"],
            }
        )
    )
    assert got["address"] == Address(street="A", zip=1)
    assert (got["colour"], got["price"], got["tags"]) == (Colour.BLUE, Decimal("1.10"), {"x"})
    assert got["at"].tzinfo is not None


async def test_field_as_a_default() -> None:
    def search(
        first: list[str] = Field(default_factory=list),  # noqa: B008
        /,
        x: int = Field(description="the x", ge=1),
        y: int = Field(5),
        z: Annotated[int, Field(le=9)] = Field(3, ge=1),
    ) -> list[Any]:
        """Search.

        Args:
            x: Hidden by the field's.
            y: The y.
        """
        return [first, x, y, z]

    tool = Tool.from_function(search)
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "first": {"type": "array", "items": {"type": "string"}},
            "x": {"type": "integer", "minimum": 1, "description": "the x"},
            "y": {"type": "integer", "default": 5, "description": "The y."},
            "z": {"type": "integer", "default": 3, "minimum": 1, "maximum": 9},
        },
        "required": ["x"],
        "additionalProperties": False,
    }
    assert await tool.execute({"x": 2}) == [[], 2, 5, 3]
    assert await tool.execute({"first": ["a"], "x": 2, "y": 6, "z": 7}) == [["a"], 2, 6, 7]
    for arguments, at_fault in (
        ({}, "x: Field required"),
        ({"x": 0}, "x: .* greater"),
        ({"x": 1, "z": 10}, "z: .*less"),
    ):
        with pytest.raises(ToolArgumentsError, match=at_fault):
            await tool.execute(arguments)


@pytest.mark.parametrize("arguments", ['{"location": "Rome"}', {"location": "Rome"}])
async def test_arguments_are_a_text_or_a_dict(arguments: Any) -> None:
    assert await Tool.from_function(get_weather).execute(arguments) == "Rome 3 c"


@pytest.mark.parametrize("arguments", [None, "", "  ", "{}", {}])
async def test_no_arguments(arguments: Any) -> None:
    assert await Tool.from_function(lambda: "done", name="do").execute(arguments) == "done"


@pytest.mark.parametrize(
    ("arguments", "at_fault"),
    [
        ("{", "not JSON"),
        ("[1]", "must be an object"),
        ("{}", "location"),
        ('{"location": 7}', "location"),
        ('{"location": "x", "days": "many"}', "days"),
        ('{"location": "x", "unit": "k"}', "unit"),
        ('{"location": "x", "town": "y"}', "town"),
    ],
)
async def test_bad_arguments_are_named(arguments: str, at_fault: str) -> None:
    with pytest.raises(ToolArgumentsError, match=at_fault) as error:
        await Tool.from_function(get_weather).execute(arguments)
    assert isinstance(error.value, ValueError)
    assert isinstance(error.value, AgentError)


async def test_tool_written_by_hand_is_checked_against_its_schema() -> None:
    tool = Tool(
        "add",
        "Add.",
        {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        lambda a, b=1: a + b,
    )
    assert await tool.execute('{"a": 2, "b": 3}') == 5
    with pytest.raises(ToolArgumentsError, match=r"'a' is a required property"):
        await tool.execute("{}")
    with pytest.raises(ToolArgumentsError, match=r"a: 'x' is not of type 'integer'"):
        await tool.execute({"a": "x"})


async def test_results_become_json() -> None:
    when = dt.date(2026, 1, 2)
    address = Address(street="A", zip=1)
    tool = Tool.from_function(lambda: {"found": [Found("t", when)], "to": address, "price": Decimal("1.5")}, name="f")
    assert await tool.execute() == {
        "found": [{"title": "t", "when": "2026-01-02"}],
        "to": {"street": "A", "zip": 1},
        "price": "1.5",
    }


async def test_numbers_that_json_lacks_become_none() -> None:
    class Measured(BaseModel):
        v: float

    nan, infinity = float("nan"), float("inf")
    tool = Tool.from_function(lambda: {"v": nan, "all": [infinity, 1.5], "model": Measured(v=nan)}, name="f")
    assert await tool.execute() == {"v": None, "all": [None, 1.5], "model": {"v": None}}


async def test_result_that_is_no_json_is_an_error() -> None:
    with pytest.raises(AgentError, match="'f' returned what is not JSON"):
        await Tool("f", handler=object).execute()


async def test_plain_functions_block_a_thread_and_no_loop() -> None:
    reached, go_on = threading.Event(), threading.Event()

    def wait() -> str:
        reached.set()
        assert go_on.wait(30)
        return threading.current_thread().name

    task = asyncio.create_task(Tool.from_function(wait).execute())
    assert await asyncio.to_thread(reached.wait, 30)
    go_on.set()
    assert await task != threading.main_thread().name


async def test_async_functions_methods_and_partials() -> None:
    class Shop:
        async def price(self, item: str, currency: str = "EUR") -> str:
            """Say the price."""
            return f"{item} {currency}"

    method = Tool.from_function(Shop().price)
    assert (method.name, method.description) == ("price", "Say the price.")
    assert await method.execute({"item": "pen"}) == "pen EUR"
    partial = Tool.from_function(functools.partial(Shop().price, currency="USD"), name="usd")
    assert await partial.execute({"item": "pen"}) == "pen USD"


async def test_odd_parameters() -> None:
    def odd(first: int, /, schema: str, *, _private: int = 1, **rest: int) -> list[Any]:
        return [first, schema, _private, rest]

    tool = Tool.from_function(odd)
    assert list(tool.parameters["properties"]) == ["first", "schema", "_private"]
    assert await tool.execute({"first": 1, "schema": "s", "_private": 2, "more": 3}) == [1, "s", 2, {"more": 3}]
    with pytest.raises(TypeError, match=r"\*_args"):
        Tool.from_function(lambda *_args: None, name="many")


def test_hint_that_has_no_schema_is_refused_at_once() -> None:
    def bad(lock: threading.Lock) -> None: ...

    with pytest.raises(TypeError, match="bad"):
        Tool.from_function(bad)

    def unknown(what: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError, match="'what' cannot be read"):
        Tool.from_function(unknown)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="pydantic takes it there")
def test_typed_dict_that_pydantic_cannot_read_is_refused_at_once() -> None:
    def bad(place: Place) -> None: ...

    with pytest.raises(TypeError, match=r"bad: .*typing_extensions\.TypedDict"):
        Tool.from_function(bad)


async def test_context_is_given_and_not_shown() -> None:
    async def ask(question: str, ctx: RunContext) -> str:
        await ctx.emit("asked", {"question": question})
        return ctx.run_id

    def ask_plainly(question: str, context: SyncRunContext) -> str:
        context.emit("asked", {"question": question})
        return context.run_id

    def ask_barely(question, ctx):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        ctx.emit("asked", {"question": question})
        return ctx.run_id

    ctx = LocalRunContext("chat", {})
    for function in (ask, ask_plainly, ask_barely):
        tool = Tool.from_function(function)
        assert list(tool.parameters["properties"]) == ["question"]
        assert await tool.execute({"question": "why"}, ctx=ctx) == ctx.run_id
        with use_context(ctx):
            assert await tool.execute({"question": "why"}) == ctx.run_id
        with pytest.raises(AgentError, match="context"):
            await tool.execute({"question": "why"})
    assert [event.payload for event in ctx.run.events] == [{"question": "why"}] * 6


async def test_registry() -> None:
    tools = ToolRegistry()
    tools.register(Tool.from_function(get_weather))
    tools.register(lambda: None).name  # noqa: B018
    assert [tool.name for tool in tools.list()] == ["get_weather", "<lambda>"]
    assert [tool["function"]["name"] for tool in tools.to_openai_format()] == ["get_weather", "<lambda>"]
    assert [tool["name"] for tool in tools.to_anthropic_format()] == ["get_weather", "<lambda>"]
    assert tools.get("get_weather") is tools.list()[0]
    assert tools.get("other") is None
    assert await tools.execute("get_weather", '{"location": "Rome"}') == "Rome 3 c"
    with pytest.raises(ToolNotFound, match=r"'wheather'; there are: get_weather") as error:
        await tools.execute("wheather", "{}")
    assert isinstance(error.value, LookupError)

"""Functions that a model may call: their JSON Schema, their arguments checked, their results made JSON."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jsonschema
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from django_agent_runtime._spans import span_tool
from django_agent_runtime.runtime._signature import Signature, read_signature
from django_agent_runtime.runtime._threads import call_anywhere
from django_agent_runtime.runtime.current import current_context
from django_agent_runtime.runtime.errors import ToolArgumentsError, ToolError, ToolNotFound

if TYPE_CHECKING:
    from django_agent_runtime.runtime.interfaces import RunContext

__all__ = ["Tool", "ToolRegistry"]

# `list` is a method of the registry.
_Formats = list[dict[str, Any]]
_Tools = list["Tool"]
_NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}


@dataclass(frozen=True)
class Tool:
    """A function with what a model must know to call it.

    Attributes:
        name: For the providers' sake of letters, digits, `_` and `-`, at most 64.
        description: What it does, for the model.
        parameters: JSON Schema of its arguments, an object.
        handler: Called with the arguments as keywords. A coroutine function is awaited; a plain one is called in a
            thread, so that it may block.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=lambda: dict(_NO_PARAMETERS))
    handler: Callable[..., Any] | None = None
    _signature: Signature | None = field(default=None, repr=False, compare=False)

    @classmethod
    def from_function(
        cls, function: Callable[..., Any], *, name: str | None = None, description: str | None = None
    ) -> Tool:
        """A tool of a function, as its type hints and docstring have it.

        The schema comes from the hints: whatever pydantic knows, models included, which the function gets as
        instances. The descriptions of arguments come from the docstring (Google's style, reST or NumPy's) or from
        `Annotated[int, Field(description="…")]`. A parameter that is a `RunContext` (or, in a plain function, a
        `SyncRunContext`), or one named `ctx` without a hint, is given the running context and is not shown to the
        model.

        Args:
            name: None: the function's own.
            description: None: what its docstring says before the arguments.

        Raises:
            TypeError: A hint cannot be made into JSON Schema, or the parameters are not such as have names.
        """
        signature = read_signature(function)
        return cls(
            name=name or signature.name,
            description=signature.description if description is None else description,
            parameters=signature.schema,
            handler=function,
            _signature=signature,
        )

    async def execute(
        self,
        arguments: str | Mapping[str, Any] | None = None,
        *,
        ctx: RunContext | None = None,
        call_id: str | None = None,
    ) -> Any:
        """What the function returns, as JSON: models, dataclasses, dates and the like become dicts and texts.

        NaN and infinity become None, as JSON has neither.

        Args:
            arguments: A JSON text, as models write it, or a dict; None or an empty text is no arguments.
            ctx: For a parameter that wants one; None: the run that is going on here.
            call_id: The model's name for the call, for traces.

        Raises:
            ToolArgumentsError: They are not JSON, or do not fit the schema.
            ToolError: The tool has no handler, wants a context where there is none, or returned what is not JSON.
            Exception: Whatever the function raises.
        """
        if self.handler is None:
            raise ToolError(f"tool {self.name!r} has no handler", retryable=False)
        with span_tool(self.name, call_id) as span:
            values = self._read_arguments(arguments)
            span.input(values)
            result = await self._call(self.handler, values, ctx or current_context())
            try:
                # Twice, since the first leaves models the NaN that they have.
                made = to_jsonable_python(to_jsonable_python(result), inf_nan_mode="null")
            except (PydanticSerializationError, ValueError) as error:
                raise ToolError(f"tool {self.name!r} returned what is not JSON: {error}") from error
            span.output(made)
            return made

    def to_openai_format(self) -> dict[str, Any]:
        """The tool in a request to OpenAI's chat completions."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}

    def to_anthropic_format(self) -> dict[str, Any]:
        """The tool in a request to Anthropic."""
        return {"name": self.name, "description": self.description, "input_schema": self.parameters}

    def _read_arguments(self, arguments: str | Mapping[str, Any] | None) -> dict[str, Any]:
        if isinstance(arguments, (str, bytes, bytearray)):
            try:
                arguments = json.loads(arguments) if arguments.strip() else {}
            except ValueError as error:
                raise ToolArgumentsError(f"the arguments of tool {self.name!r} are not JSON: {error}") from error
        if arguments is None:
            return {}
        if not isinstance(arguments, Mapping):
            kind = type(arguments).__name__
            raise ToolArgumentsError(f"the arguments of tool {self.name!r} must be an object, not a {kind}")
        return dict(arguments)

    async def _call(self, handler: Callable[..., Any], values: dict[str, Any], ctx: RunContext | None) -> Any:
        if self._signature is None:
            self._check(values)
            call: Callable[[], Any] = functools.partial(handler, **values)
        else:
            try:
                call = self._signature.bind(handler, values, ctx)
            except ValidationError as error:
                raise ToolArgumentsError(f"bad arguments for tool {self.name!r}: {_list_errors(error)}") from error
        return await call_anywhere(call)

    def _check(self, values: dict[str, Any]) -> None:
        errors = sorted(
            _make_validator(json.dumps(self.parameters)).iter_errors(values), key=lambda e: list(map(str, e.path))
        )
        if errors:
            found = "; ".join(f"{error.json_path.removeprefix('$.')}: {error.message}" for error in errors)
            raise ToolArgumentsError(f"bad arguments for tool {self.name!r}: {found}")


class ToolRegistry:
    """Tools by name, in the order in which they were registered."""

    def __init__(self) -> None:
        self._tools: dict[str, Tool] = {}

    def register(self, tool: Tool | Callable[..., Any]) -> Tool:
        """Add a tool, or the tool of a function, in place of another of its name."""
        made = tool if isinstance(tool, Tool) else Tool.from_function(tool)
        self._tools[made.name] = made
        return made

    def get(self, name: str) -> Tool | None:
        """The tool of that name, or None."""
        return self._tools.get(name)

    def list(self) -> _Tools:
        """All tools."""
        return [*self._tools.values()]

    def to_openai_format(self) -> _Formats:
        """All tools, for a request to OpenAI."""
        return [tool.to_openai_format() for tool in self]

    def to_anthropic_format(self) -> _Formats:
        """All tools, for a request to Anthropic."""
        return [tool.to_anthropic_format() for tool in self]

    async def execute(
        self,
        name: str,
        arguments: str | Mapping[str, Any] | None = None,
        *,
        ctx: RunContext | None = None,
        call_id: str | None = None,
    ) -> Any:
        """Execute the tool of that name, as `Tool.execute` does.

        Raises:
            ToolNotFound: There is none; the text names those there are.
            ToolArgumentsError: The arguments do not fit.
        """
        tool = self._tools.get(name)
        if tool is None:
            raise ToolNotFound(f"there is no tool {name!r}; there are: {', '.join(self._tools) or 'none'}")
        return await tool.execute(arguments, ctx=ctx, call_id=call_id)

    def __iter__(self) -> Iterator[Tool]:
        return iter(self.list())

    def __len__(self) -> int:
        return len(self._tools)

    def __contains__(self, name: object) -> bool:
        return name in self._tools


@functools.lru_cache(maxsize=256)
def _make_validator(schema: str) -> Any:
    parsed = json.loads(schema)
    kind = jsonschema.validators.validator_for(parsed, default=jsonschema.Draft202012Validator)
    kind.check_schema(parsed)
    return kind(parsed)


def _list_errors(error: ValidationError) -> str:
    parts = (
        f"{'.'.join(map(str, item['loc'])) or 'arguments'}: {item['msg']}"
        for item in error.errors(include_url=False, include_input=False)
    )
    return "; ".join(parts)

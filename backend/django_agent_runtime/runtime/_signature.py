"""What a function takes, as JSON Schema, and a call of it from JSON."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import docstring_parser
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticUndefined

from django_agent_runtime.runtime._threads import is_async, strip_partials
from django_agent_runtime.runtime.errors import ToolError
from django_agent_runtime.runtime.sync import SyncRunContext

if TYPE_CHECKING:
    from django_agent_runtime.runtime.interfaces import RunContext

__all__ = ["Signature", "read_signature"]

_KINDS = inspect.Parameter


@dataclass(frozen=True)
class Signature:
    """A function's parameters.

    Attributes:
        name: The function's.
        description: Its docstring before the arguments.
        schema: JSON Schema of the arguments that a caller gives.
    """

    name: str
    description: str
    schema: dict[str, Any]
    _model: type[BaseModel]
    _parameters: tuple[inspect.Parameter, ...]
    _context_parameter: str | None
    _wants_sync_context: bool

    def bind(
        self, function: Callable[..., Any], values: Mapping[str, Any], ctx: RunContext | None
    ) -> Callable[[], Any]:
        """A call of `function` with `values`, checked and converted to what its hints say.

        Raises:
            pydantic.ValidationError: They do not fit.
            ToolError: It wants a context, and there is none.
        """
        model = self._model.model_validate(dict(values))
        positional: list[Any] = []
        keywords: dict[str, Any] = dict(model.model_extra or {})
        for index, parameter in enumerate(self._parameters):
            if parameter.name == self._context_parameter:
                value = self._give_context(ctx)
            elif _field_name(index) in model.model_fields_set or isinstance(parameter.default, FieldInfo):
                value = getattr(model, _field_name(index))
            elif parameter.kind is _KINDS.POSITIONAL_ONLY:
                value = parameter.default
            else:
                continue
            if parameter.kind is _KINDS.POSITIONAL_ONLY:
                positional.append(value)
            else:
                keywords[parameter.name] = value
        return functools.partial(function, *positional, **keywords)

    def _give_context(self, ctx: RunContext | None) -> Any:
        if ctx is None:
            raise ToolError(f"tool {self.name!r} wants the running context, and there is none; pass ctx=")
        return SyncRunContext(ctx, asyncio.get_running_loop()) if self._wants_sync_context else ctx


def read_signature(function: Callable[..., Any]) -> Signature:
    """The parameters of a function, as its hints and docstring have them.

    Raises:
        TypeError: A hint is none that JSON Schema can express, or cannot be read; or the function takes `*args`.
    """
    target = strip_partials(function)
    name = getattr(target, "__name__", "") or type(target).__name__
    documented = docstring_parser.parse(inspect.getdoc(target) or "")
    hints = _read_hints(target, name)
    described = {param.arg_name: param.description for param in documented.params if param.description}
    parameters = tuple(
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is not _KINDS.VAR_KEYWORD
    )
    takes_any = len(parameters) < len(inspect.signature(function).parameters)
    context_parameter = next((p.name for p in parameters if _is_context(p, hints)), None)
    fields: dict[str, Any] = {}
    for index, parameter in enumerate(parameters):
        if parameter.kind is _KINDS.VAR_POSITIONAL:
            raise TypeError(f"{name}: a tool's arguments have names; *{parameter.name} cannot be offered to a model")
        if parameter.name != context_parameter:
            hint = hints.get(parameter.name, Any)
            fields[_field_name(index)] = _make_field(parameter, hint, described.get(parameter.name))
    try:
        # Fields have names of their own, since a function's may be any, `schema` and `_private` included.
        model = create_model(
            name, __config__=ConfigDict(extra="allow" if takes_any else "forbid", populate_by_name=False), **fields
        )
        schema = model.model_json_schema(schema_generator=_PlainSchema)
    except PydanticUserError as error:
        raise TypeError(f"{name}: a parameter has no JSON Schema: {error}") from error
    schema.pop("title", None)
    for key, definition in schema.get("$defs", {}).items():
        if definition.get("title") == key:
            del definition["title"]
    text = "\n\n".join(filter(None, (documented.short_description, documented.long_description)))
    return Signature(name, text, schema, model, parameters, context_parameter, not is_async(target))


class _PlainSchema(GenerateJsonSchema):
    """Without a title beside each name, which would cost the model tokens and say nothing."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _field_name(index: int) -> str:
    return f"argument_{index}"


def _make_field(parameter: inspect.Parameter, hint: Any, description: str | None) -> tuple[Any, FieldInfo]:
    default: Any = ... if parameter.default is _KINDS.empty else parameter.default
    if isinstance(default, FieldInfo):
        # As part of the hint it brings its limits, and its default where it has one.
        hint, default = Annotated[hint, default], PydanticUndefined
    metadata = [item for item in getattr(hint, "__metadata__", ()) if isinstance(item, FieldInfo)]
    given = next((item.description for item in reversed(metadata) if item.description), None)
    made: FieldInfo = Field(default, alias=parameter.name, description=given or description)
    return hint, made


def _read_hints(target: Any, name: str) -> dict[str, Any]:
    """Each hint by itself, since one that is for type checkers alone would fail them all."""
    function = target if inspect.isroutine(target) else type(target).__call__
    with contextlib.suppress(Exception):
        return get_type_hints(function, include_extras=True)
    hints: dict[str, Any] = {}
    for parameter, hint in getattr(function, "__annotations__", {}).items():
        if parameter == "return":
            continue
        if isinstance(hint, str) and hint.strip("'\"").rpartition(".")[2] in _CONTEXTS:
            hints[parameter] = SyncRunContext
            continue
        holder = type("Holder", (), {"__annotations__": {parameter: hint}, "__module__": function.__module__})
        try:
            hints[parameter] = get_type_hints(holder, getattr(function, "__globals__", None), include_extras=True)[
                parameter
            ]
        except Exception as error:
            raise TypeError(f"{name}: the hint {hint!r} of {parameter!r} cannot be read: {error}") from error
    return hints


_CONTEXTS = ("RunContext", "SyncRunContext")


def _is_context(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> bool:
    if parameter.name not in hints:
        return parameter.name == "ctx"
    # By their names, since this module is below the one that has them.
    hint = hints[parameter.name]
    return isinstance(hint, type) and any(base.__name__ in _CONTEXTS for base in hint.__mro__)

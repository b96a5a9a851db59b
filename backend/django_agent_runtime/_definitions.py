"""Graphs and agents that are data: the rpcs, and what goes through them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import timezone
from pathlib import Path
from typing import Any, Literal, TypeVar

from ._channel import Rpc
from ._codec import check_text, encode
from .exceptions import InvalidRequest, InvalidValue
from .grpc_client.agentruntime.v1 import definition_service_pb2 as pb
from .types import Definition, DocumentProblem, DocumentProblems

__all__ = [
    "DELETE_AGENT",
    "DELETE_GRAPH",
    "DRAW_GRAPH",
    "GET_AGENT_DEFINITION",
    "GET_GRAPH",
    "LIST_AGENT_VERSIONS",
    "LIST_GRAPHS",
    "LIST_GRAPH_VERSIONS",
    "REGISTER_AGENT",
    "REGISTER_GRAPH",
    "VALIDATE_AGENT",
    "VALIDATE_GRAPH",
    "Document",
    "DrawingFormat",
    "draw_request",
    "read_document",
    "to_definition",
    "to_problems",
    "with_problems",
]

Document = str | bytes | Mapping[str, Any] | Path
"""The text of a document, YAML or JSON; or what that says; or the file that has it."""

DrawingFormat = Literal["mermaid", "svg"]

D = TypeVar("D", bound=Definition)

_SERVICE = "agentruntime.v1.DefinitionService"

REGISTER_GRAPH = Rpc(_SERVICE, "RegisterGraph", pb.RegisterGraphRequest, pb.RegisterGraphResponse)
VALIDATE_GRAPH = Rpc(_SERVICE, "ValidateGraph", pb.ValidateGraphRequest, pb.ValidateGraphResponse)
GET_GRAPH = Rpc(_SERVICE, "GetGraph", pb.GetGraphRequest, pb.GetGraphResponse)
LIST_GRAPHS = Rpc(_SERVICE, "ListGraphs", pb.ListGraphsRequest, pb.ListGraphsResponse)
LIST_GRAPH_VERSIONS = Rpc(_SERVICE, "ListGraphVersions", pb.ListGraphVersionsRequest, pb.ListGraphVersionsResponse)
DELETE_GRAPH = Rpc(_SERVICE, "DeleteGraph", pb.DeleteGraphRequest, pb.DeleteGraphResponse)
DRAW_GRAPH = Rpc(_SERVICE, "DrawGraph", pb.DrawGraphRequest, pb.DrawGraphResponse)
REGISTER_AGENT = Rpc(_SERVICE, "RegisterAgent", pb.RegisterAgentRequest, pb.RegisterAgentResponse)
VALIDATE_AGENT = Rpc(_SERVICE, "ValidateAgent", pb.ValidateAgentRequest, pb.ValidateAgentResponse)
GET_AGENT_DEFINITION = Rpc(_SERVICE, "GetAgentDefinition", pb.GetAgentDefinitionRequest, pb.GetAgentDefinitionResponse)
LIST_AGENT_VERSIONS = Rpc(_SERVICE, "ListAgentVersions", pb.ListAgentVersionsRequest, pb.ListAgentVersionsResponse)
DELETE_AGENT = Rpc(_SERVICE, "DeleteAgent", pb.DeleteAgentRequest, pb.DeleteAgentResponse)

_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_FORMATS: dict[str, pb.DrawingFormat] = {"mermaid": pb.DRAWING_FORMAT_MERMAID, "svg": pb.DRAWING_FORMAT_SVG}


def read_document(document: Document) -> bytes:
    """The text of a document. That of a mapping is JSON in its order, so that the same mapping is the same version.

    Raises:
        InvalidValue: It is no document, or cannot be written as JSON.
        OSError: The file cannot be read.
    """
    if isinstance(document, Path):
        return document.read_bytes()
    if isinstance(document, str):
        return check_text("document", document).encode()
    if isinstance(document, bytes):
        return document
    if isinstance(document, Mapping):
        # What JSON cannot say is told as elsewhere; people read the text in lists and pages.
        value = json.loads(encode(dict(document), "document"))
        return json.dumps(value, ensure_ascii=False, indent=2).encode()
    raise InvalidValue.of("document", f"must be a text, a mapping or a Path, not {type(document).__name__}")


def draw_request(
    graph: Document | None, drawing_format: str, version: str | None, run_id: str | None
) -> pb.DrawGraphRequest:
    """The request for a drawing of exactly one thing.

    Raises:
        InvalidValue: Another format, or not one thing.
    """
    if drawing_format not in _FORMATS:
        raise InvalidValue.of("format", f"must be one of {', '.join(_FORMATS)}, not {drawing_format!r}")
    if (graph is None) == (run_id is None):
        raise InvalidValue.of("graph", "must be given, or else a run_id")
    request = pb.DrawGraphRequest(format=_FORMATS[drawing_format], version=check_text("version", version or ""))
    if run_id is not None:
        request.run_id = check_text("run_id", run_id)
    elif isinstance(graph, str) and _NAME.fullmatch(graph):
        request.name = graph
    elif graph is not None:
        request.document = read_document(graph)
    return request


def to_definition(
    kind: type[D], wire: pb.Definition, *, created: bool = False, warnings: Iterable[pb.DocumentProblem] = ()
) -> D:
    """A version as callers get it."""
    return kind(
        name=wire.name,
        version=wire.version,
        number=wire.number,
        current=wire.current,
        description=wire.description,
        create_time=wire.create_time.ToDatetime(timezone.utc) if wire.HasField("create_time") else None,
        built_in=wire.built_in,
        document=wire.document.decode(),
        created=created,
        warnings=tuple(_to_problem(warning) for warning in warnings),
    )


def to_problems(wire: pb.ValidateGraphResponse | pb.ValidateAgentResponse) -> DocumentProblems:
    """What was found in a document as callers get it."""
    return DocumentProblems(map(_to_problem, wire.problems), map(_to_problem, wire.warnings))


def _to_problem(wire: pb.DocumentProblem) -> DocumentProblem:
    return DocumentProblem(wire.place, wire.description)


def with_problems(error: InvalidRequest, problems: Iterable[DocumentProblem]) -> InvalidRequest:
    """A refusal with all that is wrong with its document: what travels with an error has no room for many."""
    violations = [(problem.place, problem.description) for problem in problems] or error.violations
    message = "; ".join(f"{place}: {description}" for place, description in violations)
    return InvalidRequest(message, violations=violations, metadata=error.metadata, request_id=error.request_id)

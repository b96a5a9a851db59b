"""The fake's graphs and agents that are data: kept in versions and listed, neither checked nor run."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import NoReturn

import grpc

from django_agent_runtime.grpc_client.agentruntime.v1 import definition_service_pb2 as pb
from django_agent_runtime.grpc_client.agentruntime.v1 import definition_service_pb2_grpc
from django_agent_runtime.testing._wire import read_namespace, refuse, refuse_field

_NAME = re.compile(r"^name:\s*[\"']?([A-Za-z0-9_-]{1,100})[\"']?\s*(?:#.*)?$", re.MULTILINE)
_DESCRIPTION = re.compile(r"^description:\s*(.+?)\s*$", re.MULTILINE)


@dataclass
class _Kept:
    """The versions of a name, by the version, the oldest first; `current` is empty for a name that was deleted."""

    versions: dict[str, pb.Definition] = field(default_factory=dict)
    current: str = ""


@dataclass
class FakeDefinitionService(definition_service_pb2_grpc.DefinitionServiceServicer):
    """See the service definition. Of a document it reads the name and the description alone."""

    _kept: dict[tuple[str, str, str], _Kept] = field(default_factory=dict)

    def RegisterGraph(  # noqa: N802
        self, request: pb.RegisterGraphRequest, context: grpc.ServicerContext
    ) -> pb.RegisterGraphResponse:
        """See the service definition."""
        graph, created = self._register("graph", request.document, context)
        return pb.RegisterGraphResponse(graph=graph, created=created)

    def ValidateGraph(  # noqa: N802
        self, request: pb.ValidateGraphRequest, _context: grpc.ServicerContext
    ) -> pb.ValidateGraphResponse:
        """See the service definition; a document without a name is all that is found."""
        name, _ = _read(request.document)
        return pb.ValidateGraphResponse(name=name, problems=_problems(name))

    def GetGraph(self, request: pb.GetGraphRequest, context: grpc.ServicerContext) -> pb.GetGraphResponse:  # noqa: N802
        """See the service definition."""
        return pb.GetGraphResponse(graph=self._find("graph", request.name, request.version, context))

    def ListGraphs(  # noqa: N802
        self, _request: pb.ListGraphsRequest, context: grpc.ServicerContext
    ) -> pb.ListGraphsResponse:
        """See the service definition; always one page."""
        namespace = read_namespace(context)
        graphs = [
            _listed(kept, kept.current)
            for (owner, kind, _), kept in sorted(self._kept.items())
            if owner == namespace and kind == "graph" and kept.current
        ]
        return pb.ListGraphsResponse(graphs=graphs)

    def ListGraphVersions(  # noqa: N802
        self, request: pb.ListGraphVersionsRequest, context: grpc.ServicerContext
    ) -> pb.ListGraphVersionsResponse:
        """See the service definition."""
        return pb.ListGraphVersionsResponse(versions=self._versions("graph", request.name, context))

    def DeleteGraph(  # noqa: N802
        self, request: pb.DeleteGraphRequest, context: grpc.ServicerContext
    ) -> pb.DeleteGraphResponse:
        """See the service definition."""
        self._delete("graph", request.name, context)
        return pb.DeleteGraphResponse()

    def DrawGraph(self, request: pb.DrawGraphRequest, context: grpc.ServicerContext) -> pb.DrawGraphResponse:  # noqa: N802
        """See the service definition; the drawing has the name alone."""
        if request.name:
            self._find("graph", request.name, request.version, context)
        name = request.name or _read(request.document)[0] or "graph"
        if request.format == pb.DRAWING_FORMAT_SVG:
            return pb.DrawGraphResponse(
                drawing=f'<svg xmlns="http://www.w3.org/2000/svg"><text y="1em">{name}</text></svg>'
            )
        return pb.DrawGraphResponse(drawing=f'flowchart TD\n  n0["{name}"]\n')

    def RegisterAgent(  # noqa: N802
        self, request: pb.RegisterAgentRequest, context: grpc.ServicerContext
    ) -> pb.RegisterAgentResponse:
        """See the service definition."""
        agent, created = self._register("agent", request.document, context)
        return pb.RegisterAgentResponse(agent=agent, created=created)

    def ValidateAgent(  # noqa: N802
        self, request: pb.ValidateAgentRequest, _context: grpc.ServicerContext
    ) -> pb.ValidateAgentResponse:
        """See the service definition; a document without a name is all that is found."""
        name, _ = _read(request.document)
        return pb.ValidateAgentResponse(name=name, problems=_problems(name))

    def GetAgentDefinition(  # noqa: N802
        self, request: pb.GetAgentDefinitionRequest, context: grpc.ServicerContext
    ) -> pb.GetAgentDefinitionResponse:
        """See the service definition."""
        return pb.GetAgentDefinitionResponse(agent=self._find("agent", request.name, request.version, context))

    def ListAgentVersions(  # noqa: N802
        self, request: pb.ListAgentVersionsRequest, context: grpc.ServicerContext
    ) -> pb.ListAgentVersionsResponse:
        """See the service definition."""
        return pb.ListAgentVersionsResponse(versions=self._versions("agent", request.name, context))

    def DeleteAgent(  # noqa: N802
        self, request: pb.DeleteAgentRequest, context: grpc.ServicerContext
    ) -> pb.DeleteAgentResponse:
        """See the service definition."""
        self._delete("agent", request.name, context)
        return pb.DeleteAgentResponse()

    def _register(self, kind: str, document: bytes, context: grpc.ServicerContext) -> tuple[pb.Definition, bool]:
        name, description = _read(document)
        if not name:
            refuse_field(context, "name", "must be letters, digits, dashes and underscores")
        kept = self._kept.setdefault((read_namespace(context), kind, name), _Kept())
        version = hashlib.sha256(document).hexdigest()[:16]
        created = version not in kept.versions
        if created:
            definition = pb.Definition(
                name=name,
                version=version,
                number=len(kept.versions) + 1,
                description=description,
                document=document,
            )
            definition.create_time.GetCurrentTime()
            kept.versions[version] = definition
        kept.current = version
        return _listed(kept, version), created

    def _find(self, kind: str, name: str, version: str, context: grpc.ServicerContext) -> pb.Definition:
        kept = self._kept.get((read_namespace(context), kind, name), _Kept())
        wanted = version or kept.current
        if wanted not in kept.versions:
            _refuse_unknown(kind, name, context)
        found = pb.Definition()
        found.CopyFrom(kept.versions[wanted])
        found.current = wanted == kept.current
        return found

    def _versions(self, kind: str, name: str, context: grpc.ServicerContext) -> list[pb.Definition]:
        self._find(kind, name, "", context)
        kept = self._kept[read_namespace(context), kind, name]
        return [_listed(kept, version) for version in reversed(kept.versions)]

    def _delete(self, kind: str, name: str, context: grpc.ServicerContext) -> None:
        self._find(kind, name, "", context)
        self._kept[read_namespace(context), kind, name].current = ""


def _listed(kept: _Kept, version: str) -> pb.Definition:
    """A version as lists have it: without its document."""
    listed = pb.Definition()
    listed.CopyFrom(kept.versions[version])
    listed.current = version == kept.current
    listed.ClearField("document")
    return listed


def _read(document: bytes) -> tuple[str, str]:
    """The name and the description that a document says; empty where it says none."""
    text = document.decode(errors="replace")
    try:
        said = json.loads(text)
    except ValueError:
        name, description = _NAME.search(text), _DESCRIPTION.search(text)
        return name[1] if name else "", description[1] if description else ""
    if not isinstance(said, dict):
        return "", ""
    return str(said.get("name", "")), str(said.get("description", ""))


def _problems(name: str) -> list[pb.DocumentProblem]:
    return [] if name else [pb.DocumentProblem(place="name", description="is required")]


def _refuse_unknown(kind: str, name: str, context: grpc.ServicerContext) -> NoReturn:
    refuse(
        context,
        grpc.StatusCode.NOT_FOUND,
        f"{kind.upper()}_NOT_FOUND",
        f"no {kind} is called {name!r}",
        metadata={f"{kind}_id": name, "known": ""},
    )

"""Generated from `_async/definitions.py` by `scripts/unasync.py`: edit that file."""

from __future__ import annotations

from django_agent_runtime import _definitions
from django_agent_runtime._channel import new_request_id
from django_agent_runtime._codec import check_text
from django_agent_runtime._definitions import Document, DrawingFormat, draw_request, read_document, with_problems
from django_agent_runtime.exceptions import AgentNotFound, GraphNotFound, InvalidRequest, TooLarge
from django_agent_runtime.grpc_client.agentruntime.v1 import definition_service_pb2 as pb
from django_agent_runtime.types import AgentDefinition, DocumentProblems, GraphDefinition

from .calls import SyncCalls

__all__ = ["SyncDefinitions"]


class SyncDefinitions(SyncCalls):
    """Graphs and agents that are data: documents by name, in versions."""

    def register_graph(self, document: Document) -> GraphDefinition:
        """Make a document the graph of the name that it says, for runs that begin from now on.

        A run that waits, or that crashed, goes on with the version that it began with. What is registered already
        changes nothing, so that a project may register its graphs at every start. Graphs and agents that the document
        names may be registered later: `warnings` of what is returned has those that there are not yet.

            go_runtime.register_graph(Path("graphs/review.yaml"))

        Args:
            document: The text, YAML or JSON; a mapping; or a Path.

        Raises:
            InvalidRequest: The document has mistakes: `violations` has each with its place, such as
                `nodes.plan.with.prompt`. A name of the runtime's own is one.
            TooLarge: It is longer than 256 KiB.
            DefinitionsFull: The namespace has 1,000 graphs and agents.
        """
        request = pb.RegisterGraphRequest(document=read_document(document), request_id=new_request_id())
        try:
            response = self._call(_definitions.REGISTER_GRAPH, request)
        except TooLarge:
            raise
        except InvalidRequest as error:
            raise with_problems(error, self.validate_graph(request.document)) from error
        return _definitions.to_definition(
            GraphDefinition, response.graph, created=response.created, warnings=response.warnings
        )

    def validate_graph(self, document: Document) -> DocumentProblems:
        """All that is wrong with a document; nothing where `register_graph` would take it.

        Its `warnings` are as those of the definition that `register_graph` returns.
        """
        request = pb.ValidateGraphRequest(document=read_document(document))
        response = self._call(_definitions.VALIDATE_GRAPH, request)
        return _definitions.to_problems(response)

    def get_graph(self, name: str, version: str | None = None) -> GraphDefinition:
        """A graph with its document: the current version, or one that is named, also of a graph that was deleted.

        Raises:
            GraphNotFound: There is none.
        """
        request = pb.GetGraphRequest(name=check_text("name", name), version=check_text("version", version or ""))
        response = self._call(_definitions.GET_GRAPH, request)
        return _definitions.to_definition(GraphDefinition, response.graph)

    def list_graphs(self) -> list[GraphDefinition]:
        """The graphs that can be run here, by name, without their documents; those of the runtime's own among them."""
        graphs: list[GraphDefinition] = []
        request = pb.ListGraphsRequest()
        while True:
            page = self._call(_definitions.LIST_GRAPHS, request)
            graphs.extend(_definitions.to_definition(GraphDefinition, graph) for graph in page.graphs)
            request.page_token = page.next_page_token
            if not request.page_token:
                return graphs

    def list_graph_versions(self, name: str) -> list[GraphDefinition]:
        """The versions of a graph without their documents, the newest first.

        Raises:
            GraphNotFound: There is no such graph.
        """
        request = pb.ListGraphVersionsRequest(name=check_text("name", name))
        response = self._call(_definitions.LIST_GRAPH_VERSIONS, request)
        return [_definitions.to_definition(GraphDefinition, version) for version in response.versions]

    def delete_graph(self, name: str) -> bool:
        """Take a graph out of what new runs can use; those that began with it go on.

        Returns:
            Whether there was such a graph.

        Raises:
            InvalidRequest: It is the runtime's own.
        """
        request = pb.DeleteGraphRequest(name=check_text("name", name), request_id=new_request_id())
        try:
            self._call(_definitions.DELETE_GRAPH, request)
        except GraphNotFound:
            return False
        return True

    def draw_graph(
        self,
        graph: Document | None = None,
        *,
        format: DrawingFormat = "mermaid",  # noqa: A002 - what everybody calls it
        version: str | None = None,
        run_id: str | None = None,
    ) -> str:
        """Draw a graph, as a flowchart for Mermaid or as an SVG that stands alone.

            svg = go_runtime.draw_graph("reasoning_graph", format="svg")

        Args:
            graph: The name of a graph, or a document, registered or not.
            format: `mermaid` or `svg`.
            version: That of the named graph; None: the current one.
            run_id: Draw the graph of a run in its place: the version that it began with, with what became of each node.

        Raises:
            GraphNotFound: There is no such graph, or version.
            RunNotFound: There is no such run.
            InvalidRequest: The document has mistakes, or the run is one of no graph.
        """
        request = draw_request(graph, format, version, run_id)
        response = self._call(_definitions.DRAW_GRAPH, request)
        return response.drawing

    def register_agent(self, document: Document) -> AgentDefinition:
        """Make a document the agent of the name that it says, for runs that begin from now on.

        All else is as with `register_graph`.

        Raises:
            InvalidRequest: The document has mistakes; a name of an agent of the runtime's own is one.
            TooLarge: It is longer than 256 KiB.
            DefinitionsFull: The namespace has 1,000 graphs and agents.
        """
        request = pb.RegisterAgentRequest(document=read_document(document), request_id=new_request_id())
        try:
            response = self._call(_definitions.REGISTER_AGENT, request)
        except TooLarge:
            raise
        except InvalidRequest as error:
            raise with_problems(error, self.validate_agent(request.document)) from error
        return _definitions.to_definition(
            AgentDefinition, response.agent, created=response.created, warnings=response.warnings
        )

    def validate_agent(self, document: Document) -> DocumentProblems:
        """All that is wrong with a document; nothing where `register_agent` would take it.

        Its `warnings` are as those of the definition that `register_agent` returns.
        """
        request = pb.ValidateAgentRequest(document=read_document(document))
        response = self._call(_definitions.VALIDATE_AGENT, request)
        return _definitions.to_problems(response)

    def get_agent_definition(self, name: str, version: str | None = None) -> AgentDefinition:
        """An agent with its document: the current version, or one that is named, also of an agent that was deleted.

        Raises:
            AgentNotFound: There is none that is a document.
        """
        request = pb.GetAgentDefinitionRequest(
            name=check_text("name", name), version=check_text("version", version or "")
        )
        response = self._call(_definitions.GET_AGENT_DEFINITION, request)
        return _definitions.to_definition(AgentDefinition, response.agent)

    def list_agent_versions(self, name: str) -> list[AgentDefinition]:
        """The versions of an agent without their documents, the newest first.

        Raises:
            AgentNotFound: There is none that is a document.
        """
        request = pb.ListAgentVersionsRequest(name=check_text("name", name))
        response = self._call(_definitions.LIST_AGENT_VERSIONS, request)
        return [_definitions.to_definition(AgentDefinition, version) for version in response.versions]

    def delete_agent(self, name: str) -> bool:
        """Take an agent out of what new runs can use; those that began with it go on.

        Returns:
            Whether there was such an agent.

        Raises:
            InvalidRequest: It is the runtime's own.
        """
        request = pb.DeleteAgentRequest(name=check_text("name", name), request_id=new_request_id())
        try:
            self._call(_definitions.DELETE_AGENT, request)
        except AgentNotFound:
            return False
        return True

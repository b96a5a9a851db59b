"""What the pages of graphs show."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django_agent_runtime.live import get_hurried_runtime

if TYPE_CHECKING:
    from django_agent_runtime.types import GraphDefinition


@dataclass(frozen=True)
class ShownGraph:
    """A version of a graph, with what is shown beside it."""

    graph: GraphDefinition
    drawing: str
    versions: list[GraphDefinition]


def list_graphs() -> list[GraphDefinition]:
    """The graphs that can be run, by name.

    Raises:
        AgentRuntimeError: The runtime cannot say.
    """
    return get_hurried_runtime().list_graphs()


def show_graph(name: str, version: str | None) -> ShownGraph:
    """A version of a graph, or the current one.

    Raises:
        GraphNotFound: There is none.
        AgentRuntimeError: The runtime cannot say.
    """
    runtime = get_hurried_runtime()
    graph = runtime.get_graph(name, version)
    drawing = runtime.draw_graph(name, format="svg", version=graph.version)
    return ShownGraph(graph, to_image(drawing), runtime.list_graph_versions(name))


def draw_document(document: str) -> str:
    """The drawing of a document that is fine, as the source of an image.

    Raises:
        AgentRuntimeError: The document has mistakes, or the runtime cannot say.
    """
    # As bytes: what is only a name would be drawn as the graph of that name.
    return to_image(get_hurried_runtime().draw_graph(document.encode(), format="svg"))


def to_image(svg: str) -> str:
    """The source of an image: in that no script runs, whatever a graph is called."""
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"

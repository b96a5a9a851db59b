"""Graphs and agents that are data, on the real runtime."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from django_agent_runtime import exceptions
from django_agent_runtime.go_integration import GoRuntimeIntegration

if TYPE_CHECKING:
    from pathlib import Path

    from django_agent_runtime.testing.process import GoRuntimeProcess

SHOUT = """
name: shout
description: Says it louder.
state: {said: {}, louder: {}}
nodes:
  shout: {kind: transform, set: {louder: 'state.said + "!"'}}
edges: [[START, shout]]
output: {louder: state.louder}
"""

BROKEN = """
name: broken
state: {said: {}}
nodes:
  plan: {kind: llm, with: {instructions: Plan.}}
  write: {kind: transform, set: {sayd: '"x"'}}
edges: [[START, plan], [plan, writes]]
"""
PLACES = ["nodes.plan.with.prompt", "nodes.write.set.sayd", "edges[1]", "nodes.write"]


def asking(greets: str) -> dict[str, object]:
    return {
        "name": "greet",
        "state": {"who": {}, "said": {}},
        "nodes": {
            "ask": {"kind": "human", "with": {"ask": "Who?"}, "set": {"who": "out"}},
            "greet": {"kind": "transform", "set": {"said": f'"{greets} " + state.who'}},
        },
        "edges": [["START", "ask"], ["ask", "greet"]],
        "output": {"said": "state.said"},
    }


def test_a_graph_that_is_registered_can_be_run(client: GoRuntimeIntegration) -> None:
    registered = client.register_graph(SHOUT)
    assert (registered.name, registered.number, registered.current, registered.created) == ("shout", 1, True, True)
    assert registered.description == "Says it louder."
    assert registered.create_time is not None
    assert registered.create_time < datetime.now(timezone.utc)
    result = client.execute_task("langgraph_task", {"graph_id": "shout", "said": "hello"})
    assert result["output"] == {"louder": "hello!"}

    again = client.register_graph(SHOUT)
    assert (again.version, again.created) == (registered.version, False)
    second = client.register_graph(SHOUT.replace("!", "!!"))
    assert (second.number, second.created) == (2, True)
    assert (
        client.execute_task("langgraph_task", {"graph_id": "shout", "said": "hello"})["output"]["louder"] == "hello!!"
    )
    assert [version.number for version in client.list_graph_versions("shout")] == [2, 1]
    assert client.get_graph("shout", registered.version).document == SHOUT
    assert client.get_graph("shout").version == second.version
    listed = {graph.name: graph for graph in client.list_graphs()}
    assert set(listed) == {"shout", "reasoning_graph", "research_chain"}
    assert [listed[name].built_in for name in sorted(listed)] == [True, True, False]
    assert listed["shout"].document == ""

    assert client.delete_graph("shout")
    assert not client.delete_graph("shout")
    with pytest.raises(exceptions.GraphNotFound, match="reasoning_graph"):
        client.get_graph("shout")
    with pytest.raises(LookupError):
        client.list_graph_versions("shout")
    with pytest.raises(exceptions.GraphNotFound):
        client.execute_task("langgraph_task", {"graph_id": "shout", "said": "hello"})
    assert client.get_graph("shout", second.version).number == 2


def test_a_run_that_waits_goes_on_with_its_graph(mortal_runtime: GoRuntimeProcess) -> None:
    with GoRuntimeIntegration(**mortal_runtime.settings) as client:
        client.register_graph(asking("Hello"))
        run_id = client.submit_task("langgraph_task", {"graph_id": "greet"}).run_id
        interrupt = None
        for event in client.watch_run(run_id):
            if event.type == "run.interrupted":
                interrupt = event.payload["interrupt_id"]
                break
        assert interrupt
        assert "waiting" in client.draw_graph(run_id=run_id)
        client.register_graph(asking("Bye"))
        mortal_runtime.kill()
        mortal_runtime.start()
        client.delete_graph("greet")
        client.resume_run(run_id, "Ada", interrupt_id=interrupt)
        output = client.wait_run(run_id).output
        assert output is not None
        assert output["output"] == {"said": "Hello Ada"}


def test_mistakes_are_told_with_their_places(client: GoRuntimeIntegration, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(BROKEN)
    assert [problem.place for problem in client.validate_graph(file)] == PLACES
    assert str(client.validate_graph(BROKEN)[0]).startswith("nodes.plan.with.prompt: ")
    with pytest.raises(ValueError, match=r"edges\[1\]") as refused:
        client.register_graph(file)
    assert isinstance(refused.value, exceptions.InvalidRequest)
    assert [place for place, _ in refused.value.violations] == PLACES
    assert client.validate_graph(SHOUT) == []
    assert [problem.place for problem in client.validate_graph({"name": "reasoning_graph"})] == ["nodes"]
    many = {"name": "many", "nodes": {f"n{number}": {"kind": "none"} for number in range(60)}}
    assert len(client.validate_graph(many)) > len(many["nodes"])
    with pytest.raises(exceptions.InvalidRequest) as refused:
        client.register_graph(many)
    assert len(refused.value.violations) > len(many["nodes"])
    assert "nodes.n59.kind: " in str(refused.value)
    with pytest.raises(exceptions.InvalidRequest, match="runtime's own"):
        client.register_graph(SHOUT.replace("name: shout", "name: reasoning_graph"))
    with pytest.raises(exceptions.InvalidRequest, match="runtime's own"):
        client.delete_graph("reasoning_graph")
    with pytest.raises(exceptions.TooLarge):
        client.register_graph("#" * (256 * 1024 + 1))
    with pytest.raises(exceptions.InvalidValue, match="document"):
        client.register_graph({"name": {1, 2}})
    with pytest.raises(exceptions.InvalidValue, match="document"):
        client.register_graph(7)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        client.register_graph(tmp_path / "none.yaml")


def test_what_is_missing_is_a_warning(client: GoRuntimeIntegration) -> None:
    lead = {"name": "lead", "instructions": "Lead.", "agents": ["codegen_agent", "nobody"]}
    described = 'agents[1]: names the agent "nobody", which there is not yet'
    found = client.validate_agent(lead)
    assert found == []
    assert [str(warning) for warning in found.warnings] == [described]
    assert [str(warning) for warning in client.register_agent(lead).warnings] == [described]
    names = {"name": "names", "nodes": {"n": {"kind": "graph", "with": {"graph": "later"}}}, "edges": [["START", "n"]]}
    assert [warning.place for warning in client.register_graph(names).warnings] == ["nodes.n.with.graph"]
    client.register_graph(SHOUT.replace("name: shout", "name: later"))
    assert client.register_graph(names).warnings == ()
    assert client.validate_graph(names).warnings == ()
    assert client.get_graph("names").warnings == ()


def test_graphs_are_drawn(client: GoRuntimeIntegration) -> None:
    assert client.draw_graph("reasoning_graph").startswith("flowchart TD\n")
    svg = client.draw_graph(asking("</svg>"), format="svg")
    assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    with pytest.raises(exceptions.InvalidRequest, match=r"edges\[1\]"):
        client.draw_graph(BROKEN)
    with pytest.raises(exceptions.GraphNotFound):
        client.draw_graph("none")
    with pytest.raises(exceptions.RunNotFound):
        client.draw_graph(run_id="none")
    with pytest.raises(exceptions.InvalidValue, match="format"):
        client.draw_graph("reasoning_graph", format="png")  # type: ignore[arg-type]
    for arguments in ({}, {"graph": "reasoning_graph", "run_id": "x"}):
        with pytest.raises(exceptions.InvalidValue, match="graph"):
            client.draw_graph(**arguments)  # type: ignore[arg-type]


async def test_agents_are_registered(client: GoRuntimeIntegration) -> None:
    document = {"name": "helper", "description": "Helps.", "instructions": "Help."}
    registered = await client.aregister_agent(document)
    assert (registered.name, registered.description, registered.created) == ("helper", "Helps.", True)
    assert "helper" in {agent.agent_id for agent in await client.alist_agents()}
    result = await client.aexecute_agent_task("helper", "help", {"with": "it"})
    assert result["agent_id"] == "helper"
    assert (await client.aget_agent_definition("helper")).version == registered.version
    assert [version.number for version in await client.alist_agent_versions("helper")] == [1]
    assert [problem.place for problem in await client.avalidate_agent({"name": "helper"})] == ["instructions"]
    assert await client.adelete_agent("helper")
    assert not await client.adelete_agent("helper")
    with pytest.raises(exceptions.AgentNotFound):
        await client.aget_agent_definition("helper")

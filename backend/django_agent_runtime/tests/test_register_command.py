"""`manage.py register`."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from django.core.management import CommandError, call_command

from django_agent_runtime.go_integration import get_go_runtime_integration

if TYPE_CHECKING:
    from pathlib import Path

    from django_agent_runtime.testing.process import GoRuntimeProcess

GRAPH = "name: shout\nnodes: {shout: {kind: transform}}\nedges: [[START, shout]]\n"
AGENT = "name: helper\ninstructions: Help.\n"


@pytest.fixture(autouse=True)
def runtime(go_runtime_process: GoRuntimeProcess, settings: object) -> None:
    settings.GO_RUNTIME = {**go_runtime_process.settings, "namespace": "register-command"}  # type: ignore[attr-defined]


def register(*arguments: object) -> str:
    out = io.StringIO()
    call_command("register", *map(str, arguments), stdout=out)
    return out.getvalue()


def test_files_and_folders_are_registered(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GRAPH)
    (tmp_path / "b.json").write_text(
        '{"name": "other", "nodes": {"n": {"kind": "transform"}}, "edges": [["START", "n"]]}'
    )
    (tmp_path / "notes.txt").write_text("no graph")
    assert register("--check", tmp_path).count("fine") == 2
    assert "shout" not in {graph.name for graph in get_go_runtime_integration().list_graphs()}
    first = register(tmp_path)
    assert "shout" in first
    assert first.count("number 1, new") == 2
    assert register(tmp_path / "a.yaml").count("number 1, known") == 1
    assert "number 1, new" in register("--namespace", "register-elsewhere", tmp_path / "a.yaml")


def test_agents_are_registered(tmp_path: Path) -> None:
    file = tmp_path / "helper.yaml"
    file.write_text(AGENT)
    assert register("--agents", file).startswith("helper ")
    assert get_go_runtime_integration().get_agent_definition("helper").document == AGENT


def test_mistakes_of_all_files_are_told_and_nothing_is_registered(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GRAPH.replace("shout", "unseen"))
    (tmp_path / "b.yaml").write_text(GRAPH.replace("transform", "none"))
    (tmp_path / "c.yaml").write_text("name: c\n")
    with pytest.raises(CommandError) as refused:
        register(tmp_path)
    mistakes = str(refused.value).splitlines()
    assert mistakes[0].startswith(f"{tmp_path / 'b.yaml'}: nodes.shout.kind: ")
    assert mistakes[-1].startswith(f"{tmp_path / 'c.yaml'}: nodes: ")
    assert "unseen" not in {graph.name for graph in get_go_runtime_integration().list_graphs()}


def test_what_a_file_names_and_is_not_there_is_a_warning(tmp_path: Path) -> None:
    node = "nodes: {n: {kind: graph, with: {graph: %s}}}\nedges: [[START, n]]\n"
    (tmp_path / "a.yaml").write_text("name: first\n" + node % "second")
    (tmp_path / "b.yaml").write_text("name: second\n" + node % "third")
    warned = io.StringIO()
    call_command("register", str(tmp_path), stdout=io.StringIO(), stderr=warned)
    assert warned.getvalue().splitlines() == [
        f'{tmp_path / "b.yaml"}: nodes.n.with.graph: names the graph "third", which there is not yet'
    ]


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"none\.yaml"):
        register(tmp_path / "none.yaml")
    with pytest.raises(CommandError, match=r"there is no file"):
        register(tmp_path)

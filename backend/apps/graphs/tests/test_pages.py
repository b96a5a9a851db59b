from __future__ import annotations

import base64
import html
import re
from typing import TYPE_CHECKING, Any

import pytest

from django_agent_runtime.go_integration import get_go_runtime_integration

if TYPE_CHECKING:
    from pathlib import Path

    from django.contrib.auth.models import User
    from django.test import Client

    from django_agent_runtime.testing import GoRuntimeProcess

GRAPH = """name: shout
description: Says <b>it</b> louder.
nodes:
  shout: {kind: transform}
edges: [[START, shout]]
"""


@pytest.fixture
def staff(client: Client, django_user_model: type[User], go_runtime: GoRuntimeProcess, db: None) -> User:
    """Who is signed in."""
    user = django_user_model.objects.create_user("ada", is_staff=True)
    client.force_login(user)
    return user


def drawing_of(page: str) -> str:
    found = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert found
    return base64.b64decode(found[1]).decode()


def test_graphs_are_listed_and_drawn(client: Client, staff: User) -> None:
    response = client.get("/graphs/")
    assert "reasoning_graph" in response.content.decode()
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    page = client.get("/graphs/reasoning_graph/").content.decode()
    assert "review" in drawing_of(page)
    assert "kind: llm" in page
    assert 'href="/graphs/"' in client.get("/").content.decode()


def test_a_document_is_checked_drawn_and_registered(client: Client, staff: User) -> None:
    # Browsers end lines of a form as mail does.
    document = GRAPH.replace("\n", "\r\n")
    page = client.post("/graphs/", {"document": document, "action": "check"}).content.decode()
    assert "no mistakes" in page
    assert ">shout</text>" in drawing_of(page)
    runtime = get_go_runtime_integration()
    assert "shout" not in {graph.name for graph in runtime.list_graphs()}
    try:
        response = client.post("/graphs/", {"document": document, "action": "register"}, follow=True)
        assert response.redirect_chain == [("/graphs/shout/", 302)]
        assert "Version 1 of shout is registered." in html.unescape(response.content.decode())
        assert "Says &lt;b&gt;it&lt;/b&gt; louder." in response.content.decode()
        first = runtime.get_graph("shout")
        assert first.document == GRAPH
        client.post("/graphs/", {"document": GRAPH.replace("louder", "much louder"), "action": "register"})
        assert "much louder" in client.get("/graphs/shout/").content.decode()
        assert "much louder" not in client.get(f"/graphs/shout/?version={first.version}").content.decode()
        assert client.get("/graphs/shout/?version=0").status_code == 404
    finally:
        runtime.delete_graph("shout")
    assert client.get("/graphs/shout/").status_code == 404


def test_what_a_document_names_and_is_not_there_is_told(client: Client, staff: User) -> None:
    document = "name: above\nnodes: {n: {kind: graph, with: {graph: later}}}\nedges: [[START, n]]\n"
    warning = 'names the graph "later", which there is not yet'
    page = client.post("/graphs/", {"document": document, "action": "check"}).content.decode()
    assert "no mistakes" in page
    assert warning in html.unescape(page)
    try:
        response = client.post("/graphs/", {"document": document, "action": "register"}, follow=True)
        assert warning in html.unescape(response.content.decode())
    finally:
        get_go_runtime_integration().delete_graph("above")


def test_all_mistakes_are_shown_with_their_places(client: Client, staff: User) -> None:
    document = GRAPH.replace("transform", "none").replace("[START, shout]", "[START, </textarea>]")
    for action in ("check", "register"):
        response = client.post("/graphs/", {"document": document, "action": action})
        assert response.status_code == 422
        page = response.content.decode()
        for place in ("nodes.shout.kind", "edges[0]", "nodes.shout"):
            assert f"<code>{place}</code>" in page
        assert page.count("</textarea>") == 1
        assert html.escape(document) in page
    # What is only a name is a document all the same.
    assert client.post("/graphs/", {"document": "reasoning_graph", "action": "check"}).status_code == 422


@pytest.mark.django_db
def test_graphs_are_for_the_staff(client: Client, django_user_model: type[User]) -> None:
    for path in ("/graphs/", "/graphs/reasoning_graph/"):
        assert client.get(path).headers["Location"] == f"/login/?next={path}"
    client.force_login(django_user_model.objects.create_user("eve"))
    for path in ("/graphs/", "/graphs/reasoning_graph/"):
        assert client.get(path).status_code == 403
    assert client.post("/graphs/", {"document": GRAPH, "action": "register"}).status_code == 403
    assert "/graphs/" not in client.get("/demo/").content.decode()


def test_a_runtime_that_is_away_is_said(client: Client, staff: User, settings: Any, tmp_path: Path) -> None:
    settings.GO_RUNTIME = {"socket": str(tmp_path / "none"), "timeout": 0.2}
    response = client.post("/graphs/", {"document": GRAPH, "action": "check"})
    assert response.status_code == 503
    assert "cannot be reached" in response.content.decode()
    assert html.escape(GRAPH) in response.content.decode()

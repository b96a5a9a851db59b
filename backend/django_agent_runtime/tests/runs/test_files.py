"""The files of runs over REST."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from django_agent_runtime.models import AgentRun
from django_agent_runtime.tests.runs.support import MESSAGES, sign_in

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from rest_framework.test import APIClient

    from django_agent_runtime.testing import FakeGoRuntime

pytestmark = pytest.mark.django_db(transaction=True)

RUNS = "/api/agents/runs/"
FILES = {"src/main.py": b"print()\n", "page.html": b"<script>alert(1)</script>", "größe.txt": b"x"}


@pytest.fixture
def run_id(api: APIClient, runtime: FakeGoRuntime) -> str:
    """A run of Ada's that has left files."""
    response = api.post(RUNS, {"agent_key": "chat-agent", "messages": MESSAGES}, format="json")
    run_id: str = response.json()["id"]
    runtime.add_run_files(run_id, FILES)
    return run_id


def content(response: Any) -> bytes:
    return b"".join(response.streaming_content) if response.streaming else response.content


def test_files_are_listed(api: APIClient, run_id: str) -> None:
    files = api.get(f"{RUNS}{run_id}/files/").json()["files"]
    assert [(file["path"], file["size"], file["executable"]) for file in files] == [
        (path, len(text), False) for path, text in sorted(FILES.items())
    ]
    assert {len(file["sha256"]) for file in files} == {64}


@pytest.mark.parametrize("accept", ["*/*", "text/html", "application/zip"])
def test_file_is_downloaded_and_not_shown(api: APIClient, run_id: str, accept: str) -> None:
    response = api.get(f"{RUNS}{run_id}/files/page.html", headers={"Accept": accept})
    assert (response.status_code, content(response)) == (200, FILES["page.html"])
    assert response["Content-Type"] == "application/octet-stream"
    assert response["Content-Disposition"] == 'attachment; filename="page.html"'
    assert response["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in response["Content-Security-Policy"]
    nested = api.get(f"{RUNS}{run_id}/files/src/main.py")
    assert (content(nested), nested["Content-Disposition"]) == (b"print()\n", 'attachment; filename="main.py"')
    foreign = api.get(f"{RUNS}{run_id}/files/gr%C3%B6%C3%9Fe.txt")
    assert (content(foreign), foreign["Content-Disposition"]) == (
        b"x",
        "attachment; filename*=utf-8''gr%C3%B6%C3%9Fe.txt",
    )


def test_files_come_as_a_zip(api: APIClient, run_id: str) -> None:
    response = api.get(f"{RUNS}{run_id}/files.zip")
    assert (response.status_code, response["Content-Type"]) == (200, "application/zip")
    assert response["Content-Disposition"] == f'attachment; filename="{run_id}.zip"'
    assert response["X-Content-Type-Options"] == "nosniff"
    with zipfile.ZipFile(io.BytesIO(content(response))) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == FILES


@pytest.mark.parametrize("address", ["files/", "files/src/main.py", "files.zip"])
def test_files_of_others_look_as_if_they_were_not_there(run_id: str, bob: User, address: str) -> None:
    refused = sign_in(bob).get(f"{RUNS}{run_id}/{address}")
    assert (refused.status_code, refused.json()["code"]) == (404, "RUN_NOT_FOUND")


@pytest.mark.parametrize("address", ["files/", "files/src/main.py", "files.zip"])
def test_nobody_gets_files_without_signing_in(run_id: str, client: Any, address: str) -> None:
    assert client.get(f"{RUNS}{run_id}/{address}").status_code in {401, 403}


@pytest.mark.parametrize("path", ["nothing", "src", "../../secret", "src/../page.html", "/etc/passwd", "%00"])
def test_file_that_is_not_there(api: APIClient, run_id: str, path: str) -> None:
    missing = api.get(f"{RUNS}{run_id}/files/{path}")
    assert missing.status_code == 404
    if missing["Content-Type"] == "application/problem+json":
        assert missing.json()["code"] in {"FILE_NOT_FOUND", "RUN_NOT_FOUND"}


@pytest.mark.usefixtures("runtime")
def test_run_that_left_no_files(api: APIClient, ada: User) -> None:
    # The runtime does not have it, or not any more.
    run = AgentRun.objects.create(agent_key="chat-agent", user=ada)
    assert api.get(f"{RUNS}{run.pk}/files/").json() == {"files": []}
    for address in ("files/main.py", "files.zip"):
        missing = api.get(f"{RUNS}{run.pk}/{address}")
        assert (missing.status_code, missing.json()["code"]) == (404, "FILE_NOT_FOUND")
    assert api.get(f"{RUNS}{run.pk}/files/?page=2").status_code == 400


def test_runtime_that_is_away(api: APIClient, run_id: str, no_runtime_settings: dict[str, Any]) -> None:
    with override_settings(GO_RUNTIME=no_runtime_settings):
        for address in ("files/", "files/src/main.py", "files.zip"):
            refused = api.get(f"{RUNS}{run_id}/{address}")
            assert (refused.status_code, refused.json()["code"]) == (503, "UNAVAILABLE")

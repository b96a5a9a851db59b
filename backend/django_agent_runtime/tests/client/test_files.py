"""The files that runs leave: on the fake, and what the real runtime says of a run that left none."""

from __future__ import annotations

import asyncio
import hashlib
import io
import stat
import zipfile
from typing import TYPE_CHECKING

import pytest

from django_agent_runtime import _archive, exceptions
from django_agent_runtime.go_integration import GoRuntimeIntegration
from django_agent_runtime.testing import FakeGoRuntime
from django_agent_runtime.types import RunFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGE = bytes(range(256)) * 4096
FILES = {"src/main.py": b"print()\n", "large.bin": LARGE, "empty": b"", "größe.txt": "größe".encode()}
UNKNOWN_RUN = "0192f0c0-0000-7000-8000-000000000001"


@pytest.fixture
def fake() -> Iterator[FakeGoRuntime]:
    with FakeGoRuntime() as fake:
        yield fake


@pytest.fixture
def runtime(fake: FakeGoRuntime) -> Iterator[GoRuntimeIntegration]:
    with GoRuntimeIntegration(**fake.settings) as runtime:
        yield runtime


@pytest.fixture
def run_id(fake: FakeGoRuntime, runtime: GoRuntimeIntegration) -> str:
    """A run that has left files."""
    run = runtime.submit_task("example_task", {})
    fake.add_run_files(run.run_id, FILES)
    return run.run_id


def test_files_are_listed_and_read(runtime: GoRuntimeIntegration, run_id: str) -> None:
    listed = runtime.list_run_files(run_id)
    assert listed == [
        RunFile(path, len(content), hashlib.sha256(content).hexdigest()) for path, content in sorted(FILES.items())
    ]
    for path, content in FILES.items():
        assert runtime.get_run_file(run_id, path) == content


def test_files_are_read_with_asyncio(runtime: GoRuntimeIntegration, run_id: str, tmp_path: Path) -> None:
    async def read() -> tuple[list[RunFile], bytes, list[Path]]:
        return (
            await runtime.alist_run_files(run_id),
            await runtime.aget_run_file(run_id, "large.bin"),
            await runtime.adownload_run_files(run_id, tmp_path),
        )

    listed, content, written = asyncio.run(read())
    assert (len(listed), content) == (len(FILES), LARGE)
    assert {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in written} == FILES


def test_files_are_downloaded(runtime: GoRuntimeIntegration, run_id: str, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    written = runtime.download_run_files(run_id, folder)
    assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in written} == FILES
    # Once more, over what is there.
    (folder / "empty").write_bytes(b"not any more")
    runtime.download_run_files(run_id, str(folder))
    assert (folder / "empty").read_bytes() == b""
    assert sorted(path.name for path in folder.iterdir()) == ["empty", "größe.txt", "large.bin", "src"]


def test_download_follows_no_link(runtime: GoRuntimeIntegration, run_id: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"mine")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "empty").symlink_to(outside / "file")
    runtime.download_run_files(run_id, folder)
    assert (outside / "file").read_bytes() == b"mine"
    assert not (folder / "empty").is_symlink()

    (folder / "src" / "main.py").unlink()
    (folder / "src").rmdir()
    (folder / "src").symlink_to(outside)
    with pytest.raises(ValueError, match="is a link"):
        runtime.download_run_files(run_id, folder)
    assert [path.name for path in outside.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "C:/x", "a\\..\\x", "a//b", "./x", ".."])
def test_archive_that_leads_out_is_refused(name: str, tmp_path: Path) -> None:
    text = io.BytesIO()
    with zipfile.ZipFile(text, "w") as archive:
        archive.writestr("first", b"fine")
        entry = zipfile.ZipInfo("x")
        entry.filename = name
        archive.writestr(entry, b"x")
    with pytest.raises(ValueError, match="leads out of the folder"):
        _archive.unpack(text, tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def test_archive_keeps_what_can_be_executed(tmp_path: Path) -> None:
    text = io.BytesIO()
    with zipfile.ZipFile(text, "w") as archive:
        for name, mode in (("run.sh", 0o755), ("notes", 0o644), ("setuid", 0o4755)):
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (stat.S_IFREG | mode) << 16
            archive.writestr(entry, b"")
    written = _archive.unpack(text, tmp_path)
    assert [stat.S_IMODE(path.stat().st_mode) for path in written] == [0o755, 0o644, 0o755]


def test_archive_over_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x" / "y").mkdir(parents=True)
    text = io.BytesIO()
    with zipfile.ZipFile(text, "w") as archive:
        archive.writestr("x", b"")
    with pytest.raises(ValueError, match="is there as a folder"):
        _archive.unpack(text, tmp_path)
    assert (tmp_path / "x" / "y").is_dir()


def test_files_that_are_not_there(runtime: GoRuntimeIntegration, run_id: str, tmp_path: Path) -> None:
    with pytest.raises(exceptions.RunFileNotFound) as caught:
        runtime.get_run_file(run_id, "nothing")
    assert isinstance(caught.value, LookupError)
    assert caught.value.metadata == {"run_id": run_id, "path": "nothing"}
    for call in (
        lambda: runtime.list_run_files(UNKNOWN_RUN),
        lambda: runtime.get_run_file(UNKNOWN_RUN, "a"),
        lambda: runtime.download_run_files(UNKNOWN_RUN, tmp_path / "folder"),
    ):
        with pytest.raises(exceptions.RunNotFound):
            call()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(exceptions.InvalidRequest, match="timeout"):
        runtime.get_run_file(run_id, "a", timeout=-1)


def test_run_of_the_real_runtime_that_left_none(client: GoRuntimeIntegration, tmp_path: Path) -> None:
    run = client.wait_run(client.submit_task("echo", {"n": 1}).run_id)
    assert client.list_run_files(run.run_id) == []
    assert client.download_run_files(run.run_id, tmp_path / "folder") == []
    with pytest.raises(exceptions.RunFileNotFound, match=r"main\.py"):
        client.get_run_file(run.run_id, "main.py")
    with pytest.raises(ValueError, match="two dots"):
        client.get_run_file(run.run_id, "../x")
    with pytest.raises(exceptions.RunNotFound):
        client.list_run_files(UNKNOWN_RUN)
    with pytest.raises(exceptions.RunNotFound):
        client.get_run_file(UNKNOWN_RUN, "main.py")

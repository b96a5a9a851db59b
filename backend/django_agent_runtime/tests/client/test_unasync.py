from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[4] / "scripts" / "unasync.py"


@pytest.fixture
def unasync() -> ModuleType:
    spec = importlib.util.spec_from_file_location("unasync", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_twins_are_what_the_script_writes(unasync: ModuleType) -> None:
    assert unasync.main(["--check"]) == 0


def copy_of(folder: Path, copy: Path) -> Path:
    copy.mkdir()
    for path in folder.glob("*.py"):
        (copy / path.name).write_text(path.read_text())
    return copy


def test_a_difference_is_shown(
    unasync: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    twins = copy_of(unasync.TARGET, tmp_path / "twins")
    monkeypatch.setattr(unasync, "TARGET", twins)
    runs = twins / "runs.py"
    runs.write_text(runs.read_text().replace("def get_run(", "def fetch_run("))
    (twins / "state.py").unlink()
    (twins / "forgotten.py").write_text("FORGOTTEN = 1\n")
    assert unasync.main(["--check"]) == 1
    difference = capsys.readouterr().out
    assert "+    def get_run(" in difference
    assert "+    def get_state(" in difference
    assert "-FORGOTTEN = 1" in difference
    assert unasync.main([]) == 0
    assert unasync.main(["--check"]) == 0


def test_a_rule_that_matches_nothing_is_an_error(unasync: ModuleType) -> None:
    sources = {path.name: path.read_text() for path in unasync.SOURCE.glob("*.py")}
    without = {name: text.replace("import asyncio\n", "") for name, text in sources.items()}
    with pytest.raises(ValueError, match=r"match nothing any more.*import asyncio"):
        unasync.generate(without)
    with pytest.raises(ValueError, match="no method"):
        unasync.generate({"x.py": "x = 1"})

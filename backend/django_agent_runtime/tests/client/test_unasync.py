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


def test_a_difference_is_shown(
    unasync: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "twins.py"
    changed.write_text(unasync.TARGET.read_text().replace("def get_run(", "def fetch_run("))
    monkeypatch.setattr(unasync, "TARGET", changed)
    assert unasync.main(["--check"]) == 1
    assert "+    def get_run(" in capsys.readouterr().out


def test_a_rule_that_matches_nothing_is_an_error(unasync: ModuleType) -> None:
    source = unasync.SOURCE.read_text()
    with pytest.raises(ValueError, match="matches nothing any more"):
        unasync.generate(source.replace("import asyncio\n", ""))
    with pytest.raises(ValueError, match="no method"):
        unasync.generate("x = 1")

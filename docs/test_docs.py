"""Run every code block of the README and the docs.

What a block's info string says decides how:

- `python`: executed; the blocks of a page share one namespace and one real runtime.
- `LANGUAGE file=PATH`: added to PATH in the page's scratch folder, which is the working folder of its other
  blocks. JSON and YAML must parse.
- `bash`: run by bash in the scratch folder, with the virtual environment and the runtime on the PATH; lines
  that call `make` are dry runs, since the verbs run these tests themselves, or for ever.
- `bash service=VARIABLE`: as above, but it runs on while the blocks after it do, and is waited for to listen on the
  port in the environment variable. Port variables that a page names hold free ports. One that serves
  GO_RUNTIME_PORT takes the place of the page's own runtime.
- `LANGUAGE source=PATH`: must stand word for word in that file of the repository, however it is indented.
- `text`: a drawing or a listing.

Any other block fails, so that none goes untested.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from django_agent_runtime.go_integration import get_go_runtime_integration
from django_agent_runtime.runtime.registry import clear_registry
from django_agent_runtime.testing import GoRuntimeProcess
from django_agent_runtime.testing.process import free_ports
from sybil import Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pytest_django
    from sybil import Document, Example, Region

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(Path(__file__).parent.rglob("*.md"))]
BASH_TIMEOUT_SECONDS = 240
SERVICE_TIMEOUT_SECONDS = 60
READ_BLOCKS = RawFencedCodeBlockLexer(re.compile(r"(?P<info>[^\n]*)\n"))
PARSERS: dict[str, Callable[[str], Any]] = {"json": json.loads, "yaml": yaml.safe_load}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.django_db
def test_code_blocks(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: pytest_django.fixtures.SettingsWrapper,
) -> None:
    document = Sybil(parsers=[_parse_blocks]).parse(page)
    examples = list(document.examples())
    if not examples:
        return
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.chdir(scratch)
    runtime = GoRuntimeProcess(tmp_path)
    settings.GO_RUNTIME = runtime.settings
    # A page's agents are its own, and not those of the site.
    settings.DJANGO_AGENT_RUNTIME = {}
    clear_registry()
    variables = set(re.findall(r"\b[A-Z_]+_PORT\b", page.read_text()))
    ports = {name: str(port) for name, port in zip(variables, free_ports(len(variables)), strict=True)}
    folders = [
        str(ROOT / ".venv" / "bin"),
        str(runtime.binary.parent),
        os.environ["PATH"],
    ]
    environment = {
        "GO_RUNTIME_HOST": runtime.host,
        "PATH": os.pathsep.join(folders),
        "PYTHONPATH": str(ROOT),
    }
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE")
    for name, value in {
        **ports,
        **environment,
        "GO_RUNTIME_PORT": str(runtime.port),
    }.items():
        monkeypatch.setenv(name, value)
    with ExitStack() as stack:
        if not any(_read_info(example)[1].get("service") == "GO_RUNTIME_PORT" for example in examples):
            stack.enter_context(runtime)
        document.namespace["services"] = stack
        for example in examples:
            example.evaluate()
        get_go_runtime_integration().disconnect()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page: Path) -> None:
    targets = re.findall(r"\]\((?!\w+:)([^)#]+)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("page", ["add-to-a-project.md", "move-from-django-agent-runtime.md"])
def test_versions_that_are_needed_are_those_of_the_package(page: str) -> None:
    text = (ROOT / "docs" / "how-to" / page).read_text()
    package = (ROOT / "backend" / "pyproject.toml").read_text()
    for subject, needed in (
        ("Django", r'"Django>=([\d.]+)"'),
        ("Python", r'requires-python = ">=([\d.]+)"'),
    ):
        assert re.findall(rf"{subject} ([\d.]*\d) or newer", text) == re.findall(needed, package) != []


def _parse_blocks(document: Document) -> Iterable[Region]:
    for region in READ_BLOCKS(document):
        region.parsed = region.lexemes["source"]
        region.evaluator = _evaluate_block
        yield region


def _read_info(example: Example) -> tuple[str, dict[str, str]]:
    """The language of a block, and its options."""
    language, *words = shlex.split(example.region.lexemes["info"]) or [""]
    return language, dict(word.split("=", 1) for word in words)


def _evaluate_block(example: Example) -> str | None:
    """Test one block; a returned text is the failure."""
    language, options = _read_info(example)
    source = str(example.parsed)
    if "file" in options:
        PARSERS.get(language, str)(source)
        path = Path(options["file"])
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(source)
        return None
    if "source" in options:
        text = (ROOT / options["source"]).read_text()
        return None if " ".join(source.split()) in " ".join(text.split()) else f"not in {options['source']}:\n{source}"
    if language == "python":
        PythonEvaluator()(example)
        return None
    if "service" in options:
        example.namespace["services"].enter_context(_serve(source, int(os.environ[options["service"]])))
        return None
    if language == "bash":
        return _run_bash(source)
    return None if language == "text" else f"no way to test a block of {language or 'no language'!r}"


def _run_bash(source: str) -> str | None:
    make = f"env -u MAKEFLAGS -u MAKELEVEL make --no-print-directory --dry-run -C {shlex.quote(str(ROOT))} "
    result = subprocess.run(
        [
            "bash",
            "-euo",
            "pipefail",
            "-c",
            re.sub(r"^make ", make, source, flags=re.MULTILINE),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BASH_TIMEOUT_SECONDS,
        check=False,
    )
    return None if result.returncode == 0 else f"exit code {result.returncode}:\n{source}\n{result.stdout}"


@contextmanager
def _serve(source: str, port: int) -> Iterator[None]:
    """Run a script beside the block, until it listens and from then on; it must end when asked to."""
    process = subprocess.Popen(["bash", "-euo", "pipefail", "-c", source], start_new_session=True)
    try:
        deadline = time.monotonic() + SERVICE_TIMEOUT_SECONDS
        while True:
            assert process.poll() is None, f"ended with exit code {process.returncode}:\n{source}"
            assert time.monotonic() < deadline, f"nothing listens on port {port}:\n{source}"
            with (
                suppress(OSError),
                socket.create_connection(("127.0.0.1", port), timeout=1),
            ):
                break
            time.sleep(0.05)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(SERVICE_TIMEOUT_SECONDS)

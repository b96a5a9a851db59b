"""Check the built wheel as its user meets it: a fresh environment, an empty Django project, the settings of the docs.

Takes the wheel from `dist/` (`make wheel` puts it there), installs it with pip and its dependencies
from the index into a temporary folder, starts `manage.py goruntime`, runs a task through
`manage.py shell`, and stops the runtime. Exit code 0 when all of it worked.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from django_agent_runtime.testing.process import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
READY_SECONDS = 60
STOP_SECONDS = 60
LICENCE_FILES = ("/licenses/LICENSE", "/THIRD_PARTY_NOTICES")

SETTINGS = """
INSTALLED_APPS += ["rest_framework", "django_agent_runtime"]
DATABASES["default"]["OPTIONS"] = {{"transaction_mode": "IMMEDIATE", "timeout": 20}}
GO_RUNTIME = {{"host": "localhost", "port": {port}}}
"""

TASK = """
import json
from django_agent_runtime.go_integration import get_go_runtime_integration
runtime = get_go_runtime_integration()
result = runtime.execute_task(
    task_type="example_task", input_data={"param1": "value1", "number": 2**63 - 1}, agent_id="agent1"
)
runtime.set_state("wheel", result)
print(json.dumps({"result": result, "state": runtime.get_state("wheel")}))
"""


def main() -> None:
    """Go through the steps; each failing command shows its own output."""
    wheel = find_wheel()
    check_licences(wheel)
    # Nothing of the checkout may leak in: neither its modules nor the binary it has built.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AGENT_RUNTIME_", "DJANGO_", "GO_RUNTIME_", "PYTHON", "VIRTUAL_ENV"))
    }
    environment["PATH"] = os.pathsep.join(path for path in os.get_exec_path() if not Path(path).is_relative_to(ROOT))
    with tempfile.TemporaryDirectory(prefix="wheel-check-") as folder:
        say(f"installing {wheel.name} into a fresh environment")
        subprocess.run([sys.executable, "-m", "venv", f"{folder}/venv"], check=True)
        python = f"{folder}/venv/bin/python"
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", str(wheel)],
            check=True,
            env=environment,
        )

        say("starting an empty Django project")
        subprocess.run(
            [python, "-m", "django", "startproject", "site1", folder],
            check=True,
            env=environment,
        )
        grpc_port, http_port = free_ports(2)
        with Path(folder, "site1", "settings.py").open("a") as settings:
            settings.write(SETTINGS.format(port=grpc_port))
        manage = [python, f"{folder}/manage.py"]
        subprocess.run(
            [*manage, "check", "--fail-level", "WARNING"],
            check=True,
            env=environment,
            cwd=folder,
        )

        say("running a task on `manage.py goruntime`")
        with run_runtime(
            [*manage, "goruntime", f"--http=127.0.0.1:{http_port}"],
            environment,
            folder,
            http_port,
        ):
            shell = [*manage, "shell", "--verbosity", "0", "-c", TASK]
            answer = subprocess.run(
                shell,
                check=True,
                env=environment,
                cwd=folder,
                stdout=subprocess.PIPE,
                text=True,
            )
            check_answer(json.loads(answer.stdout))
            subprocess.run([*manage, "goruntime_status"], check=True, env=environment, cwd=folder)
    say("the wheel works")


def find_wheel() -> Path:
    """The wheel of the current version in dist/."""
    version = (ROOT / "VERSION").read_text().strip()
    wheels = list((ROOT / "dist").glob(f"django_agent_runtime-{version}-py3-none-*.whl"))
    if len(wheels) != 1:
        fail(f"dist/ holds {len(wheels)} wheels of version {version}: run `make wheel` first.")
    return wheels[0]


def check_licences(wheel: Path) -> None:
    """The wheel must carry its own licence and those of what is linked into the runtime."""
    with zipfile.ZipFile(wheel) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist() if name.endswith(LICENCE_FILES)}
    own = [text for name, text in texts.items() if ".dist-info/" in name]
    if own != [(ROOT / "LICENSE").read_text()]:
        fail("the wheel does not carry the project's LICENSE.")
    notices = texts.get("django_agent_runtime/bin/THIRD_PARTY_NOTICES", "")
    for module in (
        "Go and its standard library",
        "github.com/nats-io/nats-server/v2",
        "google.golang.org/grpc",
    ):
        if f"\n{module}" not in notices:
            fail(f"the wheel does not carry the licence of {module}.")


def check_answer(answer: dict[str, object]) -> None:
    """The task's result must carry its input unchanged, and the state must give the result back."""
    texts = json.dumps(answer["result"])
    if '"value1"' not in texts or str(2**63 - 1) not in texts:
        fail(f"execute_task returned {texts}, which does not carry its input.")
    if answer["state"] != answer["result"]:
        fail(f"get_state returned {json.dumps(answer['state'])} for {texts}.")


@contextmanager
def run_runtime(command: list[str], environment: dict[str, str], folder: str, http_port: int) -> Iterator[None]:
    """Run the development runtime around a block; it must become ready, and end with 0 when asked to."""
    process = subprocess.Popen(command, env=environment, cwd=folder)
    try:
        wait_ready(process, f"http://127.0.0.1:{http_port}/readyz")
        yield
        process.send_signal(signal.SIGTERM)
        if process.wait(STOP_SECONDS) != 0:
            fail(f"the runtime ended with exit code {process.returncode} when asked to stop.")
    finally:
        process.kill()
        process.wait()


def wait_ready(process: subprocess.Popen[bytes], url: str) -> None:
    """Return when the address answers 200."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            fail(f"the runtime ended with exit code {process.returncode} at its start.")
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310  a loopback address
                return
        except OSError:
            time.sleep(0.05)
    fail(f"the runtime was not ready after {READY_SECONDS} seconds.")


def say(text: str) -> None:
    """Show progress."""
    print(f"check_wheel: {text}", flush=True)


def fail(sentence: str) -> NoReturn:
    """End the check with exit code 1."""
    sys.exit(f"check_wheel: {sentence}")


if __name__ == "__main__":
    main()

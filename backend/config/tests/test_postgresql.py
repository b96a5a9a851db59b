"""The site on a real PostgreSQL: a cluster of the test's own, where the server's programs are installed."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from django_agent_runtime.testing.process import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]
SITE_TESTS = ROOT / "backend" / "apps" / "python_agent" / "tests"
# Models, services, API, streams and the projector.
LIBRARY_TESTS = ROOT / "backend" / "django_agent_runtime" / "tests" / "runs"
# What comes to the database: sign-in by token and session, throttles, a stream, and requests of a real server.
SUBSET = ["test_access.py", "test_events_api.py", "test_fuzz.py"]
# Debian keeps initdb out of the PATH, in a folder for each version.
DEBIAN_FOLDERS = "/usr/lib/postgresql/*/bin"


def find_programs() -> Path:
    """The folder of initdb and pg_ctl, of the newest version there is; the test is skipped without one."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    folders = [folder for folder in Path("/").glob(DEBIAN_FOLDERS[1:]) if (folder / "initdb").exists()]
    if not folders:
        pytest.skip(f"no PostgreSQL server was found: no initdb on the PATH nor in {DEBIAN_FOLDERS}")
    return max(folders, key=lambda folder: float(folder.parent.name))


def find_owner() -> pwd.struct_passwd | None:
    """Who the server runs as, since it refuses to as root; None: whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


@pytest.fixture(scope="module")
def database_url() -> Iterator[str]:
    """The address of an empty database."""
    programs, owner = find_programs(), find_owner()
    [port] = free_ports(1)
    password = secrets.token_hex(16)
    # Not under tmp_path, whose folders let only their owner in.
    with tempfile.TemporaryDirectory(prefix="postgresql-") as name:
        folder = Path(name)
        (folder / "password").write_text(password)
        identity: dict[str, Any] = {}
        if owner is not None:
            for path in (folder, folder / "password"):
                os.chown(path, owner.pw_uid, owner.pw_gid)
            identity = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}

        def call(program: str, *arguments: str) -> None:
            command = [str(programs / program), f"--pgdata={folder / 'data'}", *arguments]
            # To a file, not a pipe: the server inherits it, and would keep the pipe open.
            with (folder / "log").open("ab") as log:
                done = subprocess.run(
                    command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, **identity
                )
            assert done.returncode == 0, (folder / "log").read_text()

        call("initdb", "--username=site", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync")
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories='' -c fsync=off"
        call("pg_ctl", "start", "--wait", f"--options={options}")
        try:
            yield f"postgresql://site:{password}@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "stop", "--wait", "--mode=immediate")


def run(command: list[str], database_url: str) -> None:
    """Run a command of the site on the database."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GO_RUNTIME_", "DJANGO_"))}
    done = subprocess.run(
        [sys.executable, *command],
        env=kept | {"DATABASE_URL": database_url},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_every_migration_runs(database_url: str) -> None:
    run(["backend/manage.py", "migrate", "--verbosity=0"], database_url)


# All the tests that it runs count as one.
@pytest.mark.timeout(900)
def test_the_tests_of_the_site_pass_on_a_pool_of_connections(database_url: str) -> None:
    files = [str(LIBRARY_TESTS), *(str(SITE_TESTS / name) for name in SUBSET)]
    options = ["-c", "backend/pyproject.toml", "--rootdir", ".", "-p", "no:cacheprovider", "--quiet"]
    run(["-m", "pytest", *options, *files], f"{database_url}?pool=5")

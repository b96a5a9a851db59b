"""A PostgreSQL cluster of the run's own, with its default configuration, where the server's programs are installed."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.child import ChildFailed, free_port

# Debian keeps initdb out of the PATH, in a folder for each version.
_DEBIAN_FOLDERS = "usr/lib/postgresql/*/bin"


def find_postgresql() -> Path | None:
    """The folder of initdb and pg_ctl, of the newest version there is, if anybody here may run them."""
    if os.geteuid() == 0 and _find_owner() is None:
        return None
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    folders = [folder for folder in Path("/").glob(_DEBIAN_FOLDERS) if (folder / "initdb").exists()]
    return max(folders, key=lambda folder: float(folder.parent.name), default=None)


def _find_owner() -> pwd.struct_passwd | None:
    """Who the server runs as in place of root, which it refuses."""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


@contextmanager
def start_postgresql(programs: Path) -> Iterator[str]:
    """Run a cluster; gives the URL of an empty database. A commit is on the disk when it is acknowledged.

    Raises:
        ChildFailed: It did not start; the message ends with what it printed.
    """
    owner = _find_owner() if os.geteuid() == 0 else None
    port, password = free_port(), secrets.token_hex(16)
    # Where its owner may come to: a checkout's folders may let nobody else in.
    with tempfile.TemporaryDirectory(prefix="bench-postgresql-", dir="/var/tmp") as name:
        folder = Path(name)
        (folder / "password").write_text(password)
        identity: dict[str, Any] = {}
        if owner is not None:
            for path in (folder, folder / "password"):
                os.chown(path, owner.pw_uid, owner.pw_gid)
            identity = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}

        def call(program: str, *arguments: str) -> None:
            # To a file, not a pipe: the server inherits it, and would keep the pipe open.
            with (folder / "log").open("ab") as log:
                done = subprocess.run(  # noqa: S603 - PostgreSQL's own programs
                    [programs / program, f"--pgdata={folder / 'data'}", *arguments],
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    check=False,
                    **identity,
                )
            if done.returncode:
                raise ChildFailed(f"{program} failed:\n{(folder / 'log').read_text()[-2000:]}")

        call("initdb", "--username=bench", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}")
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories=''"
        call("pg_ctl", "start", "--wait", f"--options={options}")
        try:
            yield f"postgresql://bench:{password}@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "stop", "--wait", "--mode=fast")

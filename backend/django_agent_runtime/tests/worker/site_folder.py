"""A Django project in a folder, and the `runagent` processes that a test starts in it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 40.0

SETTINGS = """
import os
SECRET_KEY = "test"
DEBUG = os.environ.get("SITE_DEBUG") == "1"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django_agent_runtime"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["SITE_DATABASE"]}}
USE_TZ = True
GO_RUNTIME = {"host": "127.0.0.1", "port": int(os.environ["SITE_PORT"])}
DJANGO_AGENT_RUNTIME = {
    "RUNTIME_REGISTRY": ["site_agents:register_agents"],
    "LEASE_TTL_SECONDS": float(os.environ.get("SITE_LEASE", "30")),
}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
"""

AGENTS = """
import asyncio, os, time
from pathlib import Path
from asgiref.sync import sync_to_async
from django.db import connection
from django.db.backends.signals import connection_created
from django_agent_runtime.runtime.interfaces import AgentRuntime
from django_agent_runtime.runtime.registry import register_runtime

FOLDER = Path(__file__).parent
VERSION = "1"

class Quick(AgentRuntime):
    key = "quick"
    async def run(self, ctx):
        return {"pid": os.getpid(), "version": VERSION}

class Poison(AgentRuntime):
    key = "poison"
    async def run(self, ctx):
        os._exit(9)

class Wait(AgentRuntime):
    key = "wait"
    async def run(self, ctx):
        await ctx.emit("begun", {"pid": os.getpid()})
        try:
            while not (FOLDER / "go-on").exists():
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            (FOLDER / f"cancelled-{os.getpid()}").touch()
            raise
        return {"pid": os.getpid()}

class Fork(AgentRuntime):
    key = "fork"
    async def run(self, ctx):
        pid = os.fork()
        if pid:
            _, status = await sync_to_async(os.waitpid)(pid, 0)
            return {"exit_code": os.waitstatus_to_exitcode(status)}
        how = ctx.params["how"]
        if how == "exits":
            raise SystemExit(3)
        if how == "fails":
            raise ValueError("the child's own")
        return {}

class Steps(AgentRuntime):
    key = "steps"
    async def run(self, ctx):
        async def charge():
            with (FOLDER / "charges").open("a") as file:
                file.write("charge\\n")
            return os.getpid()
        first = await ctx.step("charge", charge)
        await ctx.emit("charged", {"pid": os.getpid()})
        while not (FOLDER / "go-on").exists():
            await asyncio.sleep(0.005)
        return {"first": first, "pid": os.getpid()}

opened = []
connection_created.connect(lambda **_: opened.append(1), weak=False)

def query():
    with connection.cursor() as cursor:
        cursor.execute("select 1")
    return len(opened)

class Orm(AgentRuntime):
    key = "orm"
    async def run(self, ctx):
        return {"opened": [await sync_to_async(query)() for _ in range(3)]}

class PlainOrm(AgentRuntime):
    key = "plain-orm"
    def run(self, ctx):
        return {"opened": [query() for _ in range(3)]}

class Deaf(AgentRuntime):
    key = "deaf"
    def run(self, ctx):
        ctx.emit("begun", {"pid": os.getpid()})
        time.sleep(3600)

def register_agents():
    for kind in (Quick, Poison, Wait, Steps, Fork, Deaf, Orm, PlainOrm):
        register_runtime(kind())
"""


class Site:
    """A Django project in a folder, and the commands that a test starts in it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.processes: list[subprocess.Popen[bytes]] = []
        self.log = folder / "log"
        (folder / "site_settings.py").write_text(SETTINGS)
        (folder / "site_agents.py").write_text(AGENTS)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "django", "runagent", *arguments],
                cwd=self.folder,
                env={
                    **os.environ,
                    "DJANGO_SETTINGS_MODULE": "site_settings",
                    "PYTHONPATH": str(self.folder),
                    "PYTHONUNBUFFERED": "1",
                    "SITE_DATABASE": str(self.folder / "db.sqlite3"),
                    "SITE_PORT": str(self.port),
                    **environment,
                },
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def touch(self, name: str) -> None:
        (self.folder / name).touch()

    def wait_for_file(self, name: str) -> None:
        self.poll((self.folder / name).exists, name)

    def poll(self, condition: Callable[[], Any], what: str = "") -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"{what} not within {PATIENCE_SECONDS} s:\n{self.log.read_text()}"
            time.sleep(0.01)

    def kill(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()

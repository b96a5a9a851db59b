"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from django_agent_runtime.binary import find_binary

from bench.servers import find_redis

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts without which no figure means anything."""

    cpu: str
    cores: int
    virtual: bool
    """Whether it is a virtual machine."""
    memory_gib: float
    system: str
    kernel: str
    filesystem: str
    """Of the folder with the data of every server."""
    load_average: float
    """Of the last minute before the run: what else the machine was doing."""
    versions: dict[str, str]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def describe_machine(data: Path) -> Machine:
    """The facts of this machine; `data` is where the servers keep theirs."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    return Machine(
        cpu=_field(cpuinfo, r"model name\s*:\s*(.+)") or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        virtual=" hypervisor" in cpuinfo,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB, 1),
        system=_field(Path("/etc/os-release").read_text(), r'PRETTY_NAME="(.+)"') or platform.system(),
        kernel=platform.release(),
        filesystem=_filesystem(data),
        load_average=round(os.getloadavg()[0], 2),
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    versions = {
        "agent-runtime": _field(_output(str(find_binary()), "version"), r"agent-runtime (\S+)"),
        "Go": _field(_output("go", "version"), r"go(\d\S+)"),
        "Python": platform.python_version(),
    }
    versions |= {name: version(name) for name in ("grpcio", "protobuf")}
    redis_server = find_redis()
    if redis_server:
        versions["redis-server"] = _field(_output(redis_server, "--version"), r"v=(\S+)")
        versions |= {name: version(name) for name in ("redis", "celery")}
    return versions


def _filesystem(folder: Path) -> str:
    """The type of the filesystem a folder lies in, from the longest mount point that leads to it."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, name, *_ = line.split()
        if folder.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, name
    return kind


def _field(text: str, pattern: str) -> str:
    match = re.search(pattern, text)
    return match.group(1).strip() if match else ""


def _output(*command: str) -> str:
    return subprocess.check_output(command, text=True)  # noqa: S603 - fixed commands

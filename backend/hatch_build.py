"""Build hook: a wheel carries the compiled runtime and is tagged for its platform."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


class RuntimeBinaryHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts `go-runtime/bin/agent-runtime` and the licences of what is linked into it in `django_agent_runtime/bin/`.

    An editable install is left alone: a checkout finds the binary where `make build` puts it.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the binary and the platform tag; `version` is hatchling's word for standard or editable.

        Raises:
            SystemExit: The binary or its notices were not built yet, or this platform has no wheel.
        """
        if version == "editable":
            return
        folder = Path(self.root).parent / "go-runtime" / "bin"
        for name in ("agent-runtime", "THIRD_PARTY_NOTICES"):
            if not (folder / name).is_file():
                raise SystemExit(f"The wheel carries the runtime, and {folder / name} is missing: run `make wheel`.")
            build_data["force_include"][str(folder / name)] = f"django_agent_runtime/bin/{name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag()}"


def platform_tag() -> str:
    """The wheel platform tag of a static Go binary built on this machine.

    The Linux binary links no C library, so one wheel serves both glibc and musl systems.
    """
    machine = MACHINES.get(platform.machine().lower())
    if machine is None:
        raise SystemExit(f"No wheel is made for {platform.machine()} processors.")
    if sys.platform.startswith("linux"):
        return f"manylinux_2_17_{machine}.musllinux_1_1_{machine}"
    if sys.platform == "darwin":
        return "macosx_12_0_arm64" if machine == "aarch64" else "macosx_12_0_x86_64"
    raise SystemExit(f"No wheel is made for {sys.platform}.")

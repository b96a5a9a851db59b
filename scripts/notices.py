"""Write the licences of everything that is linked into the runtime to go-runtime/bin/THIRD_PARTY_NOTICES.

The wheel carries it beside the binary (`make wheel`). Exit code 1 when a module has no licence file, or
one that is not among those this project may pass on.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NOTICES = ROOT / "go-runtime" / "bin" / "THIRD_PARTY_NOTICES"
RULE = "=" * 80

# What a licence is told by; the first that fits names it.
LICENCES = {
    "Apache-2.0": ("Apache License", "Version 2.0"),
    "MPL-2.0": ("Mozilla Public License", "2.0"),
    "MIT": ("Permission is hereby granted, free of charge",),
    "BSD": ("Redistribution and use in source and binary forms",),
    "ISC": ("Permission to use, copy, modify, and",),
}
FILE_NAME = re.compile(r"(licen[cs]e|copying|notice|patents)", re.IGNORECASE)


def main() -> None:
    """Collect, check and write."""
    modules = linked_modules()
    go = Path(run_go("env", "GOROOT").strip())
    if not licence_files(go):
        # Some packages of Go leave the file out; the Go authors' own modules have the same.
        go = next(folder for path, _, folder in modules if path == "golang.org/x/sys")
    sections = [section("Go and its standard library", go)]
    sections += [section(f"{path} {version}", folder) for path, version, folder in modules]
    NOTICES.parent.mkdir(exist_ok=True)
    head = "agent-runtime is a program of its own licence. What is linked into it comes under these:\n"
    NOTICES.write_text("\n".join([head, *sections]), encoding="utf-8")
    print(f"notices: the licences of {len(sections)} modules")


def linked_modules() -> list[tuple[str, str, Path]]:
    """Path, version and folder of each module that a package of the binary comes from, but for our own."""
    packages = run_go("list", "-deps", "-json=Module", "./cmd/agent-runtime")
    found: set[tuple[str, str, Path]] = set()
    decoder, rest = json.JSONDecoder(), packages.strip()
    while rest:
        package, end = decoder.raw_decode(rest)
        rest = rest[end:].lstrip()
        module: dict[str, Any] = package.get("Module") or {"Main": True}
        module = module.get("Replace") or module
        if not module.get("Main"):
            found.add((module["Path"], module["Version"], Path(module["Dir"])))
    return sorted(found)


def section(name: str, folder: Path) -> str:
    """The licence files of one module under its name."""
    texts = [path.read_text(encoding="utf-8") for path in licence_files(folder)]
    kinds = [kind for kind, marks in LICENCES.items() if any(all(mark in text for mark in marks) for text in texts)]
    if not kinds:
        sys.exit(f"notices: {name} in {folder} has no licence that this project may pass on.")
    return "\n".join([RULE, f"{name} ({' and '.join(kinds)})", RULE, "", *texts])


def licence_files(folder: Path) -> list[Path]:
    """The licence files at the top of a module."""
    return sorted(path for path in folder.iterdir() if path.is_file() and FILE_NAME.match(path.name))


def run_go(*arguments: str) -> str:
    """What `go` prints in the module."""
    return subprocess.run(
        ["go", *arguments],
        cwd=ROOT / "go-runtime",
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


if __name__ == "__main__":
    main()

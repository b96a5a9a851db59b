"""Archives of files, unpacked without trust in what they say."""

from __future__ import annotations

import os
import stat
import tempfile
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, BinaryIO

__all__ = ["unpack"]

_CHUNK_BYTES = 1 << 20


def unpack(archive: BinaryIO, destination: Path) -> list[Path]:
    """Write the files of a zip below `destination`.

    Returns:
        Where each of them is.

    Raises:
        ValueError: A path leads out of the folder, or is there as a folder.
    """
    with zipfile.ZipFile(archive) as packed:
        entries = [entry for entry in packed.infolist() if not entry.is_dir()]
        targets = [_locate(destination, entry.filename) for entry in entries]
        destination.mkdir(parents=True, exist_ok=True)
        for entry, target in zip(entries, targets, strict=True):
            _make_folders(destination, target)
            mode = 0o755 if (entry.external_attr >> 16) & stat.S_IXUSR else 0o644
            with packed.open(entry) as source:
                _write(source, target, mode)
    return targets


def _locate(destination: Path, name: str) -> Path:
    path = PurePosixPath(name)
    parts = name.split("/")
    if path.is_absolute() or PureWindowsPath(name).anchor or "\\" in name or not all(parts) or {".", ".."} & set(parts):
        raise ValueError(f"{name!r} leads out of the folder")
    return destination.joinpath(*parts)


def _make_folders(destination: Path, target: Path) -> None:
    """Make the folders of a file, of which none may be a link to somewhere else."""
    folder = destination
    for part in target.relative_to(destination).parts[:-1]:
        folder /= part
        if folder.is_symlink():
            raise ValueError(f"{str(folder)!r} is a link and may lead out of the folder")
        folder.mkdir(exist_ok=True)
    if target.is_dir() and not target.is_symlink():
        raise ValueError(f"{str(target)!r} is there as a folder")


def _write(source: IO[bytes], target: Path, mode: int) -> None:
    """Replace a file as a whole: a link is replaced itself."""
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            while data := source.read(_CHUNK_BYTES):
                file.write(data)
        Path(temporary).chmod(mode)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink()
        raise

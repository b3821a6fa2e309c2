"""Copies on this machine of files in object storage, as many as fit.

Which files are copied is a function of their sizes and the room, so processes need not agree on it:
the first that fit, for a training set is read evenly and replacing copies would only move the gaps.
A copy is named by a hash of the file's name, size and time, so a changed object is copied anew.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reid.data import files

_TABLES = 8  # tables whose copies are kept, the last used ones: more than a run has


@dataclass(frozen=True, kw_only=True)
class Staging:
    """Where the copies of some files are, or will be when they are first read."""

    copies: Mapping[str, Path]

    def nearest(self, name: str) -> str:
        """Return the name to read `name` by: in its copy, made first if need be, or itself."""
        file, inside = files.divide(name)
        copy = self.copies.get(file)
        if copy is None:
            return name
        if not copy.exists():
            try:
                _copy(file, copy)
            except OSError:  # an absent file, a full disk, or copies that another run let go
                return name  # whose reading says what is wrong with it
        return f"{copy}#{inside}" if inside else str(copy)


NO_COPIES = Staging(copies={})


def stage(names: Sequence[str], *, folder: Path, room_bytes: int) -> Staging:
    """Return where copies of the remote files that hold `names` go: as many as `room_bytes` take.

    Each table of names has a folder of its own in `folder`, which keeps those last used.
    """
    remote = dict.fromkeys(file for name in names if files.is_remote(file := files.divide(name)[0]))
    stamps = files.stamps(list(remote))
    digest = hashlib.sha256("\0".join(f"{file} {stamps[file]}" for file in remote).encode())
    mine = folder / digest.hexdigest()[:32]
    copies, taken = {}, 0
    for file in remote:
        size, _, _ = stamps[file].partition(" ")
        if size.isdecimal() and taken + int(size) <= room_bytes:
            taken += int(size)
            key = hashlib.sha256(f"{file} {stamps[file]}".encode()).hexdigest()[:32]
            copies[file] = mine / f"{key}{os.path.splitext(file)[1]}"
    if copies:
        mine.mkdir(parents=True, exist_ok=True)
        os.utime(mine)
        _forget_old(folder)
    return Staging(copies=copies)


def _forget_old(folder: Path) -> None:
    tables = sorted(folder.iterdir(), key=lambda table: table.stat().st_mtime, reverse=True)
    for table in tables[_TABLES:]:
        shutil.rmtree(table, ignore_errors=True)  # another process may be at it


def _copy(file: str, copy: Path) -> None:
    """Copy a file unless another process or thread is doing it, whose copy is then waited for."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    part = copy.with_name(f".{copy.name}.part")
    with part.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if copy.exists():
            part.unlink(missing_ok=True)
            return
        stream.truncate(0)
        stream.write(files.read(file))
        stream.flush()
        os.fsync(stream.fileno())
        part.replace(copy)

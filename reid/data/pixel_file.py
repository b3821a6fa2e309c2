"""The file of a `PixelStore`: what is in it, and how processes that want it make it together.

It is a .npy array with a table behind it that numpy does not look at:

    header and pixels of the .npy format | N x CRC32 of a record | names, JSON | _END

While it is made it has another name, and beside it is a file of marks: one byte for each block of
images, not 0 when the block is written. A process locks that byte while it works on the block; the
system takes the lock back when the process ends, however it ends, and another does the block.

Legend: N images of the table.
"""

import fcntl
import io
import json
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from reid.data.decoding import UndecodableImages

_BLOCK = 256  # images decoded before they are written: bounds memory, keeps the threads busy
_END = struct.Struct("<8sQQI")  # magic, N, bytes of the names, CRC32 of checksums and names
_MAGIC = b"reidpix1"
_building = threading.Lock()  # locks on files do not hold between threads of a process


class DamagedStore(ValueError):  # noqa: N818 (says what was found, not only that it is an error)
    """A file of pixels is not what was written."""


def read_end(file: Path) -> tuple[NDArray[np.uint32], list[str]]:
    """Return the checksums of the records and the names of the images."""
    with file.open("rb") as stream:
        length = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, length - _END.size))
        end = stream.read()
        if len(end) < _END.size or not end.startswith(_MAGIC):
            raise DamagedStore(f"{file} is cut short")
        _, num_images, num_bytes, checksum = _END.unpack(end)
        size = 4 * num_images + num_bytes
        stream.seek(max(0, length - _END.size - size))
        table = stream.read(size)
        if len(table) < size or zlib.crc32(table) != checksum:
            raise DamagedStore(f"the checksums of {file} are damaged")
        stream.seek(0)
        try:
            np.lib.format.read_magic(stream)
            shape, _, _ = np.lib.format.read_array_header_1_0(stream)
        except ValueError as error:
            raise DamagedStore(f"{file} is damaged: {error}") from error
        if stream.tell() + int(np.prod(shape)) + size + _END.size != length:
            raise DamagedStore(f"{file} has another length than it was written with")
    sums = np.frombuffer(table, dtype="<u4", count=num_images)
    return sums, json.loads(table[4 * num_images :])


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Images to be records of `height` x `width`; `decode` returns pixels or why there are none."""

    names: Sequence[str]
    height: int
    width: int
    decode: Callable[[str], NDArray[np.uint8] | str]

    @property
    def header(self) -> bytes:
        """What stands before the records."""
        shape = (len(self.names), self.height, self.width, 3)
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        return stream.getvalue()

    @property
    def record_bytes(self) -> int:
        """Bytes of a record."""
        return self.height * self.width * 3

    @property
    def sums_at(self) -> int:
        """Where the checksums begin."""
        return len(self.header) + len(self.names) * self.record_bytes

    @property
    def blocks(self) -> list[slice]:
        """The rows of each block."""
        stops = range(_BLOCK, len(self.names) + _BLOCK, _BLOCK)
        return [slice(stop - _BLOCK, min(stop, len(self.names))) for stop in stops]


def build(
    file: Path,
    work: Decoding,
    threads: ThreadPoolExecutor,
    *,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Decode the images that no other process decodes, until `file` is there.

    `progress(done, N)` counts the images of all processes. What an interrupted one wrote is kept
    for the next. Raises `UndecodableImages` naming every file that does not decode.
    """
    partial, marks = file.with_name(f".{file.stem}.partial"), file.with_name(f".{file.stem}.marks")
    failures: list[tuple[str, str]] = []
    with _building, _opened(partial) as pixels, _opened(marks) as done:
        # Where the last of the others has finished since the caller looked, both files are new.
        if not file.exists():
            failures = _write_blocks(pixels, done, work, threads, progress)
            with _locked(done, len(work.blocks), waits=True):
                if not failures and not file.exists():
                    _write_end(pixels, work)
                    partial.replace(file)
        if failures or file.exists():
            partial.unlink(missing_ok=True)
            marks.unlink(missing_ok=True)
    if failures:
        raise UndecodableImages(failures, num_images=len(work.names))


def _write_blocks(
    pixels: BinaryIO,
    done: BinaryIO,
    work: Decoding,
    threads: ThreadPoolExecutor,
    progress: Callable[[int, int], None] | None,
) -> list[tuple[str, str]]:
    """Write all blocks, first those nobody works on; return (path, reason) of each failure."""
    failures: list[tuple[str, str]] = []
    left = list(enumerate(work.blocks))
    sizes = np.array([block.stop - block.start for block in work.blocks])
    for waits in (False, True):
        others = []
        for number, block in left:
            with _locked(done, number, waits=waits) as is_mine:
                if not is_mine:
                    others.append((number, block))
                    continue
                if not _marked(done, len(sizes))[number]:
                    bad = _write_block(pixels, block, work, threads)
                    failures += bad
                    if not bad:
                        _write(done, number, b"x")
            if progress is not None:
                marked = _marked(done, len(sizes))
                progress(int(sizes[marked].sum()), len(work.names))
        left = others
    return failures


def _write_block(
    pixels: BinaryIO, block: slice, work: Decoding, threads: ThreadPoolExecutor
) -> list[tuple[str, str]]:
    names = work.names[block]
    records: list[NDArray[np.uint8]] = []
    failures: list[tuple[str, str]] = []
    for name, record in zip(names, threads.map(work.decode, names), strict=True):
        if isinstance(record, str):
            failures.append((name, record))
        else:
            records.append(record)
    if not failures:
        sums = np.array([zlib.crc32(record.data) for record in records], dtype="<u4")
        parts = [record.data for record in records]
        _write(pixels, len(work.header) + block.start * work.record_bytes, *parts)
        _write(pixels, work.sums_at + 4 * block.start, sums.data)
        os.fdatasync(pixels.fileno())  # the mark must not outlive a power cut the pixels do not
    return failures


def _write_end(pixels: BinaryIO, work: Decoding) -> None:
    pixels.seek(work.sums_at)
    sums = pixels.read(4 * len(work.names))
    listed = json.dumps(list(work.names)).encode()
    end = _END.pack(_MAGIC, len(work.names), len(listed), zlib.crc32(sums + listed))
    _write(pixels, work.sums_at + len(sums), listed, end)
    _write(pixels, 0, work.header)
    os.fsync(pixels.fileno())


def _marked(done: BinaryIO, num_blocks: int) -> NDArray[np.bool_]:
    """Return which blocks are written."""
    done.seek(0)
    found = done.read(num_blocks).ljust(num_blocks, b"\0")
    marks: NDArray[np.bool_] = np.frombuffer(found, dtype=np.uint8) != 0
    return marks


def _write(stream: BinaryIO, at: int, *parts: bytes | memoryview) -> None:
    stream.seek(at)
    for part in parts:
        stream.write(part)
    stream.flush()


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """Open a file to read and write, an empty one where there is none."""
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as stream:
        yield stream


@contextmanager
def _locked(done: BinaryIO, number: int, *, waits: bool) -> Iterator[bool]:
    """Lock one byte against other processes; yield whether it is ours."""
    try:
        fcntl.lockf(done, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB), 1, number)
    except (BlockingIOError, PermissionError):
        yield False
        return
    try:
        yield True
    finally:
        fcntl.lockf(done, fcntl.LOCK_UN, 1, number)

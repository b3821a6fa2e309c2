"""Decode once: a memory-mapped table of resized pixels, one fixed-size record per image.

The file is a .npy array with a table behind it that numpy does not look at:

    header and pixels of the .npy format | N x CRC32 of a record | names, JSON | _END

Legend: N images of the table, n rows read, H height, W width.
"""

import json
import logging
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import numpy as np
from jaxtyping import Int64, Shaped, UInt8
from numpy.typing import NDArray

from reid.data import files
from reid.data.decoding import POLICY, UndecodableImages, decode
from reid.data.encoded_store import EncodedStore

log = logging.getLogger(__name__)

_BLOCK = 256  # images decoded before they are written: bounds memory, keeps the threads busy
_END = struct.Struct("<8sQQI")  # magic, N, bytes of the names, CRC32 of checksums and names
_MAGIC = b"reidpix1"


class DamagedStore(ValueError):  # noqa: N818 (says what was found, not only that it is an error)
    """A file of pixels is not what was written."""


class PixelStore:
    """Pixels of a whole table, (N,H,W,3) uint8 RGB, mapped from one file and shared by processes.

    A file that is cut or has another length than written raises `DamagedStore` at opening. A record
    is compared with its CRC32 when this process first reads it; one that differs is decoded again
    from its image, and the file removed, so that the next opening makes it anew. Pickles as the
    file's name, so that workers map the file instead of receiving its content.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._sums, self._names = _read_end(file)
        try:
            self._pixels: NDArray[np.uint8] = np.asarray(np.load(file, mmap_mode="r"))
            num_images, self.height, self.width, _ = self._pixels.shape
        except (ValueError, EOFError) as error:
            raise DamagedStore(f"{file} is damaged: {error}") from error
        if num_images != len(self._sums):
            raise DamagedStore(f"{file} is damaged: {num_images} images, {len(self._sums)} sums")
        self._is_checked = np.zeros(num_images, dtype=bool)

    def __len__(self) -> int:
        """Return N."""
        return len(self._pixels)

    def __reduce__(self) -> tuple[type["PixelStore"], tuple[Path]]:
        return PixelStore, (self.file,)

    def read(self, rows: Int64[np.ndarray, "n"]) -> UInt8[np.ndarray, "n H W 3"]:
        """Return a copy of these rows' pixels, (n,H,W,3) uint8 RGB, in the order asked.

        Raises `DamagedStore` for a damaged record whose image does not give the same pixels again.
        """
        pixels = self._pixels.take(rows, axis=0)
        if not (was_checked := self._is_checked[rows]).all():
            self._check(rows, pixels, np.flatnonzero(~was_checked))
        return pixels

    def _check(
        self,
        rows: Int64[np.ndarray, "n"],
        pixels: UInt8[np.ndarray, "n H W 3"],
        unchecked: Int64[np.ndarray, "u"],
    ) -> None:
        """Compare what was read with its checksums; put right what differs, in `pixels`."""
        for position in unchecked.tolist():
            row = int(rows[position])
            if zlib.crc32(pixels[position].data) == self._sums[row]:
                self._is_checked[row] = True
            else:
                pixels[position] = self._again(row)

    def _again(self, row: int) -> NDArray[np.uint8]:
        self.file.unlink(missing_ok=True)  # what is mapped stays until this process ends
        name = self._names[row]
        log.warning("image %d of %s is damaged: decoded again from %s", row, self.file, name)
        record = decode(name, height=self.height, width=self.width)
        if isinstance(record, str) or zlib.crc32(record.data) != self._sums[row]:
            raise DamagedStore(
                f"{self.file} is damaged and {name} no longer gives image {row} of it; the file "
                "was removed: run again"
            )
        return record


def _read_end(file: Path) -> tuple[NDArray[np.uint32], list[str]]:
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


def open_pixels(
    paths: Shaped[np.ndarray, "N"],
    *,
    height: int,
    width: int,
    cache_dir: str | Path,
    budget_bytes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PixelStore | EncodedStore:
    """Map the pixels of `paths` (N,) str, decoding them first unless `cache_dir` holds them.

    The file's name is a hash of the paths, their sizes and modification times, the shape and
    `POLICY`: a changed image or rule never meets stale pixels. The file appears complete or not at
    all, and processes that build it at once each write their own and agree on the last; a damaged
    one is made anew. Where the pixels would take more than `budget_bytes` they stay encoded and are
    decoded at each reading. `progress(done, N)` is called as images are decoded, never when the
    pixels were there. Raises `UndecodableImages` naming every file that is missing or does not
    decode (an encoded table at its reading).
    """
    if len(paths) == 0:
        raise ValueError("paths is empty: a pixel store needs at least one image.")
    needed = len(paths) * height * width * 3
    if budget_bytes is not None and needed > budget_bytes:
        log.warning(
            "%d images take %.2f GB decoded, the budget is %.2f GB: they stay encoded and are "
            "decoded at each reading, which is slower",
            len(paths), needed / 1e9, budget_bytes / 1e9,
        )  # fmt: skip
        return EncodedStore(paths, height=height, width=width)
    names: list[str] = paths.tolist()
    with files.open_threads(names) as threads:  # Pillow decodes and resizes without the GIL
        key = files.fingerprint(names, threads, rule=f"{POLICY}\0{height} {width}")
        file = Path(cache_dir) / f"{key}.npy"
        if (store := _whole(file)) is not None:
            return store
        file.parent.mkdir(parents=True, exist_ok=True)
        one = partial(decode, height=height, width=width)
        _build(file, names, threads, one, shape=(len(names), height, width, 3), progress=progress)
    return PixelStore(file)


def _whole(file: Path) -> PixelStore | None:
    """Return the store of a file, None where it is absent or damaged."""
    try:
        return PixelStore(file)
    except FileNotFoundError:
        return None
    except DamagedStore as error:
        log.warning("%s: the images are decoded again", error)
        return None


def _build(
    file: Path,
    names: Sequence[str],
    threads: ThreadPoolExecutor,
    one: Callable[[str], NDArray[np.uint8] | str],
    *,
    shape: tuple[int, ...],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Decode every image into a temporary file and rename it to `file` when it is complete."""
    temporary = file.with_name(f".{file.stem}.{uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as out:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(out, header)
            sums, failures = _write(out, names, threads, one, progress)
            if failures:
                raise UndecodableImages(failures, num_images=len(names))
            listed = json.dumps(names).encode()
            table = np.array(sums, dtype="<u4").tobytes() + listed
            out.write(table)
            out.write(_END.pack(_MAGIC, len(names), len(listed), zlib.crc32(table)))
            out.flush()
            os.fsync(out.fileno())  # the name must not outlive a power cut that the pixels do not
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _write(
    out: BinaryIO,
    names: Sequence[str],
    threads: ThreadPoolExecutor,
    one: Callable[[str], NDArray[np.uint8] | str],
    progress: Callable[[int, int], None] | None,
) -> tuple[list[int], list[tuple[str, str]]]:
    """Append the records in order, a block at a time.

    Returns the checksum of each record, and (path, reason) of each failure.
    """
    sums: list[int] = []
    failures: list[tuple[str, str]] = []
    for start in range(0, len(names), _BLOCK):
        block = names[start : start + _BLOCK]
        for name, record in zip(block, threads.map(one, block), strict=True):
            if isinstance(record, str):
                failures.append((name, record))
            else:
                sums.append(zlib.crc32(record.data))
                out.write(record.data)
        if progress is not None:
            progress(start + len(block), len(names))
    return sums, failures

"""Decode once: a memory-mapped table of resized pixels, one fixed-size record per image.

Legend: N images of the table, n rows read, H height, W width.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import numpy as np
from jaxtyping import Int64, Shaped, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageOps

POLICY = "1: EXIF orientation, RGB, Pillow bicubic with antialiasing"
"""How a file becomes pixels. Part of every key: change it when the pixels change."""

_BLOCK = 256  # images decoded before they are written: bounds memory, keeps the threads busy
_NAMED = 10  # failures an error message names


class UndecodableImages(ValueError):  # noqa: N818 (says what was found, not only that it is an error)
    """Some images could not be read; `paths` holds all of them."""

    def __init__(self, failures: Sequence[tuple[str, str]], *, num_images: int) -> None:
        self.paths = tuple(path for path, _ in failures)
        named = "; ".join(f"{path} ({reason})" for path, reason in failures[:_NAMED])
        more = f"; and {len(failures) - _NAMED} more" if len(failures) > _NAMED else ""
        super().__init__(
            f"{len(failures)} of {num_images} images do not decode: {named}{more}. "
            "Repair these files or take them out of the table."
        )


class PixelStore:
    """Pixels of a whole table, (N,H,W,3) uint8 RGB, mapped from one file and shared by processes.

    Pickles as the file's name, so that workers map the file instead of receiving its content.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._pixels: NDArray[np.uint8] = np.asarray(np.load(file, mmap_mode="r"))
        _, self.height, self.width, _ = self._pixels.shape

    def __len__(self) -> int:
        """Return N."""
        return len(self._pixels)

    def __reduce__(self) -> tuple[type["PixelStore"], tuple[Path]]:
        return PixelStore, (self.file,)

    def read(self, rows: Int64[np.ndarray, "n"]) -> UInt8[np.ndarray, "n H W 3"]:
        """Return a copy of these rows' pixels, (n,H,W,3) uint8 RGB, in the order asked."""
        return self._pixels.take(rows, axis=0)


def open_pixels(
    paths: Shaped[np.ndarray, "N"],
    *,
    height: int,
    width: int,
    cache_dir: str | Path,
    progress: Callable[[int, int], None] | None = None,
) -> PixelStore:
    """Map the pixels of `paths` (N,) str, decoding them first unless `cache_dir` holds them.

    The file's name is a hash of the paths, their sizes and modification times, the shape and
    `POLICY`: a changed image or rule never meets stale pixels. The file appears complete or not at
    all, and processes that build it at once each write their own and agree on the last.
    `progress(done, N)` is called as images are decoded, never when the pixels were there.
    Raises `UndecodableImages` naming every file that is missing or does not decode.
    """
    if len(paths) == 0:
        raise ValueError("paths is empty: a pixel store needs at least one image.")
    names = [str(path) for path in paths]
    with ThreadPoolExecutor() as threads:  # Pillow decodes and resizes without the GIL
        stamps = threads.map(_stamp, names)
        file = Path(cache_dir) / f"{_key(names, stamps, height=height, width=width)}.npy"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            _build(file, names, threads, height=height, width=width, progress=progress)
    return PixelStore(file)


def _stamp(path: str) -> str:
    """Return what changes when the file does; a missing file is reported by decoding."""
    try:
        status = Path(path).stat()
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def _key(names: Iterable[str], stamps: Iterable[str], *, height: int, width: int) -> str:
    digest = hashlib.sha256(f"{POLICY}\0{height} {width}".encode())
    for name, stamp in zip(names, stamps, strict=True):
        digest.update(f"\0{name}\0{stamp}".encode())
    return digest.hexdigest()[:32]


def _build(
    file: Path,
    names: Sequence[str],
    threads: ThreadPoolExecutor,
    *,
    height: int,
    width: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Decode every image into a temporary file and rename it to `file` when it is complete."""
    temporary = file.with_name(f".{file.stem}.{uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as out:
            shape = (len(names), height, width, 3)
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(out, header)
            one = partial(decode, height=height, width=width)
            failures = _write(out, names, threads, one, progress)
            if failures:
                raise UndecodableImages(failures, num_images=len(names))
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
) -> list[tuple[str, str]]:
    """Append the records in order, a block at a time; return (path, reason) of each failure."""
    failures: list[tuple[str, str]] = []
    for start in range(0, len(names), _BLOCK):
        block = names[start : start + _BLOCK]
        for name, record in zip(block, threads.map(one, block), strict=True):
            if isinstance(record, str):
                failures.append((name, record))
            else:
                out.write(record.data)
        if progress is not None:
            progress(start + len(block), len(names))
    return failures


def decode(path: str, *, height: int, width: int) -> NDArray[np.uint8] | str:
    """Return one record (height,width,3) uint8, or why there is none."""
    try:
        with Image.open(path) as image:
            ImageOps.exif_transpose(image, in_place=True)
            resized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    except Exception as error:  # on a damaged file Pillow's readers raise almost anything
        return f"{type(error).__name__}: {error}"
    return np.asarray(resized)

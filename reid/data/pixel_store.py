"""Decode once: a memory-mapped table of resized pixels, one fixed-size record per image.

`pixel_file` says what is in the file and makes it.
Legend: N images of the table, n rows read, H height, W width.
"""

import logging
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped, UInt8
from numpy.typing import NDArray

from reid.data import files
from reid.data.decoding import POLICY, decode
from reid.data.encoded_store import EncodedStore
from reid.data.pixel_file import DamagedStore, Decoding, build, read_end
from reid.data.staging import stage

log = logging.getLogger(__name__)


class PixelStore:
    """Pixels of a whole table, (N,H,W,3) uint8 RGB, mapped from one file and shared by processes.

    A file that is cut or has another length than written raises `DamagedStore` at opening. A record
    is compared with its CRC32 when this process first reads it; one that differs is decoded again
    from its image, and the file removed, so that the next opening makes it anew. Pickles as the
    file's name, so that workers map the file instead of receiving its content.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._sums, self._names = read_end(file)
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
    all; processes that want it at once divide the images among them, what was decoded before an
    interruption is kept, and a damaged file is made anew. Where the pixels would take more than
    `budget_bytes` they stay encoded and are decoded at each reading, those in object storage from
    copies as far as these fit in as many bytes. `progress(done, N)` is called as images are
    decoded, never when the pixels were there. Raises `UndecodableImages` naming every file that is
    missing or does not decode (an encoded table at its reading).
    """
    if len(paths) == 0:
        raise ValueError("paths is empty: a pixel store needs at least one image.")
    names: list[str] = paths.tolist()
    needed = len(paths) * height * width * 3
    if budget_bytes is not None and needed > budget_bytes:
        log.warning(
            "%d images take %.2f GB decoded, the budget is %.2f GB: they stay encoded and are "
            "decoded at each reading, which is slower",
            len(paths), needed / 1e9, budget_bytes / 1e9,
        )  # fmt: skip
        staging = stage(names, folder=Path(cache_dir) / "copies", room_bytes=budget_bytes)
        return EncodedStore(paths, height=height, width=width, staging=staging)
    with files.open_threads(names) as threads:  # Pillow decodes and resizes without the GIL
        key = files.fingerprint(names, threads, rule=f"{POLICY}\0{height} {width}")
        file = Path(cache_dir) / f"{key}.npy"
        if (store := _whole(file)) is not None:
            return store
        file.parent.mkdir(parents=True, exist_ok=True)
        one = partial(decode, height=height, width=width)
        work = Decoding(names=names, height=height, width=width, decode=one)
        build(file, work, threads, progress=progress)
    return PixelStore(file)


def _whole(file: Path) -> PixelStore | None:
    """Return the store of a file, None where it is absent or damaged."""
    try:
        return PixelStore(file)
    except FileNotFoundError:
        return None
    except DamagedStore as error:
        log.warning("%s: the images are decoded again", error)
        file.unlink(missing_ok=True)
        return None

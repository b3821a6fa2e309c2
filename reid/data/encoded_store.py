"""Images left encoded: what a table is read from where its decoded pixels do not fit on the disk.

Legend: N images of the table, n rows read, H height, W width.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial

import numpy as np
from jaxtyping import Int64, Shaped, UInt8
from numpy.typing import NDArray

from reid.data import files
from reid.data.decoding import UndecodableImages, decode
from reid.data.staging import NO_COPIES, Staging


class EncodedStore:
    """Images of a whole table, decoded and resized (H,W) at each reading, by threads.

    The pixels are those a `PixelStore` of the same paths holds. Files in object storage are read
    from the copies that `staging` has of them. Pickles as the paths.
    """

    def __init__(
        self,
        paths: Shaped[np.ndarray, "N"],
        *,
        height: int,
        width: int,
        staging: Staging = NO_COPIES,
    ) -> None:
        if len(paths) == 0:
            raise ValueError("paths is empty: a store needs at least one image.")
        self.paths, self.height, self.width, self.staging = paths, height, width, staging

    def __len__(self) -> int:
        """Return N."""
        return len(self.paths)

    def __reduce__(self) -> tuple[object, ...]:
        how = {"height": self.height, "width": self.width, "staging": self.staging}
        return partial(EncodedStore, **how), (self.paths,)  # type: ignore[arg-type]

    def read(self, rows: Int64[np.ndarray, "n"]) -> UInt8[np.ndarray, "n H W 3"]:
        """Return these rows' pixels, uint8 RGB, in the order asked.

        Raises `UndecodableImages` naming every file that is missing or does not decode.
        """
        names = [str(path) for path in self.paths[rows]]
        records = list(self._threads.map(self._decode, names))
        failures = [(n, r) for n, r in zip(names, records, strict=True) if isinstance(r, str)]
        if failures:
            raise UndecodableImages(failures, num_images=len(names))
        pixels = np.empty((len(rows), self.height, self.width, 3), dtype=np.uint8)
        for row, record in enumerate(records):
            pixels[row] = record
        return pixels

    def encoded(self, rows: Int64[np.ndarray, "n"]) -> Sequence[NDArray[np.uint8]]:
        """Return the bytes of these rows' files, for a decoder of its own."""
        return list(self._threads.map(self._bytes, self.paths[rows].tolist()))

    def _decode(self, name: str) -> NDArray[np.uint8] | str:
        return decode(self.staging.nearest(name), height=self.height, width=self.width)

    def _bytes(self, name: str) -> NDArray[np.uint8]:
        data = files.read(self.staging.nearest(name))
        return np.frombuffer(bytearray(data), dtype=np.uint8)  # writable, as DALI asks

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return files.open_threads(self.paths.tolist())  # Pillow works without the GIL

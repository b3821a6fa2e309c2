"""The reference loader: pixels and augmentation in torch.

Legend: n rows read, B rows of a batch on one rank, H height, W width.
"""

from collections.abc import Generator

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from reid.data.augment import apply, normalise
from reid.data.prefetch import Loader, prefetch
from reid.data.steps import ImageStore, Plan


def _images(
    plan: Plan, store: ImageStore, _number: int, device: torch.device
) -> list[Float32[Tensor, "B 3 H W"]]:
    pixels = _pixels(store, plan.rows, device=device)
    views = zip(plan.params, plan.augment, strict=True)
    return [apply(pixels, params, config) for params, config in views]


torch_loader = Loader(_images)
"""The loader that all others are compared with."""


def read_batches(
    store: ImageStore,
    *,
    rows: range | Int64[np.ndarray, "n"],
    batch_size: int,
    device: torch.device | str,
) -> Generator[Float32[Tensor, "B 3 H W"], None, None]:
    """Yield these rows in order, normalised and not augmented, exactly `batch_size` at a time.

    The last batch repeats its last row, for the caller to trim: a network then sees one shape, and
    its results do not depend on how blocks of rows are spread over ranks.
    """
    device = torch.device(device)

    def make(start: int) -> Float32[Tensor, "B 3 H W"]:
        block = np.asarray(rows[start : start + batch_size], dtype=np.int64)
        padding = np.repeat(block[-1:], batch_size - len(block))
        return normalise(_pixels(store, np.append(block, padding), device=device))

    return prefetch(make, range(0, len(rows), batch_size), device=device)


def _pixels(
    store: ImageStore, rows: Int64[np.ndarray, "n"], *, device: torch.device
) -> UInt8[Tensor, "n H W 3"]:
    images = torch.from_numpy(store.read(rows))
    if device.type == "cuda":  # uint8 over the bus, without waiting for it
        return images.pin_memory().to(device, non_blocking=True)
    return images.to(device)

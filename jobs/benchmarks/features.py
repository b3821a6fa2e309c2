"""Made features that clustering is measured on, in memory or in a file.

Legend: N rows, D feature dimensions.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy.random import Generator, Philox, SeedSequence

IMAGES_PER_IDENTITY = 17
"""on average, as in Market-1501's training set"""
_NUM_CAMERAS = 6
_CAMERA_SHIFT, _SPREAD, _NOISE = np.float32(0.7), np.float32(1.25), np.float32(0.35)
_PIECE = 8192  # rows made at a time


def made_features(
    num_rows: int, num_features: int, *, seed: int = 0, rank: int = 128
) -> Float32[np.ndarray, "N D"]:
    """Return unit rows (N,D) as networks make them: identities of low rank, shifted by camera.

    17 images of an identity on average, in no order; the spread within an identity is in the same
    few dimensions and varies among images, noise is in all dimensions.
    """
    features = np.empty((num_rows, num_features), np.float32)
    _fill(features, seed=seed, rank=rank)
    return features


def write_features(
    path: Path, num_rows: int, num_features: int, *, seed: int = 0
) -> Float32[np.ndarray, "N D"]:
    """Write the rows of `made_features` to a file, never whole in memory; return it as a map."""
    shape = (num_rows, num_features)
    table = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    _fill(table, seed=seed, rank=128)
    table.flush()
    kept: np.ndarray = np.load(path, mmap_mode="r")
    return kept


def _fill(table: Float32[np.ndarray, "N D"], *, seed: int, rank: int) -> None:
    """Write the rows piece by piece, each from random numbers of its own."""
    num_rows, num_features = table.shape
    world = Generator(Philox(seed))
    num_identities = max(1, num_rows // IMAGES_PER_IDENTITY)
    identities = world.standard_normal((num_identities, rank), dtype=np.float32)
    cameras = _CAMERA_SHIFT * world.standard_normal((_NUM_CAMERAS, rank), dtype=np.float32)
    axes = world.standard_normal((rank, num_features), dtype=np.float32) / np.float32(rank**0.5)
    for piece, low in enumerate(range(0, num_rows, _PIECE)):
        own = Generator(Philox(SeedSequence([seed, piece])))
        size = min(_PIECE, num_rows - low)
        latent = identities[own.integers(num_identities, size=size)]
        latent += cameras[own.integers(_NUM_CAMERAS, size=size)]
        width = own.uniform(0.5 * _SPREAD, 1.5 * _SPREAD, (size, 1)).astype(np.float32)
        latent += width * own.standard_normal((size, rank), dtype=np.float32)
        rows = latent @ axes
        rows += _NOISE * own.standard_normal(rows.shape, dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        table[low : low + size] = rows

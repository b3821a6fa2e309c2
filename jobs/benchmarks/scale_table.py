"""Made features of any number of rows, in a file: never whole in memory.

The structure is that of the other benchmarks' made features: identities of low rank, shifted by
camera, noise in all dimensions, unit length.

Legend: N rows, n rows of one piece, D feature dimensions.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy.random import Generator, Philox, SeedSequence

IMAGES_PER_IDENTITY = 17
"""as Market-1501's training set"""
RANK = 128
NUM_CAMERAS = 6
CAMERA_SHIFT, SPREAD, NOISE = 0.7, 1.25, 0.35
_PIECE = 8192  # rows made at a time


def write_features(
    path: Path, num_rows: int, num_features: int, *, seed: int = 0
) -> Float32[np.ndarray, "N D"]:
    """Write unit features (N,D) to a file, piece by piece; return them as a map of the file.

    Each piece has random numbers of its own, so it does not matter who makes it.
    """
    world = Generator(Philox(seed))
    num_identities = max(1, num_rows // IMAGES_PER_IDENTITY)
    identities = world.standard_normal((num_identities, RANK), dtype=np.float32)
    cameras = np.float32(CAMERA_SHIFT) * world.standard_normal((NUM_CAMERAS, RANK), np.float32)
    axes = world.standard_normal((RANK, num_features), dtype=np.float32) / np.float32(RANK**0.5)
    shape = (num_rows, num_features)
    table = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    for piece, low in enumerate(range(0, num_rows, _PIECE)):
        own = Generator(Philox(SeedSequence([seed, piece])))
        size = min(_PIECE, num_rows - low)
        latent = identities[own.integers(num_identities, size=size)]
        latent += cameras[own.integers(NUM_CAMERAS, size=size)]
        width = own.uniform(0.5 * SPREAD, 1.5 * SPREAD, (size, 1)).astype(np.float32)
        latent += width * own.standard_normal((size, RANK), dtype=np.float32)
        rows = latent @ axes
        rows += np.float32(NOISE) * own.standard_normal(rows.shape, dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        table[low : low + size] = rows
    table.flush()
    return np.load(path, mmap_mode="r")

"""Tables and slow references of the clustering tests."""

from collections.abc import Callable, Iterator
from importlib import import_module

import numpy as np
import pytest


@pytest.fixture(scope="session")
def brute_dist_sq() -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return squared distances (N,K) from differences in float64."""

    def dist_sq(rows: np.ndarray, centers: np.ndarray) -> np.ndarray:
        columns = [((rows.astype(np.float64) - center) ** 2).sum(axis=1) for center in centers]
        return np.stack(columns, axis=1)

    return dist_sq


@pytest.fixture(scope="module")
def small_blocks() -> Iterator[None]:
    """Make blocks of 3 rows and tiles of 2 to 5, so that small tables cross their edges."""
    sizes = [
        (3, "BLOCK", ["shards"]),
        (3, "TILE", ["pairs", "search"]),
        (5, "TILE", ["distance", "assignment", "seed_candidates", "warm"]),
        (2, "PIECE", ["products", "search"]),
        (3, "_TILE", ["scores"]),
    ]
    with pytest.MonkeyPatch.context() as patch:
        for size, name, modules in sizes:
            for module in modules:
                patch.setattr(import_module(f"reid.clustering.{module}"), name, size)
        yield

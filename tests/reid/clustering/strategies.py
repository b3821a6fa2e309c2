"""What property tests of clustering are tried on: small tables full of equal rows and distances.

With the fixture `small_blocks` a few rows are many blocks, shards and tiles, and 16 shards leave
most without rows.

Legend: N rows, D feature dimensions.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from reid.clustering import LocalShardPool, split

one_pool = st.sampled_from([(1,), (2,), (3,), (8,), (16,)])
"""A number of shards, where answers are compared with a reference."""
two_pools = st.sampled_from([(1, 2), (1, 3), (1, 8), (1, 16)])
"""Two of them, where answers are compared with each other."""

T = TypeVar("T")


@st.composite
def tables(
    draw: st.DrawFn,
    *,
    min_rows: int = 1,
    max_rows: int = 24,
    max_features: int = 4,
    kinds: int = 6,
    offsets: Sequence[int] = (0, 0, 500),
) -> np.ndarray:
    """Return rows (N,D) of small whole numbers times a power of two: sums and squares are exact.

    Either a few `kinds` of rows, each many times, or rows of their own that may be equal.
    """
    num_rows = draw(st.integers(min_rows, max_rows))
    num_features = draw(st.integers(1, max_features))
    num_made = draw(st.one_of(st.integers(1, kinds), st.just(num_rows)))
    rows = draw(arrays(np.int64, (num_made, num_features), elements=st.integers(-3, 3)))
    if num_made != num_rows:
        rows = rows[draw(arrays(np.int64, num_rows, elements=st.integers(0, num_made - 1)))]
    offset = draw(st.sampled_from(offsets))
    scale = draw(st.sampled_from([1.0, 1.0, 2.0**-14, 2.0**9]))
    return ((rows + offset) * scale).astype(np.float32)


@st.composite
def features(
    draw: st.DrawFn, *, min_rows: int = 1, max_rows: int = 24, equal: bool = True
) -> np.ndarray:
    """Return rows (N,D) of any float32 numbers, some of them equal unless told not to be.

    No other distances are equal but by great chance.
    """
    shape = (draw(st.integers(min_rows, max_rows)), draw(st.integers(2, 6)))
    rng = np.random.Generator(np.random.Philox(draw(st.integers(0, 2**32 - 1))))
    rows = (rng.normal(size=shape) + draw(st.sampled_from([0, 3]))).astype(np.float32)
    if equal and draw(st.booleans()):
        rows = rows[rng.integers(1 + shape[0] // 2, size=shape[0])]
    return rows


def labels(num_rows: int, *, lowest: int = -1) -> st.SearchStrategy[np.ndarray]:
    """Return labels (N,) of a few clusters, by default with outliers."""
    highest = st.sampled_from([lowest, 1, 4, max(num_rows, 1)])
    return highest.flatmap(
        lambda most: arrays(np.int64, num_rows, elements=st.integers(lowest, max(lowest, most)))
    )


@st.composite
def distances(draw: st.DrawFn, *, max_rows: int = 40, symmetric: bool = False) -> sparse.csr_array:
    """Return distances (N,N) in tenths, float32 or float64, many of them equal and many zero.

    Those of points on a line that are below 1, or any, not always symmetric unless asked for, some
    diagonals missing.
    """
    num_rows = draw(st.integers(1, max_rows))
    tenths = np.full((num_rows, num_rows), -1)
    if draw(st.booleans()):
        length = num_rows * draw(st.sampled_from([1, 2, 3]))
        place = draw(arrays(np.int64, num_rows, elements=st.integers(0, length)))
        apart = np.abs(place[:, None] - place)
        tenths = np.where(apart < 10, apart, -1)
    else:
        num_entries = draw(st.integers(0, 5 * num_rows))
        ends = arrays(np.int64, (2, num_entries), elements=st.integers(0, num_rows - 1))
        first, second = draw(ends)
        value = draw(arrays(np.int64, num_entries, elements=st.integers(0, 10)))
        tenths[first, second] = value
        if symmetric or draw(st.booleans()):
            tenths = np.maximum(tenths, tenths.T)
        diagonal = np.arange(num_rows)
        tenths[diagonal, diagonal] = np.minimum(tenths[diagonal, diagonal], 0)
    where = np.nonzero(tenths >= 0)
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return sparse.csr_array(((tenths[where] / 10).astype(dtype), where), tenths.shape)


def answers(
    rows: np.ndarray, shards: tuple[int, ...], question: Callable[[LocalShardPool], T]
) -> list[Any]:
    """Return the answer, or the text of the ValueError, for each number of shards."""
    found: list[Any] = []
    for num_shards in shards:
        try:
            found.append(question(split(rows, num_shards)))
        except ValueError as error:
            found.append(str(error))
    return found

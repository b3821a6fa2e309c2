"""Which rows can be among a row's nearest, told by estimates whose error is bounded.

The estimate of the squared distance of rows x and y is |x' - y'|^2, worked out from a product of
rounded rows x' and y'. Rounding them moves the distance by at most `reach` >= |x - x'| + |y - y'|
(the triangle inequality), the arithmetic moves its square by at most `slack`. So a squared distance
d and its estimate e keep within

    sqrt(max(e - slack, 0)) - reach  <=  sqrt(d)  <=  sqrt(e + slack) + reach,

and what the left side puts behind the right sides of enough others is no neighbour.

Legend: n rows, m columns (rows of another tile), C most candidates of a row.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int32

from reid.clustering.pairs import Pairs
from reid.compiled import compiled

ALL, SAME, OTHER = range(3)
"""Whose rows may be neighbours: every camera's, those of the row's own camera, the others'."""

TIE = 1 + 2.0**-20
"""Squared distances this close may be equal in float32, and bounds be off by their arithmetic."""


@dataclass
class Candidates:
    """Of the columns compared so far, those that can be among a row's `width` nearest others.

    `estimate` and `column` (n,C) list them, the first `count` (n,) of a row; a count of -1 says
    that there were too many. An estimate above `limit` (n,) is of no interest any more.
    """

    width: int
    cameras: int
    estimate: Float32[np.ndarray, "n C"]
    column: Int32[np.ndarray, "n C"]
    count: Int32[np.ndarray, "n"]
    limit: Float32[np.ndarray, "n"]


def no_candidates(num_rows: int, *, width: int, cameras: int) -> Candidates:
    """Return the candidates of n rows that were compared with nothing yet."""
    capacity = 3 * width + 32  # room for what the bounds of bfloat16 let in on usual features
    return Candidates(
        width=width,
        cameras=cameras,
        estimate=np.empty((num_rows, capacity), dtype=np.float32),
        column=np.empty((num_rows, capacity), dtype=np.int32),
        count=np.zeros(num_rows, dtype=np.int32),
        limit=np.full(num_rows, np.inf, dtype=np.float32),
    )


def settle(
    candidates: Candidates, slack: Float64[np.ndarray, "n"], reach: Float64[np.ndarray, "n"]
) -> tuple[Pairs, Int32[np.ndarray, "f"]]:
    """Return the pairs that are left of the candidates, and the rows that had too many."""
    width = candidates.width
    listed = np.arange(candidates.estimate.shape[1]) < candidates.count[:, None]
    if width:
        candidates.estimate[~listed] = np.inf
        kth = np.partition(candidates.estimate, width - 1, axis=1)[:, width - 1]
        upper = np.sqrt(np.maximum(kth, 0) + slack) + reach
        limit = ((upper * TIE + reach) ** 2 + slack) * TIE
        listed &= candidates.estimate <= limit[:, None]
    row, slot = np.nonzero(listed)
    pairs = Pairs(
        row=row.astype(np.int32),
        column=candidates.column[row, slot],
        distance=np.empty(len(row), dtype=np.float32),
    )
    return pairs, np.flatnonzero(candidates.count < 0).astype(np.int32)


@compiled
def keep_candidates(
    product: Float32[np.ndarray, "n m"],
    row_sq_norm: Float32[np.ndarray, "n"],
    column_sq_norm: Float32[np.ndarray, "m"],
    row_start: int,
    column_start: int,
    row_camid: Int32[np.ndarray, "n"],
    column_camid: Int32[np.ndarray, "m"],
    slack: Float64[np.ndarray, "n"],
    reach: Float64[np.ndarray, "n"],
    width: int,
    cameras: int,
    estimate: Float32[np.ndarray, "n C"],
    column: Int32[np.ndarray, "n C"],
    count: Int32[np.ndarray, "n"],
    limit: Float32[np.ndarray, "n"],
) -> None:
    """Add the columns of interest to the candidates, which are changed in place.

    Row i is table row `row_start` + i and column j is `column_start` + j; none is its own
    candidate. A full row forgets what its `width`-th smallest estimate rules out.
    """
    n, m = product.shape
    capacity = estimate.shape[1]
    near = np.empty(m, np.float32)
    place = np.empty(m, np.int32)
    for i in range(n):
        filled = count[i]
        if filled < 0:
            continue
        found, base, bar = product[i], row_sq_norm[i], limit[i]
        hits = 0
        for j in range(m):  # without branches: it sees every pair of the table
            value = base + column_sq_norm[j] - np.float32(2) * found[j]
            near[hits] = value
            place[hits] = j
            hits += value <= bar
        for hit in range(hits):
            value, j = near[hit], place[hit]
            same = row_camid[i] == column_camid[j]
            strange = (cameras == SAME and not same) or (cameras == OTHER and same)
            if value > bar or strange or row_start + i == column_start + j:
                continue
            estimate[i, filled] = value
            column[i, filled] = column_start + j
            filled += 1
            if filled < capacity:
                continue
            # As in `settle`
            kth = np.float64(np.partition(estimate[i], width - 1)[width - 1])
            upper = np.sqrt(max(kth, 0.0) + slack[i]) + reach[i]
            bar = np.float32(((upper * TIE + reach[i]) ** 2 + slack[i]) * TIE)
            filled = 0
            for c in range(capacity):
                if estimate[i, c] <= bar:
                    estimate[i, filled] = estimate[i, c]
                    column[i, filled] = column[i, c]
                    filled += 1
            if filled > capacity - capacity // 8:
                filled, bar = -1, np.float32(-np.inf)
                break
        count[i] = filled
        limit[i] = bar

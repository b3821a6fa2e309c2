"""The compiled loops of `jaccard.py`: k-reciprocal neighbours, and how much encodings overlap.

Legend: N rows of the table, n rows of one shard or block, w columns of a list, M entries.
"""

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, Int64

from reid.compiled import compiled


@compiled
def mutual(
    lists: Int32[np.ndarray, "N w"], start: int, stop: int, width: int
) -> Bool[np.ndarray, "rows width"]:
    """Tell which of the first `width` neighbours of rows `start` to `stop` have them in theirs."""
    both = np.zeros((stop - start, width), np.bool_)
    for i in range(stop - start):
        for a in range(width):
            j = lists[start + i, a]
            if j < 0:  # the list is short
                break
            for b in range(width):
                if lists[j, b] == start + i:
                    both[i, a] = True
                    break
    return both


@compiled
def expanded(
    lists: Int32[np.ndarray, "N w"],
    distances: Float32[np.ndarray, "n w"],
    both: Bool[np.ndarray, "n w"],
    both_of_half: Bool[np.ndarray, "N half"],
    start: int,
    stamp: Int32[np.ndarray, "N"],
    count: Int32[np.ndarray, "n"],
    column: Int32[np.ndarray, "room"],
    distance: Float32[np.ndarray, "room"],
) -> int:
    """Write the expanded k-reciprocal neighbours of the rows from `start` on; return how many.

    Those are R(i), the neighbours marked in `both`, and for each c of them H(c), those marked in
    `both_of_half`, if more than two thirds of H(c) are in R(i). `count` (n,) are a row's
    neighbours; a distance not in `distances` is -1. `stamp` is -1, or another row's from before.
    """
    width, half = lists.shape[1], both_of_half.shape[1]
    filled = 0
    for i in range(distances.shape[0]):
        row, begin = start + i, filled
        for a in range(width):
            if both[i, a]:
                stamp[lists[row, a]] = 2 * row
                column[filled], distance[filled] = lists[row, a], distances[i, a]
                filled += 1
        for own in range(begin, filled):
            c, num_others, num_shared = column[own], 0, 0
            for a in range(half):
                num_others += both_of_half[c, a]
                num_shared += both_of_half[c, a] and stamp[lists[c, a]] == 2 * row
            for a in range(half if 3 * num_shared > 2 * num_others else 0):
                j = lists[c, a]
                if both_of_half[c, a] and stamp[j] // 2 != row:
                    stamp[j] = 2 * row + 1
                    column[filled], distance[filled] = j, -1.0
                    for b in range(width):
                        if lists[row, b] == j:
                            distance[filled] = distances[i, b]
                    filled += 1
        count[i] = filled - begin
    return filled


@compiled
def overlaps(
    row_start: Int64[np.ndarray, "n_plus_1"],
    row_column: Int[np.ndarray, "M"],
    row_weight: Float32[np.ndarray, "M"],
    head: Int64[np.ndarray, "N"],
    end: Int64[np.ndarray, "N"],
    column_row: Int[np.ndarray, "all"],
    column_weight: Float32[np.ndarray, "all"],
    max_distance: float,
) -> tuple[Int32[np.ndarray, "n"], Int32[np.ndarray, "pairs"], Float32[np.ndarray, "pairs"]]:
    """Return each row's number of later rows nearer than `max_distance`, these, and how near.

    The entries of a row come with the rows that share them: of entry c, `column_row` from
    `head[c]`, which is the row itself, to `end[c]`. As consecutive rows are done in order, `head`
    (changed in place) moves on by one each time, and every pair of rows is met once.
    """
    n, num_rows = row_start.size - 1, head.size
    limit = np.float32(max_distance)
    # distance < limit needs more overlap than this; most of the many rows met have far less
    least = np.float32((1 - 1e-6) * 2 * (1 - limit) / (2 - limit))
    shared = np.zeros(num_rows, np.float32)
    met = np.empty(num_rows + 1, np.uint32)
    count = np.zeros(n, np.int32)
    later = np.empty(1024, np.int32)
    distance = np.empty(1024, np.float32)
    filled = 0
    for i in range(n):
        num_met = np.uint64(0)
        for entry in range(row_start[i], row_start[i + 1]):
            c, weight = row_column[entry], row_weight[entry]
            head[c] += 1
            holders = column_row[head[c] : end[c]]
            weights = column_weight[head[c] : end[c]]
            for place in range(holders.size):
                j = np.uint32(holders[place])  # unsigned, and without branches: twice as fast
                before = shared[j]
                met[num_met] = j
                num_met += np.uint64(before == 0)
                shared[j] = before + min(weight, weights[place])
        size = np.int64(num_met)
        if filled + size > later.size:
            room = 2 * later.size + size
            more_later, more_distance = np.empty(room, np.int32), np.empty(room, np.float32)
            more_later[:filled] = later[:filled]
            more_distance[:filled] = distance[:filled]
            later, distance = more_later, more_distance
        for m in range(size):
            j = met[m]
            overlap = shared[j]
            shared[j] = 0
            if overlap < least:
                continue
            value = np.float32(1) - overlap / (np.float32(2) - overlap)
            if value < limit:
                later[filled], distance[filled] = j, max(value, np.float32(0))
                filled += 1
                count[i] += 1
    return count, later[:filled].copy(), distance[:filled].copy()

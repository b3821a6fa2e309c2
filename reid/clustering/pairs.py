"""Exact distances of listed pairs of rows, over a pool of shards whose rows go by in tiles.

Legend: N rows of the whole table, n rows of one shard, m rows of one tile, D feature dimensions,
M pairs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt64

from reid.clustering.shards import BLOCK, Shard, ShardPool
from reid.compiled import compiled

TILE = BLOCK
"""Most rows of a tile: what travels at a time, and the side of a matrix product."""

NOBODY = np.uint64(0x7F800000_FFFFFFFF)
"""The key of no neighbour: infinitely far away, behind all others."""

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


@dataclass
class Pairs:
    """Pairs of a shard's row and any row of the table.

    `row` (M,) counted from the shard's first row, ascending; `column` (M,) rows of the table;
    `distance` (M,) squared L2, for `fill` to write where `column` is in its tile.
    """

    row: Int32[np.ndarray, "M"]
    column: Int32[np.ndarray, "M"]
    distance: Float32[np.ndarray, "M"]

    def fill(
        self,
        rows: Float32[np.ndarray, "n D"],
        tile_start: int,
        tile: Float32[np.ndarray, "m D"],
    ) -> None:
        """Write the distances of the shard's `rows` to those of a tile that begins at a table row.

        A pair's distance is the sum of squared differences in float64, rounded to float32: a
        function of the two rows alone, zero for equal ones, and the same both ways.
        """
        here = np.flatnonzero((self.column >= tile_start) & (self.column < tile_start + len(tile)))
        column = self.column[here] - np.int32(tile_start)
        self.distance[here] = pair_distances(rows, tile, self.row[here], column)


def keys_of(
    distance: Float32[np.ndarray, "M"], column: Int32[np.ndarray, "M"]
) -> UInt64[np.ndarray, "M"]:
    """Return numbers (M,) that sort by distance and then by column; distances from 0 on.

    The bits of such a float, read as an integer, keep its order.
    """
    high = distance.view(np.uint32).astype(np.uint64) << _HALF
    keys: np.ndarray = high | column.astype(np.uint64)
    return keys


def from_keys(
    keys: UInt64[np.ndarray, "n k"],
) -> tuple[Float32[np.ndarray, "n k"], Int64[np.ndarray, "n k"]]:
    """Return the distances and columns of keys, (infinity, -1) of `NOBODY`."""
    column = (keys & _LOW).astype(np.uint32).view(np.int32).astype(np.int64)
    return (keys >> _HALF).astype(np.uint32).view(np.float32), column


def tiles(pool: ShardPool) -> Iterator[tuple[int, Float32[np.ndarray, "m D"]]]:
    """Yield (first row, rows) of each tile of the table; no tile crosses a shard's edge.

    All shards give a tile at a time, so an exchange among them carries one from each. Tiles and
    their order depend on the shards: only what does not depend on them may be made of them.
    """
    for number in range(max(pool.map(_num_tiles))):
        for given in pool.map(_tile, number):
            if given is not None:
                yield given


def _num_tiles(shard: Shard) -> int:
    return -(-len(shard.features) // TILE)


def _tile(shard: Shard, number: int) -> tuple[int, Float32[np.ndarray, "m D"]] | None:
    """Return the shard's tile of a number, if it has as many."""
    low = number * TILE
    if low >= len(shard.features):
        return None
    return shard.start + low, shard.features[low : low + TILE]


@compiled
def pair_distances(
    rows: Float32[np.ndarray, "n D"],
    columns: Float32[np.ndarray, "m D"],
    row: Int32[np.ndarray, "M"],
    column: Int32[np.ndarray, "M"],
) -> Float32[np.ndarray, "M"]:
    """Return the squared L2 distances (M,) of rows[row] and columns[column], as `Pairs.fill` says.

    32 sums at once: a single one would wait for itself at every addition.
    """
    distance = np.empty(row.size, np.float32)
    sums = np.empty(32)
    for pair in range(row.size):
        first, second = rows[row[pair]], columns[column[pair]]
        sums[:] = 0.0
        for low in range(0, first.size, 32):
            a, b = first[low : low + 32], second[low : low + 32]
            for d in range(a.size):
                difference = np.float64(a[d]) - np.float64(b[d])
                sums[d] += difference * difference
        total = 0.0
        for d in range(32):
            total += sums[d]
        distance[pair] = total
    return distance

"""One list of neighbours of a shard's rows, from candidates to exact distances in order.

Legend: N rows of the table, n rows of one shard, m rows of one tile, D feature dimensions,
k neighbours, w of them besides the row itself, f rows with too many candidates.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt64

from reid.clustering.neighbor_candidates import (
    ALL,
    OTHER,
    SAME,
    TIE,
    Candidates,
    no_candidates,
    settle,
)
from reid.clustering.pairs import NOBODY, Pairs, from_keys, keys_of, pair_distances
from reid.clustering.shards import Shard


@dataclass(frozen=True, kw_only=True)
class Neighbors:
    """The nearest rows of each row: `distances` (N,k) squared L2, `indices` (N,k) rows.

    Near ones first, equal ones in order of index. Lists by camera that found fewer rows than k end
    with index -1 at infinity.
    """

    distances: Float32[np.ndarray, "N k"]
    indices: Int64[np.ndarray, "N k"]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A list of `k` neighbours: of ALL rows or the SAME camera's, with the row itself first.

    Of OTHER cameras' rows without it.
    """

    k: int
    cameras: int = ALL

    @property
    def width(self) -> int:
        """Return the number of neighbours besides the row itself."""
        return self.k if self.cameras == OTHER else self.k - 1


@dataclass
class Listing:
    """A wanted list in the making: candidates first, then `pairs` to be measured.

    `crowded` (f,) are rows with too many candidates, `keys` (f,w) the nearest found for those.
    """

    wanted: Wanted
    candidates: Candidates
    pairs: Pairs
    crowded: Int32[np.ndarray, "f"]
    keys: UInt64[np.ndarray, "f w"]


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """Squared distances (f,m) of some rows to columns, estimated, and the rows' bounds (f,)."""

    squared: Float32[np.ndarray, "f m"]
    slack: Float64[np.ndarray, "f"]
    reach: Float64[np.ndarray, "f"]


def begin_listing(wanted: Wanted, num_rows: int) -> Listing:
    """Return the list of n rows that were compared with nothing yet."""
    none = np.empty(0, dtype=np.int32)
    return Listing(
        wanted=wanted,
        candidates=no_candidates(num_rows, width=wanted.width, cameras=wanted.cameras),
        pairs=Pairs(none, none, np.empty(0, dtype=np.float32)),
        crowded=none,
        keys=np.empty((0, wanted.width), dtype=np.uint64),
    )


def settle_listing(
    listing: Listing, slack: Float64[np.ndarray, "n"], reach: Float64[np.ndarray, "n"]
) -> None:
    """Turn the candidates into pairs to be measured and crowded rows."""
    listing.pairs, listing.crowded = settle(listing.candidates, slack, reach)
    listing.keys = np.full((len(listing.crowded), listing.wanted.width), NOBODY)
    listing.candidates = no_candidates(0, width=listing.wanted.width, cameras=ALL)


def look_again(
    listing: Listing,
    some: slice,
    estimates: Estimates,
    shard: Shard,
    camid: Int32[np.ndarray, "N"],
    tile_start: int,
    tile: Float32[np.ndarray, "m D"],
) -> None:
    """Bring the nearest of `some` crowded rows up to date with a tile.

    The distance of the last of them is exact now, and when that is zero (equal rows) it rules out
    all that come later, which estimates could not.
    """
    rows, keys = listing.crowded[some], listing.keys[some]
    root = np.sqrt(np.maximum(estimates.squared - estimates.slack[:, None], 0))
    lower = np.square(np.maximum(root - estimates.reach[:, None], 0)) / TIE
    column = np.arange(tile_start, tile_start + len(tile), dtype=np.int32)
    last, last_column = from_keys(keys[:, -1:])
    possible = (lower < last) | ((lower == last) & (column < last_column))
    possible &= _allowed(camid, listing.wanted.cameras, shard.start + rows, column)
    row, place = np.nonzero(possible)
    place = place.astype(np.int32)
    distance = pair_distances(shard.features, tile, rows[row], place)
    table = np.full(possible.shape, NOBODY)
    table[row, place] = keys_of(distance, column[place])
    nearest = np.sort(np.concatenate([keys, table], axis=1), axis=1)
    listing.keys[some] = nearest[:, : keys.shape[1]]


def _allowed(
    camid: Int32[np.ndarray, "N"],
    cameras: int,
    rows: Int32[np.ndarray, "f"],
    columns: Int32[np.ndarray, "m"],
) -> Bool[np.ndarray, "f m"]:
    """Tell which columns may be neighbours of the rows, both rows of the table."""
    allowed: np.ndarray = rows[:, None] != columns
    if cameras != ALL:
        allowed &= (camid[rows][:, None] == camid[columns]) == (cameras == SAME)
    return allowed


def in_order(listing: Listing, shard: Shard) -> Neighbors:
    """Return the list, all measured, of the shard's rows."""
    n, width, pairs = len(shard.features), listing.wanted.width, listing.pairs
    first = np.searchsorted(pairs.row, np.arange(n + 1, dtype=np.int32))
    keys = np.full((n, max(width, int(np.diff(first).max(initial=0)))), NOBODY)
    place = np.arange(len(pairs.row)) - first[pairs.row]
    keys[pairs.row, place] = keys_of(pairs.distance, pairs.column)
    keys.sort(axis=1)
    keys = keys[:, :width]
    keys[listing.crowded] = listing.keys
    distances, indices = from_keys(keys)
    if listing.wanted.cameras != OTHER:
        own = np.arange(shard.start, shard.start + n)[:, None]
        distances = np.concatenate([np.zeros((n, 1), dtype=np.float32), distances], axis=1)
        indices = np.concatenate([own, indices], axis=1)
    return Neighbors(distances=distances, indices=indices)

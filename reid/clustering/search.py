"""Exact lists of neighbours over a pool of shards, never N x N.

First every pair of rows is compared by a matrix product in the fastest precision of the processor,
and those that its bounded error cannot rule out are kept: a few more than k a row. Then the
distances of these alone are worked out from differences. So the lists are a function of the rows:
precision, tiles, processors and shards only decide what is looked at.

The table goes by twice in tiles, which travel to all shards. A shard compares a tile with its own
rows; of its own tiles it makes each pair once and uses the product both ways.

Legend: N rows of the table, n rows of one shard, m rows of one tile, D feature dimensions,
k neighbours, w of them besides the row itself, f rows with too many candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int, Int32

from reid.clustering.listing import (
    Estimates,
    Listing,
    Neighbors,
    Wanted,
    begin_listing,
    in_order,
    look_again,
    settle_listing,
)
from reid.clustering.neighbor_candidates import TIE, keep_candidates
from reid.clustering.pairs import TILE, pair_distances, tiles
from reid.clustering.products import FLOAT32, PIECE, Product, fastest_product, growth, sq_norm
from reid.clustering.shards import Shard, ShardPool

_STATE = "search"
_CENTERING = 2.0**-23  # relative error of x - center in float32, with room
_MOST_ROWS = 2**30
_CROWDED = 0.02  # share of rows with too many candidates that is worth another pass
_UNDERFLOW = 2.0**-100  # products below float32's range, which processors may take for zero
_LONGEST = 1e18  # rows whose squared norms and sums of them stay within float32


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search found: a list for each wanted one, and the `farthest` (N,) squared distance."""

    lists: list[Neighbors]
    farthest: Float32[np.ndarray, "N"] | None


@dataclass
class _Search:
    """What a shard keeps while tiles go by.

    `center` (D,) is taken from all rows: what features share would only add to the errors.
    `sq_norm` (n,) is of the rounded rows, `rounding` (n,) how far they are from the rows, `slack`
    and `reach` (n,) are the bounds of `neighbor_candidates.py`. `farthest` (n,) squared distances
    so far, none when they are not wanted.
    """

    product: Product
    center: Float32[np.ndarray, "D"]
    sq_norm: Float32[np.ndarray, "n"]
    rounding: Float32[np.ndarray, "n"]
    camid: Int32[np.ndarray, "N"]
    farthest: Float32[np.ndarray, "far"]
    slack: Float64[np.ndarray, "n"] = field(default_factory=lambda: np.empty(0))
    reach: Float64[np.ndarray, "n"] = field(default_factory=lambda: np.empty(0))
    listings: list[Listing] = field(default_factory=list)


def search(
    pool: ShardPool,
    wanted: Sequence[Wanted],
    *,
    camid: Int[np.ndarray, "N"] | None = None,
    farthest: bool = False,
    product: Product | None = None,
) -> Found:
    """Return several lists of neighbours from one pass of products, to be called in `pool.run`.

    `camid` (N,) is needed for lists by camera. `product` None is the fastest of each processor, or
    float32 if the features are too close together for that one. Distances and ties as for
    `nearest_neighbors`. ValueError for rows of a length above 1e18.
    """
    if pool.num_rows >= _MOST_ROWS:
        raise ValueError(f"{pool.num_rows} rows: the search counts up to {_MOST_ROWS} in 32 bits")
    center = (np.sum(pool.map(_sum), axis=0) / pool.num_rows).astype(np.float32)
    cameras = np.zeros(pool.num_rows, np.int32)
    if camid is not None:
        cameras = np.unique(camid, return_inverse=True)[1].astype(np.int32)
    if not _collect(pool, wanted, center, cameras, product, farthest):
        _collect(pool, wanted, center, cameras, FLOAT32, farthest)
    pool.map(_settle)
    for low, tile in tiles(pool):
        pool.map(_refine, low, tile)
    parts = pool.map(_finish)
    lists = [
        Neighbors(
            distances=np.concatenate([part[number].distances for part, _ in parts]),
            indices=np.concatenate([part[number].indices for part, _ in parts]),
        )
        for number in range(len(wanted))
    ]
    return Found(
        lists=lists, farthest=np.concatenate([far for _, far in parts]) if farthest else None
    )


def _collect(
    pool: ShardPool,
    wanted: Sequence[Wanted],
    center: Float32[np.ndarray, "D"],
    camid: Int32[np.ndarray, "N"],
    product: Product | None,
    farthest: bool,
) -> bool:
    """Collect candidates; return False, early, if a product not asked for is too coarse."""
    sizes = pool.map(_begin, center, camid, product, farthest)
    longest, coarsest, rounded = np.max(sizes, axis=0).tolist()  # NaN, if any of them is
    if not longest < _LONGEST:
        raise ValueError(
            f"a row is {longest:.3g} long, counted from the mean row: float32 cannot hold the "
            "square; normalise or scale the features"
        )
    pool.map(_prepare, wanted, longest, coarsest)
    for low, tile in tiles(pool):
        num_crowded = sum(pool.map(_compare, low, tile))
        if product is None and rounded and num_crowded > _CROWDED * pool.num_rows:
            return False
    return True


# What runs on a shard. Each function sees one shard and the arguments of `pool.map`.


def _sum(shard: Shard) -> Float64[np.ndarray, "D"]:
    total: np.ndarray = shard.features.sum(axis=0, dtype=np.float64)
    return total


def _begin(
    shard: Shard,
    center: Float32[np.ndarray, "D"],
    camid: Int32[np.ndarray, "N"],
    product: Product | None,
    farthest: bool,
) -> tuple[float, float, bool]:
    """Start a search; return the length of the longest row, the largest rounding, if any but 0."""
    product = product or fastest_product()
    lengths, rounding = np.empty((2, len(shard.features)), dtype=np.float32)
    for low in range(0, len(lengths), PIECE):
        part = slice(low, low + PIECE)
        rows = shard.features[part]
        rounded = product.widen(product.prepare(rows, center))
        lengths[part] = sq_norm(rounded)
        rounding[part] = np.sqrt(sq_norm(rows - center - rounded))
    rounding *= 1 + growth(len(center))  # these were computed in float32, too
    rounding += _CENTERING * np.sqrt(lengths)
    shard.state[_STATE] = _Search(
        product=product,
        center=center,
        sq_norm=lengths,
        rounding=rounding,
        camid=camid,
        farthest=np.zeros(len(lengths) if farthest else 0, dtype=np.float32),
    )
    longest = float(np.sqrt(lengths.max(initial=0)))
    return longest, float(rounding.max(initial=0)), product.name != FLOAT32.name


def _prepare(shard: Shard, wanted: Sequence[Wanted], longest: float, coarsest: float) -> None:
    """Set the bounds, now that the extremes of all shards are known."""
    state: _Search = shard.state[_STATE]
    lengths = np.sqrt(state.sq_norm.astype(np.float64))
    state.reach = state.rounding.astype(np.float64) + coarsest
    # The two squared norms and twice the product, which alone is of the product's type
    state.slack = growth(shard.features.shape[1]) * np.square(lengths + longest)
    state.slack += 2 * state.product.output_error * lengths * longest + _UNDERFLOW
    state.listings = [begin_listing(one, len(lengths)) for one in wanted]


def _compare(shard: Shard, tile_start: int, tile: Float32[np.ndarray, "m D"]) -> int:
    """Add the candidates that products with a tile leave; return how many rows have too many."""
    state: _Search = shard.state[_STATE]
    columns = state.product.prepare(tile, state.center)
    first = tile_start - shard.start
    own = 0 <= first < len(shard.features)
    # Of a tile of its own, a shard compared the rows above when those were the tile.
    for low in range(first if own else 0, len(shard.features), TILE):
        rows = slice(low, min(low + TILE, len(shard.features)))
        _multiply(shard, rows, columns, tile_start, tile)
    return sum(int(np.count_nonzero(one.candidates.count < 0)) for one in state.listings)


def _multiply(
    shard: Shard, rows: slice, columns: Any, tile_start: int, tile: Float32[np.ndarray, "m D"]
) -> None:
    """Compare some of the shard's rows with a tile, whose operand is `columns`.

    The products are those of a tile of its own with these rows as well, the other way round.
    """
    state: _Search = shard.state[_STATE]
    product = state.product
    first = tile_start - shard.start
    if rows.start == first:
        _look(
            shard, rows, product.multiply(columns, columns), state.sq_norm[rows], tile_start, tile
        )
        return
    features = shard.features[rows]
    found = product.multiply(product.prepare(features, state.center), columns)
    if not 0 <= first < len(shard.features):
        _look(shard, rows, found, sq_norm(product.widen(columns)), tile_start, tile)
        return
    here = slice(first, first + len(tile))
    _look(shard, rows, found, state.sq_norm[here], tile_start, tile)
    found = torch.from_numpy(found).T.contiguous().numpy()  # faster than numpy's
    _look(shard, here, found, state.sq_norm[rows], shard.start + rows.start, features)


def _look(
    shard: Shard,
    rows: slice,
    found: Float32[np.ndarray, "n m"],
    column_sq_norm: Float32[np.ndarray, "m"],
    column_start: int,
    columns: Float32[np.ndarray, "m D"],
) -> None:
    """Look through the products of some of the shard's rows with columns of the table."""
    state: _Search = shard.state[_STATE]
    row_start = shard.start + rows.start
    for listing in state.listings:
        one = listing.candidates
        if one.width:
            keep_candidates(
                found,
                state.sq_norm[rows],
                column_sq_norm,
                row_start,
                column_start,
                state.camid[row_start : row_start + len(found)],
                state.camid[column_start : column_start + found.shape[1]],
                state.slack[rows],
                state.reach[rows],
                one.width,
                one.cameras,
                one.estimate[rows],
                one.column[rows],
                one.count[rows],
                one.limit[rows],
            )
    if len(state.farthest):
        _look_far(shard, rows, found, column_sq_norm, columns)


def _look_far(
    shard: Shard,
    rows: slice,
    found: Float32[np.ndarray, "n m"],
    column_sq_norm: Float32[np.ndarray, "m"],
    columns: Float32[np.ndarray, "m D"],
) -> None:
    """Raise the largest distances of some of the shard's rows to what the columns hold."""
    state: _Search = shard.state[_STATE]
    slack, reach, farthest = state.slack[rows], state.reach[rows], state.farthest[rows]
    estimates = state.sq_norm[rows, None] + column_sq_norm - 2 * found
    top = estimates.max(axis=1).astype(np.float64)
    upper = np.square(np.sqrt(np.maximum(top, 0) + slack) + reach)
    some = np.flatnonzero(upper * TIE > farthest)
    lower = np.maximum(np.sqrt(np.maximum(top - slack, 0)) - reach, 0) ** 2
    bar = np.maximum(farthest, lower)[some] / TIE
    # The smallest estimate of a distance that reaches the bar, as `upper` is to `top`
    least = np.maximum(np.sqrt(bar) - reach[some], 0) ** 2 - slack[some]
    row, column = np.nonzero(estimates[some] >= least[:, None] / TIE)
    row = some[row].astype(np.int32)
    far = pair_distances(shard.features[rows], columns, row, column.astype(np.int32))
    np.maximum.at(farthest, row, far)


def _settle(shard: Shard) -> None:
    state: _Search = shard.state[_STATE]
    for listing in state.listings:
        settle_listing(listing, state.slack, state.reach)


def _refine(shard: Shard, tile_start: int, tile: Float32[np.ndarray, "m D"]) -> None:
    """Measure the pairs with a tile, and look through all of it for crowded rows."""
    state: _Search = shard.state[_STATE]
    product = state.product
    for listing in state.listings:
        listing.pairs.fill(shard.features, tile_start, tile)
        for low in range(0, len(listing.crowded), TILE):
            rows = listing.crowded[low : low + TILE]
            operand = product.prepare(shard.features[rows], state.center)
            columns = product.prepare(tile, state.center)
            found = product.multiply(operand, columns)
            estimates = Estimates(
                squared=state.sq_norm[rows, None] + sq_norm(product.widen(columns)) - 2 * found,
                slack=state.slack[rows],
                reach=state.reach[rows],
            )
            some = slice(low, low + len(rows))
            look_again(listing, some, estimates, shard, state.camid, tile_start, tile)


def _finish(shard: Shard) -> tuple[list[Neighbors], Float32[np.ndarray, "far"]]:
    """Return the shard's rows of each list, and its farthest distances."""
    state: _Search = shard.state.pop(_STATE)
    return [in_order(listing, shard) for listing in state.listings], state.farthest

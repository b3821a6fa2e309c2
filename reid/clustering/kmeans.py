"""k-means over a pool of shards: greedy k-means++ for the first centres, then Lloyd's iterations.

The seeds are bit-identical for any number of shards: distances and the float64 sums of them belong
to fixed blocks of rows, the driver draws over the blocks' sums in block order, and the shard that
owns a drawn block finds the row inside it. Block sums and candidate rows travel, nothing of size N.

Legend: N rows, n rows of one shard, D feature dimensions, K clusters, L candidates per centre,
m rows found on one shard.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from reid.clustering.guards import check_distinct
from reid.clustering.lloyd import KMeansResult, lloyd
from reid.clustering.shards import BLOCK, Shard, ShardPool

_STATE = "greedy_kmeans_plusplus"

# Below this share of |x|^2 + |c|^2 the product form of |x - c|^2 in float32 has lost most of its
# digits. Such pairs are computed anew from the difference, so that equal rows get exactly zero.
_CANCELLATION = 2.0**-12


@dataclass
class _Seeding:
    """What a shard keeps while centres are drawn.

    `sq_norms` (n,); `closest_dist_sq` (n,) to the centres so far; `improved_dist_sq` (L,n) the same
    after adding each of the last candidates.
    """

    sq_norms: Float32[np.ndarray, "n"]
    closest_dist_sq: Float32[np.ndarray, "n"]
    improved_dist_sq: Float32[np.ndarray, "L n"]


@dataclass(frozen=True, kw_only=True)
class _Found:
    """Those of L wanted rows that one shard owns; `position` is their place among the L."""

    position: Int64[np.ndarray, "m"]
    row: Int64[np.ndarray, "m"]
    features: Float32[np.ndarray, "m D"]


def kmeans(
    pool: ShardPool,
    num_clusters: int,
    *,
    seed: int,
    max_iterations: int = 100,
    init: Literal["greedy"] | Float[np.ndarray, "K D"] = "greedy",
) -> KMeansResult:
    """Cluster the pool's rows into `num_clusters` groups of least squared distance to their mean.

    `init` "greedy" draws the first centres by greedy k-means++ with `seed`; an array (K,D) gives
    them (`seed` is then unused). See `lloyd` for the iterations and the result, which is
    bit-identical for any number of shards. ValueError when there are fewer rows, or fewer distinct
    rows, than clusters, and for an `init` of another name or shape.
    """
    if isinstance(init, str) and init != "greedy":
        raise ValueError(f"init is {init!r}: expected 'greedy' or an array of centres")
    _check_num_clusters(num_clusters, pool.num_rows)
    check_distinct(pool, num_clusters)
    return pool.run(_kmeans, num_clusters, seed=seed, max_iterations=max_iterations, init=init)


def _kmeans(
    pool: ShardPool,
    num_clusters: int,
    *,
    seed: int,
    max_iterations: int,
    init: str | Float[np.ndarray, "K D"],
) -> KMeansResult:
    if isinstance(init, str):
        rows = greedy_kmeans_plusplus(pool, num_clusters, seed=seed)
        _, centers = _gather(pool, pool.map(_find, rows), num_clusters)
    else:
        expected = (num_clusters, pool.num_features)
        if init.shape != expected or not np.isfinite(init).all():
            raise ValueError(f"init has shape {init.shape}: expected {expected} of finite numbers")
        centers = np.ascontiguousarray(init, dtype=np.float32)
    return lloyd(pool, centers, max_iterations=max_iterations)


def greedy_kmeans_plusplus(
    pool: ShardPool, num_clusters: int, *, seed: int, num_trials: int | None = None
) -> Int64[np.ndarray, "K"]:
    """Return the rows (K,) that greedy k-means++ chooses as first centres, in order of choice.

    The first centre is uniform. For each further one, `num_trials` rows (default 2 + int(ln K), as
    in scikit-learn) are drawn with probability proportional to the squared distance to the closest
    centre, and the one that leaves the lowest potential is chosen (the first drawn of equals).
    Bit-identical for any number of shards on one kind of processor. ValueError when there are fewer
    rows, or fewer distinct rows, than clusters.

    Source: Arthur and Vassilvitskii 2007, "k-means++: the advantages of careful seeding", section
    2.2 for the distribution and section 7 for the greedy choice among several draws.
    """
    _check_num_clusters(num_clusters, pool.num_rows)
    trials = 2 + int(math.log(num_clusters)) if num_trials is None else num_trials
    if trials < 1:
        raise ValueError(f"num_trials is {trials}: each centre needs at least one candidate")
    generator = np.random.Generator(np.random.Philox(seed))
    first = generator.integers(pool.num_rows, size=1)
    rows, candidates = _gather(pool, pool.map(_begin, first), 1)
    chosen: list[int] = []
    while True:
        # Contiguous, so that the sums run in one order whatever parts the blocks came in.
        potential = np.ascontiguousarray(np.concatenate(pool.map(_score, candidates), axis=1))
        winner = int(potential.sum(axis=1).argmin())
        chosen.append(int(rows[winner]))
        if len(chosen) == num_clusters:
            return np.array(chosen, dtype=np.int64)
        cumulative = np.cumsum(potential[winner])
        if cumulative[-1] == 0:
            raise ValueError(
                f"num_clusters is {num_clusters} but the {pool.num_rows} rows hold only "
                f"{len(chosen)} distinct ones: choose at most that many clusters"
            )
        draws = generator.random(trials) * cumulative[-1]
        blocks = _first_above(cumulative, draws)
        rest = draws - np.concatenate([[0.0], cumulative])[blocks]
        rows, candidates = _gather(pool, pool.map(_draw, winner, blocks, rest), trials)


def _check_num_clusters(num_clusters: int, num_rows: int) -> None:
    if not 1 <= num_clusters <= num_rows:
        raise ValueError(
            f"num_clusters is {num_clusters} and there are {num_rows} rows: choose from 1 up to "
            "the number of rows, or cluster more rows"
        )


def _gather(
    pool: ShardPool, parts: list[_Found], count: int
) -> tuple[Int64[np.ndarray, "L"], Float32[np.ndarray, "L D"]]:
    rows = np.empty(count, dtype=np.int64)
    features = np.empty((count, pool.num_features), dtype=np.float32)
    for part in parts:
        rows[part.position] = part.row
        features[part.position] = part.features
    return rows, features


def _first_above(
    cumulative: Float64[np.ndarray, "n"], draws: Float64[np.ndarray, "L"]
) -> Int64[np.ndarray, "L"]:
    """Return the first place where the running sum exceeds each draw.

    A draw that rounding put beyond the end gets the last place that adds to the sum, so that a
    place with a share of zero is never drawn.
    """
    last = np.searchsorted(cumulative, cumulative[-1], side="left")
    places: np.ndarray = np.minimum(np.searchsorted(cumulative, draws, side="right"), last)
    return places


def _sq_norms(rows: Float32[np.ndarray, "n D"]) -> Float32[np.ndarray, "n"]:
    norms: np.ndarray = np.einsum("nd,nd->n", rows, rows)
    return norms


def _dist_sq(
    rows: Float32[np.ndarray, "n D"],
    sq_norms: Float32[np.ndarray, "n"],
    candidates: Float32[np.ndarray, "L D"],
) -> Float32[np.ndarray, "L n"]:
    scale = _sq_norms(candidates)[:, None] + sq_norms
    dist_sq: np.ndarray = np.subtract(scale, 2 * (rows @ candidates.T).T, order="C")
    candidate, row = np.nonzero(dist_sq < _CANCELLATION * scale)
    dist_sq[candidate, row] = _sq_norms(rows[row] - candidates[candidate])
    return dist_sq


# What runs on a shard. Each function sees one shard and the arguments of `pool.map`.


def _find(shard: Shard, rows: Int64[np.ndarray, "L"]) -> _Found:
    local = rows - shard.start
    position = np.flatnonzero((local >= 0) & (local < len(shard.features)))
    return _Found(position=position, row=rows[position], features=shard.features[local[position]])


def _begin(shard: Shard, rows: Int64[np.ndarray, "L"]) -> _Found:
    """Start without centres; return those of the first candidates that the shard owns."""
    sq_norms = np.empty(len(shard.features), dtype=np.float32)
    for block in shard.blocks():
        sq_norms[block] = _sq_norms(shard.features[block])
    nowhere = np.full_like(sq_norms, np.inf)
    shard.state[_STATE] = _Seeding(sq_norms, nowhere, nowhere[None])
    return _find(shard, rows)


def _score(shard: Shard, candidates: Float32[np.ndarray, "L D"]) -> Float64[np.ndarray, "L blocks"]:
    """Return the potential of each block after adding each candidate alone."""
    state: _Seeding = shard.state[_STATE]
    blocks = shard.blocks()
    state.improved_dist_sq = np.empty((len(candidates), len(shard.features)), dtype=np.float32)
    potential = np.empty((len(candidates), len(blocks)))
    for number, block in enumerate(blocks):
        dist_sq = _dist_sq(shard.features[block], state.sq_norms[block], candidates)
        np.minimum(dist_sq, state.closest_dist_sq[block], out=dist_sq)
        state.improved_dist_sq[:, block] = dist_sq
        potential[:, number] = dist_sq.sum(axis=1, dtype=np.float64)
    return potential


def _draw(
    shard: Shard, winner: int, blocks: Int64[np.ndarray, "L"], rest: Float64[np.ndarray, "L"]
) -> _Found:
    """Make candidate `winner` a centre, then turn the draws in the shard's own blocks into rows.

    A draw is a block of the table and the potential `rest` counted from the start of that block.
    """
    state: _Seeding = shard.state[_STATE]
    state.closest_dist_sq = state.improved_dist_sq[winner]
    own = shard.blocks()
    rows = np.full(len(blocks), -1, dtype=np.int64)
    for position, number in enumerate(blocks - shard.start // BLOCK):
        if 0 <= number < len(own):
            cumulative = np.cumsum(state.closest_dist_sq[own[number]], dtype=np.float64)
            inside = _first_above(cumulative, rest[position : position + 1])[0]
            rows[position] = shard.start + own[number].start + inside
    return _find(shard, rows)

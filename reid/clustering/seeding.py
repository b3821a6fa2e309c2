"""First centres for k-means: greedy k-means++, the candidates of many centres at a time.

Candidates are drawn for a block of centres at once, in proportion to squared distances as they are
then. By the turn of a centre these have shrunk, and a candidate is accepted with probability now /
then, which leaves exactly the distribution of drawing now. So the rows meet the candidates in one
matrix product a block, and a centre costs one `map` that returns a number a candidate.

Legend: N rows, D feature dimensions, K centres, L candidates of a centre, M of a block.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy.random import Generator, Philox

from reid.clustering.seed_candidates import NOBODY, Share, begin, count, draw, end, gains, meet
from reid.clustering.shards import ShardPool

NO_STEPS = -1000
"""An exponent that counts nothing, to begin with."""

_FIRST_BLOCK = 2  # centres the first block is meant for: at the start distances shrink fast
_MOST_CANDIDATES = 512  # of a block: beyond, products get no faster and acceptance falls
_COARSE = 16  # bits that sums may lack before their steps are made finer


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """Centres in order of choice: `rows` (K,) of the pool and their `features` (K,D)."""

    rows: Int64[np.ndarray, "K"]
    features: Float32[np.ndarray, "K D"]


@dataclass(kw_only=True)
class _Block:
    """Candidates, of which those from `next` on have not been looked at.

    Squared distances to the closest centre (M,) when they were `drawn` and `now`, and `between`
    (M,M) candidates where that is less; `uniform` (M,) decides who is accepted.
    """

    rows: Int64[np.ndarray, "M"]
    features: Float32[np.ndarray, "M D"]
    drawn: Float64[np.ndarray, "M"]
    now: Float64[np.ndarray, "M"]
    between: Float64[np.ndarray, "M M"]
    uniform: Float64[np.ndarray, "M"]
    next: int = 0

    def accept(self, number: int) -> Int64[np.ndarray, "L"] | None:
        """Return `number` draws from the distribution as it is now, None when too few are left."""
        rest = slice(self.next, None)
        accepted = self.uniform[rest] * self.drawn[rest] < self.now[rest]
        places = self.next + np.flatnonzero(accepted)[:number]
        if len(places) < number:
            return None
        self.next = int(places[-1]) + 1
        return places

    def choose(self, winner: int) -> None:
        """Make one candidate a centre."""
        np.minimum(self.now, self.between[winner], out=self.now)


def greedy_kmeans_plusplus(
    pool: ShardPool, num_clusters: int, *, seed: int, num_trials: int | None = None
) -> Int64[np.ndarray, "K"]:
    """Return the rows (K,) that greedy k-means++ chooses as first centres, in order of choice.

    The first centre is uniform. For each further one, `num_trials` rows (default 2 + int(ln K), as
    in scikit-learn) are drawn with probability proportional to the squared distance to the closest
    centre, and the one that leaves the lowest potential is chosen (the first drawn of equals).
    Bit-identical for any number of shards and on any processor. With the same `seed` and
    `num_trials`, the first of these rows are the ones chosen for fewer clusters. ValueError when
    there are fewer rows, or fewer distinct rows, than clusters.

    Source: Arthur and Vassilvitskii 2007, "k-means++: the advantages of careful seeding", section
    2.2 for the distribution and section 7 for the greedy choice among several draws.
    """
    return pool.run(greedy_seeds, num_clusters, seed=seed, num_trials=num_trials).rows


def greedy_seeds(
    pool: ShardPool, num_clusters: int, *, seed: int, num_trials: int | None = None
) -> Seeds:
    """Return what `greedy_kmeans_plusplus` does, with the rows' features; called in `pool.run`."""
    check_num_clusters(num_clusters, pool.num_rows)
    trials = default_trials(num_clusters) if num_trials is None else num_trials
    pool.map(begin)
    generator = Generator(Philox(seed))
    seeds = grow(pool, num_clusters, num_trials=trials, generator=generator, first=True)
    check_num_distinct(num_clusters, pool.num_rows, len(seeds.rows))
    return seeds


def default_trials(num_clusters: int) -> int:
    """Return how many candidates compete for each centre: 2 + int(ln K), as in scikit-learn."""
    return 2 + int(math.log(num_clusters))


def check_num_clusters(num_clusters: int, num_rows: int) -> None:
    """Raise ValueError unless the number of clusters is from 1 to the number of rows."""
    if not 1 <= num_clusters <= num_rows:
        raise ValueError(
            f"num_clusters is {num_clusters} and there are {num_rows} rows: choose from 1 up to "
            "the number of rows, or cluster more rows"
        )


def check_num_distinct(num_clusters: int, num_rows: int, num_distinct: int) -> None:
    """Raise ValueError when fewer distinct rows than clusters were found."""
    if num_distinct < num_clusters:
        raise ValueError(
            f"num_clusters is {num_clusters} but the {num_rows} rows hold only {num_distinct} "
            "distinct ones: choose at most that many clusters"
        )


def grow(
    pool: ShardPool, number: int, *, num_trials: int, generator: Generator, first: bool
) -> Seeds:
    """Choose `number` more centres, fewer when no row is away from all centres any more.

    `seed_candidates.begin` has run on the shards. With `first` there is no centre yet, and one is
    drawn by weight alone.
    """
    if num_trials < 1:
        raise ValueError(f"num_trials is {num_trials}: each centre needs at least one candidate")
    rows: list[int] = []
    features: list[np.ndarray] = []
    shares = pool.map(count, NOBODY, None)
    total_weight = sum(share.count for share in shares)
    winner, exponent, centers_of_block = NOBODY, NO_STEPS, _FIRST_BLOCK
    if first:
        block = _draw_block(pool, shares, 1, generator)
        winner = 0
        rows.append(int(block.rows[0]))
        features.append(block.features[0])
    while len(rows) < number:
        shares, exponent = count_all(pool, winner, exponent, total_weight)
        if not any(share.count for share in shares):
            break
        block = _draw_block(pool, shares, centers_of_block * num_trials, generator)
        winner, before = NOBODY, len(rows)
        while len(rows) < number and (tried := block.accept(num_trials)) is not None:
            gained = np.sum(pool.map(gains, winner, tried), axis=0)
            winner = int(tried[gained.argmax()])
            block.choose(winner)
            rows.append(int(block.rows[winner]))
            features.append(block.features[winner])
        most = max(1, _MOST_CANDIDATES // num_trials)
        centers_of_block = min(2 * (len(rows) - before), most)
    pool.map(end)
    return Seeds(
        rows=np.array(rows, dtype=np.int64),
        features=np.array(features, dtype=np.float32).reshape(-1, pool.num_features),
    )


def count_all(
    pool: ShardPool, winner: int, exponent: int, total_weight: int
) -> tuple[list[Share], int]:
    """Make `winner` a centre and sum weighted squared distances; return shares and exponent.

    The sums are in steps of 2^-exponent. With a total weight of b bits and squared distances below
    2^e, steps of 2^(e+b-62) add up to less than 2^62: no sum leaves 64 bits. As distances shrink,
    the steps follow.
    """
    while True:
        shares = pool.map(count, winner, exponent)
        largest = max(share.largest for share in shares)
        finest = 62 - total_weight.bit_length() - math.frexp(largest)[1]
        if largest == 0 or finest - exponent < _COARSE:
            return shares, exponent
        exponent = finest


def _draw_block(pool: ShardPool, shares: list[Share], number: int, generator: Generator) -> _Block:
    """Draw `number` rows in proportion to their counts, and let all rows meet them."""
    before = np.cumsum([0, *(share.count for share in shares)])
    # Not `integers(total)`: it rejects draws by the total's low bits, so that a last bit of one
    # feature would move all later draws.
    scaled = (generator.random(number) * before[-1]).astype(np.int64)
    draws = np.minimum(scaled, before[-1] - 1)  # the total as a float may be above it
    uniform = generator.random(number)
    below = {share.start: int(low) for share, low in zip(shares, before[:-1], strict=True)}
    rows = np.empty(number, dtype=np.int64)
    features = np.empty((number, pool.num_features), dtype=np.float32)
    for found in pool.map(draw, below, draws):
        rows[found.position] = found.row
        features[found.position] = found.features
    drawn, between = np.empty(number), np.empty((number, number))
    for met in pool.map(meet, rows, features):
        drawn[met.position] = met.closest_dist_sq
        between[:, met.position] = met.to_candidates.T
    return _Block(
        rows=rows,
        features=features,
        drawn=drawn,
        now=drawn.copy(),
        between=between,
        uniform=uniform,
    )

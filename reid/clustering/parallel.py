"""First centres for k-means in few passes: k-means||, for very many clusters.

Rounds of drawing many rows at once leave a few times more candidates than clusters; each stands for
the rows nearest to it, and greedy k-means++ by these weights chooses the centres among them.

Legend: N rows, D feature dimensions, K centres, C candidates, m rows drawn on one shard.
"""

from functools import partial

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy.random import Generator, Philox

from reid.clustering.assignment import Assignment, nothing_found, search
from reid.clustering.codes import coded_rows
from reid.clustering.parts import PartPool
from reid.clustering.seed_candidates import NOBODY, Found, begin, begin_from, counts_of, end
from reid.clustering.seeding import (
    NO_STEPS,
    Seeds,
    check_num_clusters,
    check_num_distinct,
    count_all,
    default_trials,
    grow,
)
from reid.clustering.shards import Shard, ShardPool

GREEDY_CLUSTERS = 10_000
"""Clusters up to which greedy k-means++ is worth its price of 2 + ln K assignments of all rows.

k-means|| costs 3, and a choice among 3 K candidates: measured at 60,000 rows and 4,000 clusters
0.6 of the time for 0.4 % more inertia, at 100,000 and 1,500 0.4 for 0.1 %.
"""

_STATE = "parallel"
_PART = "parallel.candidates"
_ROUNDS = 3  # 5 rounds, or 2 K candidates a round, take at most 1 % off the potential
_NUMBERS_OF_A_STEP = 4  # 64-bit numbers that Philox makes at once
_PER_ROUND = 1.0  # candidates expected of a round, as a share of the clusters


def parallel_seeds(
    pool: ShardPool, num_clusters: int, *, seed: int, num_trials: int | None = None
) -> Seeds:
    """Return first centres by k-means||, in the order of the final choice.

    The first candidate is uniform. In each of 3 rounds every row becomes one with probability K
    times its share of the potential. Greedy k-means++ with `num_trials` as in
    `greedy_kmeans_plusplus` then chooses among the candidates, each weighted by its nearest rows;
    should they be too few, it chooses the rest among all rows. Bit-identical for any number of
    shards and on any processor. ValueError when there are fewer rows, or fewer distinct rows, than
    clusters.

    Source: Bahmani et al. 2012, "Scalable k-means++", algorithm 2; section 5 for the rounds.
    NOTE: the paper reduces by plain weighted k-means++; the greedy choice costs little there. Its
    experiments have 5 rounds of K/2 to 2 K.
    """
    check_num_clusters(num_clusters, pool.num_rows)
    generator = Generator(Philox(seed))
    pool.map(_begin)
    wanted = generator.integers(pool.num_rows, size=1)
    found = pool.map(_find, wanted)
    rows, exponent = _join(pool, found, 0), NO_STEPS
    for round in range(_ROUNDS):
        shares, exponent = count_all(pool, NOBODY, exponent, pool.num_rows)
        total = sum(share.count for share in shares)
        if total == 0:
            break
        found = pool.map(_pick, (seed, round), _PER_ROUND * num_clusters / total)
        rows = np.concatenate([rows, _join(pool, found, len(rows))])
    weights = np.sum(pool.map(_weigh, len(rows)), axis=0)
    order = np.argsort(rows)
    rows = rows[order]
    pool.map(_hold, rows, weights[order].astype(np.float64))
    candidates = PartPool(pool, _PART, num_rows=len(rows))
    choose = partial(
        grow,
        num_trials=default_trials(num_clusters) if num_trials is None else num_trials,
        generator=generator,
    )
    seeds = choose(candidates, num_clusters, first=True)
    pool.map(_end)
    seeds = Seeds(rows=rows[seeds.rows], features=seeds.features)
    if len(seeds.rows) < num_clusters:
        pool.map(begin_from, seeds.features)
        more = choose(pool, num_clusters - len(seeds.rows), first=False)
        seeds = Seeds(
            rows=np.concatenate([seeds.rows, more.rows]),
            features=np.concatenate([seeds.features, more.features]),
        )
        check_num_distinct(num_clusters, pool.num_rows, len(seeds.rows))
    return seeds


def _join(pool: ShardPool, found: list[Found], first: int) -> Int64[np.ndarray, "C"]:
    """Let all rows meet new candidates, numbered from `first` on; return their rows."""
    features = np.concatenate([part.features for part in found])
    if len(features):
        pool.map(_meet, features, first)
    return np.concatenate([part.row for part in found])


# What runs on a shard. Each function sees one shard and the arguments of `pool.map`.


def _begin(shard: Shard) -> None:
    assigned = nothing_found(len(shard.features))
    shard.state[_STATE] = assigned
    begin(shard, closest_dist_sq=assigned.dist_sq)  # the same array: as the search goes on


def _find(shard: Shard, wanted: Int64[np.ndarray, "M"]) -> Found:
    own = wanted - shard.start
    position = np.flatnonzero((own >= 0) & (own < len(shard.features)))
    row = own[position]
    return Found(position=position, row=shard.start + row, features=shard.features[row])


def _pick(shard: Shard, seed: tuple[int, int], factor: float) -> Found:
    """Return rows drawn one by one, with probability `factor` times their count.

    A row has its own random number, whichever shard it is on.
    """
    bits = Philox(np.random.SeedSequence(seed))
    whole, part = divmod(shard.start, _NUMBERS_OF_A_STEP)
    bits.advance(whole)
    uniform = Generator(bits).random(part + len(shard.features))[part:]
    row = np.flatnonzero(uniform < factor * counts_of(shard))
    return Found(position=row, row=shard.start + row, features=shard.features[row])


def _meet(shard: Shard, candidates: Float32[np.ndarray, "M D"], first: int) -> None:
    rows = coded_rows(shard)
    assigned: Assignment = shard.state[_STATE]
    ids = np.arange(first, first + len(candidates))
    search(rows, rows.code(candidates), ids, assigned)


def _weigh(shard: Shard, num_candidates: int) -> Int64[np.ndarray, "C"]:
    """Return how many rows are nearest to each candidate."""
    end(shard)
    assigned: Assignment = shard.state.pop(_STATE)
    return np.bincount(assigned.label, minlength=num_candidates)


def _hold(shard: Shard, rows: Int64[np.ndarray, "C"], weights: Float64[np.ndarray, "C"]) -> None:
    """Set up the candidates among the shard's own rows as a part of their table."""
    low, high = np.searchsorted(rows, [shard.start, shard.start + len(shard.features)])
    part = Shard(int(low), shard.features[rows[low:high] - shard.start])
    begin(part, weight=weights[low:high])
    shard.state[_PART] = part


def _end(shard: Shard) -> None:
    shard.state.pop(_PART)

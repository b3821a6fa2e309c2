"""k-means||: sameness over shards, quality beside greedy k-means++, and its sampling."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.random import Generator, Philox, SeedSequence

from reid.clustering import greedy_kmeans_plusplus, kmeans, split
from reid.clustering.parallel import _pick, parallel_seeds
from reid.clustering.seed_candidates import begin, count

Make = Callable[..., np.ndarray]


def potential(rows: np.ndarray, centers: np.ndarray) -> float:
    x, c = rows.astype(np.float64), centers.astype(np.float64)
    dist_sq = (x**2).sum(1)[:, None] - 2 * x @ c.T + (c**2).sum(1)
    return float(dist_sq.min(axis=1).sum())


@pytest.mark.parametrize(("num_rows", "num_clusters"), [(1030, 20), (9000, 60)])
def test_the_same_seeds_for_any_number_of_shards(
    num_rows: int, num_clusters: int, identities: Make
) -> None:
    features = identities(num_rows, 12, 30, seed=num_rows)
    expected = parallel_seeds(split(features, 1), num_clusters, seed=4)
    assert len(np.unique(expected.rows)) == num_clusters
    np.testing.assert_array_equal(expected.features, features[expected.rows])
    for num_shards in (2, 3, 8, 16):
        seeds = parallel_seeds(split(features, num_shards), num_clusters, seed=4)
        np.testing.assert_array_equal(seeds.rows, expected.rows)


def test_nearly_as_good_as_greedy_seeding_and_far_better_than_plain(identities: Make) -> None:
    features = identities(6000, 32, 150, seed=2)
    pool = split(features, 3)
    parallel, greedy, plain = (
        np.median([potential(features, features[rows(seed)]) for seed in range(5)])
        for rows in (
            lambda seed: parallel_seeds(pool, 100, seed=seed).rows,
            lambda seed: greedy_kmeans_plusplus(pool, 100, seed=seed),
            lambda seed: greedy_kmeans_plusplus(pool, 100, seed=seed, num_trials=1),
        )
    )
    assert parallel < 1.02 * greedy
    assert parallel < 0.5 * (plain + greedy)


def test_kmeans_begins_with_it(identities: Make) -> None:
    features = identities(2500, 12, 30, seed=3)
    seeds = parallel_seeds(split(features, 1), 25, seed=9)
    result = kmeans(split(features, 2), 25, seed=9, init="parallel")
    expected = kmeans(split(features, 1), 25, seed=0, init=seeds.features)
    np.testing.assert_array_equal(result.centers, expected.centers)


def test_a_row_is_picked_by_its_share_with_its_own_random_number() -> None:
    features = np.array([[0.0], [1], [2], [3]], dtype=np.float32).repeat(1500, axis=0)
    dist_sq = features[:, 0] ** 2
    rows = {}
    for num_shards in (1, 3):
        pool = split(features, num_shards)
        for shard in pool.shards:
            own = dist_sq[shard.start : shard.start + len(shard.features)]
            begin(shard, closest_dist_sq=own.copy())
        total = sum(share.count for share in pool.map(count, -1, 10))
        assert total == 1024 * dist_sq.sum()
        found = pool.map(_pick, (5, 1), 2000 / total)
        rows[num_shards] = np.concatenate([part.row for part in found])
    np.testing.assert_array_equal(rows[1], rows[3])
    uniform = Generator(Philox(SeedSequence((5, 1)))).random(6000)
    np.testing.assert_array_equal(rows[1], np.flatnonzero(uniform < 2000 * dist_sq / dist_sq.sum()))
    assert len(rows[1]) == pytest.approx(2000, abs=5 * np.sqrt(2000))


def test_too_few_candidates_are_made_up_for(identities: Make) -> None:
    # All rows but one equal: rounds find the one at once, and nothing is left to find.
    features = np.zeros((1200, 4), dtype=np.float32)
    features[700] = 1
    seeds = parallel_seeds(split(features, 2), 2, seed=0)
    assert 700 in seeds.rows
    far = identities(3000, 20, 40, seed=1)
    assert len(np.unique(parallel_seeds(split(far, 2), 2900, seed=0).rows)) == 2900


def test_impossible_numbers_are_refused(identities: Make) -> None:
    pool = split(identities(30, 6, 10, seed=9), 1)
    for number in (0, 31):
        with pytest.raises(ValueError, match=f"num_clusters is {number} and there are 30 rows"):
            parallel_seeds(pool, number, seed=0)

"""k-means: scikit-learn and float64 brute force as oracles, and exact sameness over shards."""

import numpy as np
import pytest
from sklearn.cluster import KMeans, kmeans_plusplus

from reid.clustering import greedy_kmeans_plusplus, kmeans, nearest_centers, split
from reid.clustering.lloyd import lloyd
from reid.clustering.shards import LocalShardPool

SHARDS = [2, 3, 5]


def identities(num_rows: int, num_features: int, num_groups: int, *, seed: int) -> np.ndarray:
    """Return unit rows in overlapping groups, as features of a network are."""
    generator = np.random.Generator(np.random.Philox(seed))
    means = generator.normal(size=(num_groups, num_features))
    rows = means[generator.integers(num_groups, size=num_rows)]
    rows = rows + 0.8 * generator.normal(size=rows.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def brute_dist_sq(rows: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Return squared distances (N,K) from differences in float64."""
    columns = [((rows.astype(np.float64) - center) ** 2).sum(axis=1) for center in centers]
    return np.stack(columns, axis=1)


def brute_potential(rows: np.ndarray, centers: np.ndarray) -> float:
    return float(brute_dist_sq(rows, centers).min(axis=1).sum())


@pytest.mark.parametrize("num_features", [3, 64, 333])
@pytest.mark.parametrize("num_rows", [1, 1023, 1024, 1025, 1030, 5000])
def test_the_same_bits_for_any_number_of_shards(num_rows: int, num_features: int) -> None:
    features = identities(num_rows, num_features, 30, seed=num_rows)
    num_clusters = min(num_rows, 20)
    seeds = greedy_kmeans_plusplus(split(features, 1), num_clusters, seed=4)
    expected = kmeans(split(features, 1), num_clusters, seed=4)
    for num_shards in SHARDS:
        # Rows somewhere else in memory, at another alignment
        moved = np.concatenate([np.zeros(num_shards, np.float32), features.ravel()])[num_shards:]
        pool = split(moved.reshape(features.shape), num_shards)
        np.testing.assert_array_equal(greedy_kmeans_plusplus(pool, num_clusters, seed=4), seeds)
        result = kmeans(pool, num_clusters, seed=4)
        np.testing.assert_array_equal(result.centers, expected.centers)
        np.testing.assert_array_equal(result.labels, expected.labels)
        assert (result.inertia, result.iterations) == (expected.inertia, expected.iterations)


def test_no_function_sees_more_than_two_calls_per_centre() -> None:
    class CountingPool(LocalShardPool):
        num_calls = 0

        def map(self, fn, *args, **kwargs):  # type: ignore[no-untyped-def]
            self.num_calls += 1
            return super().map(fn, *args, **kwargs)

    pool = CountingPool(split(identities(1100, 8, 10, seed=0), 2).shards, 1100, 8)
    greedy_kmeans_plusplus(pool, 25, seed=0)
    assert pool.num_calls == 2 * 25


def test_seeds_are_distinct_rows_and_depend_on_the_seed() -> None:
    pool = split(identities(2000, 16, 40, seed=1), 2)
    draws = [greedy_kmeans_plusplus(pool, 50, seed=seed) for seed in (0, 0, 1)]
    assert draws[0].dtype == np.int64
    assert len(np.unique(draws[0])) == 50
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


def test_potential_is_that_of_scikit_learn() -> None:
    features = identities(3000, 64, 120, seed=2)
    pool = split(features, 3)
    ours = [
        brute_potential(features, features[greedy_kmeans_plusplus(pool, 60, seed=seed)])
        for seed in range(6)
    ]
    theirs = [
        brute_potential(features, kmeans_plusplus(features, 60, random_state=seed)[0])
        for seed in range(6)
    ]
    spread = max(theirs) - min(theirs)
    assert min(theirs) - spread < np.mean(ours) < max(theirs)
    assert abs(np.mean(ours) - np.mean(theirs)) < spread

    plain = [
        brute_potential(
            features, features[greedy_kmeans_plusplus(pool, 60, seed=seed, num_trials=1)]
        )
        for seed in range(3)
    ]
    assert min(plain) > max(ours)  # greedy choice earns its candidates


def test_draws_follow_the_squared_distance() -> None:
    # From row 0 the others lie at squared distances 1, 4, 9 and 16; from elsewhere likewise known.
    features = np.array([[0.0], [1.0], [2.0], [3.0], [4.0]], dtype=np.float32)
    dist_sq = (features - features.T).astype(np.float64) ** 2
    expected = (dist_sq / dist_sq.sum(axis=1, keepdims=True)) / 5  # P(first) * P(second | first)
    num_draws = 1000
    counts = np.zeros((5, 5))
    pool = split(features, 1)
    for seed in range(num_draws):
        counts[tuple(greedy_kmeans_plusplus(pool, 2, seed=seed, num_trials=1))] += 1
    possible = expected > 0
    assert (counts[~possible] == 0).all()
    chi_sq = (
        (counts - num_draws * expected)[possible] ** 2 / (num_draws * expected[possible])
    ).sum()
    assert chi_sq < 43.8  # 19 degrees of freedom, p = 0.001


def test_distances_survive_a_large_common_offset() -> None:
    # In the product form float32 would leave nothing of distances of about 1 at an offset of 1000.
    generator = np.random.Generator(np.random.Philox(3))
    corners = 4 * np.eye(8)[:6]
    features = (
        1000 + np.repeat(corners, 50, axis=0) + 0.1 * generator.normal(size=(300, 8))
    ).astype(np.float32)
    rows = greedy_kmeans_plusplus(split(features, 1), 6, seed=0)
    assert sorted(rows // 50) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("num_features", [4, 32, 300])
def test_lloyd_ends_at_a_fixed_point(num_features: int) -> None:
    features = identities(2500, num_features, 25, seed=5)
    result = kmeans(split(features, 2), 20, seed=0)
    assert result.labels.dtype == np.int64
    assert result.iterations < 100
    for cluster, center in enumerate(result.centers):
        mean = features[result.labels == cluster].astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(center, mean, rtol=1e-6, atol=1e-7)
    dist_sq = brute_dist_sq(features, result.centers)
    own = dist_sq[np.arange(len(features)), result.labels]
    assert (own <= dist_sq.min(axis=1) + 1e-6).all()  # float32 rounding of unit rows
    np.testing.assert_allclose(result.inertia, own.sum(), rtol=1e-6)


def test_lloyd_agrees_with_scikit_learn_from_the_same_centres() -> None:
    features = identities(2500, 32, 25, seed=6)
    init = features[greedy_kmeans_plusplus(split(features, 1), 20, seed=0)]
    ours = kmeans(split(features, 2), 20, seed=0, init=init)
    theirs = KMeans(20, init=init, n_init=1, tol=0, max_iter=100).fit(features)
    np.testing.assert_array_equal(ours.labels, theirs.labels_)
    np.testing.assert_allclose(ours.centers, theirs.cluster_centers_, atol=1e-5)
    np.testing.assert_allclose(ours.inertia, theirs.inertia_, rtol=1e-5)
    assert ours.iterations == theirs.n_iter_


def test_the_iteration_limit_leaves_labels_of_the_returned_centres() -> None:
    features = identities(2500, 16, 25, seed=7)
    result = kmeans(split(features, 2), 20, seed=0, max_iterations=1)
    assert result.iterations == 1
    np.testing.assert_array_equal(result.labels, nearest_centers(features, result.centers))
    assert result.inertia > kmeans(split(features, 2), 20, seed=0).inertia
    with pytest.raises(ValueError, match="max_iterations is 0"):
        kmeans(split(features, 2), 20, seed=0, max_iterations=0)


def test_clusters_without_rows_are_seeded_with_the_farthest_rows() -> None:
    # All rows are nearest to the first centre; rows 2099 and 2098 are the farthest from it.
    features = np.arange(2100, dtype=np.float32)[:, None] + [0, 5]
    init = np.array([[0, 5], [-50, 5], [-60, 5]], dtype=np.float32)
    first = kmeans(split(features, 2), 3, seed=0, init=init, max_iterations=1)
    np.testing.assert_array_equal(
        first.centers, [features.mean(axis=0), features[-1], features[-2]]
    )
    results = [kmeans(split(features, shards), 3, seed=0, init=init) for shards in (1, 2, 3)]
    assert np.bincount(results[0].labels, minlength=3).min() > 650  # three thirds of a line
    for result in results[1:]:
        np.testing.assert_array_equal(result.labels, results[0].labels)
        np.testing.assert_array_equal(result.centers, results[0].centers)


def test_as_many_clusters_as_rows() -> None:
    features = identities(40, 5, 40, seed=8)
    result = kmeans(split(features, 1), 40, seed=0)
    assert len(np.unique(result.labels)) == 40
    np.testing.assert_array_equal(result.centers[result.labels], features)
    assert result.inertia == 0


def test_too_many_clusters_are_refused() -> None:
    features = identities(1500, 6, 10, seed=9)
    with pytest.raises(ValueError, match=r"num_clusters is 1501 and there are 1500 rows"):
        kmeans(split(features, 2), 1501, seed=0)
    with pytest.raises(ValueError, match=r"num_clusters is 0 and"):
        greedy_kmeans_plusplus(split(features, 2), 0, seed=0)
    with pytest.raises(ValueError, match="num_trials is 0"):
        greedy_kmeans_plusplus(split(features, 2), 2, seed=0, num_trials=0)


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e4])
def test_fewer_distinct_rows_than_clusters_are_refused(scale: float) -> None:
    distinct = np.float32(scale) * (identities(7, 50, 7, seed=10) + 3)
    features = np.tile(distinct, (300, 1))
    assert len(np.unique(kmeans(split(features, 2), 7, seed=0).labels)) == 7
    message = "num_clusters is 9 but the 2100 rows hold only 7 distinct ones"
    with pytest.raises(ValueError, match=message):
        kmeans(split(features, 2), 9, seed=0)
    with pytest.raises(ValueError, match=message):
        greedy_kmeans_plusplus(split(features, 2), 9, seed=0)
    generator = np.random.Generator(np.random.Philox(0))
    init = np.concatenate([distinct, distinct[:2] + scale * generator.normal(size=(2, 50))])
    with pytest.raises(ValueError, match=message):
        kmeans(split(features, 2), 9, seed=0, init=init)
    with pytest.raises(ValueError, match=message):
        lloyd(split(features, 2), init.astype(np.float32), max_iterations=100)


def test_an_init_that_does_not_fit_is_refused() -> None:
    pool = split(identities(100, 6, 10, seed=11), 1)
    for init in (np.zeros((3, 6)), np.zeros((4, 5)), np.full((4, 6), np.nan)):
        with pytest.raises(ValueError, match=r"expected \(4, 6\) of finite numbers"):
            kmeans(pool, 4, seed=0, init=init)


def test_equal_distances_go_to_the_lowest_centre() -> None:
    # Whole numbers, so that float32 distances are exact; each centre occurs twice.
    generator = np.random.Generator(np.random.Philox(12))
    centers = generator.integers(-2, 3, size=(150, 40)).astype(np.float32)
    centers = np.concatenate([centers, centers[::-1]])
    rows = generator.integers(-2, 3, size=(1500, 40)).astype(np.float32)
    expected = brute_dist_sq(rows, centers).argmin(axis=1)
    np.testing.assert_array_equal(nearest_centers(rows, centers), expected)
    np.testing.assert_array_equal(nearest_centers(rows[:7], centers), expected[:7])

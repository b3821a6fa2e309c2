"""k-means: scikit-learn and float64 brute force as oracles, and exact sameness over shards."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.cluster import KMeans

from reid.clustering import (
    KMeansResult,
    codes,
    greedy_kmeans_plusplus,
    kmeans,
    kmeans_sweep,
    nearest_centers,
    split,
)
from reid.clustering.lloyd import lloyd

SHARDS = [2, 3, 8, 16]
Make = Callable[..., np.ndarray]


def assert_same(result: KMeansResult, expected: KMeansResult) -> None:
    np.testing.assert_array_equal(result.centers, expected.centers)
    np.testing.assert_array_equal(result.labels, expected.labels)
    assert (result.inertia, result.iterations) == (expected.inertia, expected.iterations)


@pytest.mark.parametrize(
    ("num_rows", "num_features"), [(1023, 64), (1025, 3), (5000, 33), (17_000, 5)]
)
def test_the_same_bits_for_any_number_of_shards(
    num_rows: int, num_features: int, identities: Make
) -> None:
    features = identities(num_rows, num_features, 30, seed=num_rows)
    options = {"seed": 4, "max_iterations": 8}
    expected = kmeans(split(features, 1), 20, **options)
    for num_shards in SHARDS:
        # Rows somewhere else in memory, at another alignment
        moved = np.concatenate([np.zeros(num_shards, np.float32), features.ravel()])[num_shards:]
        pool = split(moved.reshape(features.shape), num_shards)
        assert_same(kmeans(pool, 20, **options), expected)


def test_the_same_bits_on_another_kind_of_processor(
    identities: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = identities(2500, 40, 30, seed=0)
    expected = kmeans(split(features, 2), 25, seed=1)
    monkeypatch.setattr(codes, "has_int8_products", lambda: False)
    assert_same(kmeans(split(features, 2), 25, seed=1), expected)


@pytest.mark.skipif(not codes.has_int8_products(), reason="8-bit products may overflow")
def test_the_same_bits_by_the_operations_of_a_gpu(
    identities: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = identities(1500, 40, 30, seed=0)
    expected = kmeans(split(features, 2), 25, seed=1)
    pool = split(features, 2)
    for shard in pool.shards:
        shard.derived[codes.CODED] = codes.code_rows(shard.features, form="cpu")
    assert_same(kmeans(pool, 25, seed=1), expected)


@pytest.mark.gpu
def test_the_same_bits_on_a_gpu(identities: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    features = identities(5000, 100, 30, seed=0)
    pool = split(features, 2)
    result = kmeans(pool, 25, seed=1)
    assert {codes.coded_rows(shard).form for shard in pool.shards} == {"cuda"}
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert_same(kmeans(split(features, 2), 25, seed=1), result)


def test_shards_in_mapped_files(tmp_path: Path, identities: Make) -> None:
    features = identities(2500, 30, 25, seed=3)
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    pool = split(mapped, 2)
    assert all(np.shares_memory(shard.features, mapped) for shard in pool.shards)
    assert not pool.shards[0].features.flags.writeable
    assert_same(kmeans(pool, 20, seed=0), kmeans(split(features, 1), 20, seed=0))
    for shard in pool.shards:  # not even turned into a plain array
        shard.features = mapped[shard.start : shard.start + len(shard.features)]
        shard.derived.clear()
    assert_same(kmeans(pool, 20, seed=0), kmeans(split(features, 1), 20, seed=0))


@pytest.mark.parametrize("num_features", [4, 32, 300])
def test_lloyd_ends_at_a_fixed_point(
    num_features: int, identities: Make, brute_dist_sq: Callable[..., np.ndarray]
) -> None:
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


def test_lloyd_agrees_with_scikit_learn_from_the_same_centres(identities: Make) -> None:
    features = identities(2500, 32, 25, seed=6)
    init = features[greedy_kmeans_plusplus(split(features, 1), 20, seed=0)]
    ours = kmeans(split(features, 2), 20, seed=0, init=init)
    theirs = KMeans(20, init=init, n_init=1, tol=0, max_iter=100).fit(features)
    np.testing.assert_array_equal(ours.labels, theirs.labels_)
    np.testing.assert_allclose(ours.centers, theirs.cluster_centers_, atol=1e-5)
    np.testing.assert_allclose(ours.inertia, theirs.inertia_, rtol=1e-5)
    assert ours.iterations == theirs.n_iter_


def test_the_iteration_limit_leaves_labels_of_the_returned_centres(identities: Make) -> None:
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


def test_too_many_clusters_are_refused(identities: Make) -> None:
    features = identities(1500, 6, 10, seed=9)
    with pytest.raises(ValueError, match=r"num_clusters is 1501 and there are 1500 rows"):
        kmeans(split(features, 2), 1501, seed=0)
    with pytest.raises(ValueError, match=r"num_clusters is 0 and"):
        greedy_kmeans_plusplus(split(features, 2), 0, seed=0)
    with pytest.raises(ValueError, match="num_trials is 0"):
        greedy_kmeans_plusplus(split(features, 2), 2, seed=0, num_trials=0)


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e4])
def test_fewer_distinct_rows_than_clusters_are_refused(scale: float, identities: Make) -> None:
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


def test_an_init_that_does_not_fit_is_refused(identities: Make) -> None:
    pool = split(identities(100, 6, 10, seed=11), 1)
    for init in (np.zeros((3, 6)), np.zeros((4, 5)), np.full((4, 6), np.nan)):
        with pytest.raises(ValueError, match=r"expected \(4, 6\) of finite numbers"):
            kmeans(pool, 4, seed=0, init=init)


def test_tolerance_stops_when_few_labels_change(identities: Make) -> None:
    pool = split(identities(4000, 6, 30, seed=8), 2)  # as many clusters as there are groups
    exact = kmeans(pool, 30, seed=0)
    loose = kmeans(pool, 30, seed=0, tolerance=0.02)
    assert 1 < loose.iterations < exact.iterations
    assert exact.inertia < loose.inertia < 1.02 * exact.inertia
    features = np.concatenate([shard.features for shard in pool.shards])
    np.testing.assert_array_equal(loose.labels, nearest_centers(features, loose.centers))
    one_less = kmeans(pool, 30, seed=0, max_iterations=loose.iterations - 1)
    changed = (one_less.labels != loose.labels).mean()
    assert changed <= 0.02
    for tolerance in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"tolerance is {tolerance}"):
            kmeans(pool, 30, seed=0, tolerance=tolerance)


def test_iterations_after_the_first_cost_what_changes(
    identities: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = identities(4000, 128, 100, seed=4)
    compared: list[int] = []
    products = codes.products

    def count(rows: codes.Codes, columns: codes.Codes) -> object:
        compared.append(len(rows.scale) * len(columns.scale))
        return products(rows, columns)

    init = features[greedy_kmeans_plusplus(split(features, 1), 100, seed=0)]
    monkeypatch.setattr("reid.clustering.distance.products", count)
    result = kmeans(split(features, 1), 100, seed=0, init=init)
    assert result.iterations > 4
    assert sum(compared) < 0.7 * result.iterations * 4000 * 100


def test_sweeps_that_cannot_be_are_refused(identities: Make) -> None:
    pool = split(identities(100, 6, 10, seed=11), 1)
    with pytest.raises(ValueError, match="counts is empty"):
        kmeans_sweep(pool, [], seed=0)
    with pytest.raises(ValueError, match="num_clusters is 101"):
        kmeans_sweep(pool, [3, 101], seed=0)

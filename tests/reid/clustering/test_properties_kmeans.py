"""k-means on any small table: the textbook in exact numbers, and one answer for all shards."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from reid.clustering import (
    KMeansResult,
    greedy_kmeans_plusplus,
    hierarchical_kmeans,
    kmeans,
    kmeans_sweep,
    nearest_centers,
    split,
    warm_centers,
)
from reid.clustering.distance import pair_dist_sq
from reid.clustering.hierarchy import shares_of
from reid.clustering.lloyd import lloyd
from reid.clustering.parallel import parallel_seeds
from reid.clustering.seeding import greedy_seeds
from tests.reid.clustering.strategies import answers, features, one_pool, tables, two_pools

pytestmark = pytest.mark.usefixtures("small_blocks")

any_table = st.one_of(tables(), features())
seeds = st.integers(0, 2**20)


def all_dist_sq(rows: np.ndarray, centers: np.ndarray) -> np.ndarray:
    row, column = np.divmod(np.arange(len(rows) * len(centers)), len(centers))
    return pair_dist_sq(rows, centers, row, column).reshape(len(rows), len(centers))


def assert_same(found: list[Any]) -> None:
    """Compare results, arrays or messages of different numbers of shards with the first."""
    for other in found[1:]:
        assert type(other) is type(found[0])
        if isinstance(other, KMeansResult):
            np.testing.assert_array_equal(other.centers, found[0].centers)
            np.testing.assert_array_equal(other.labels, found[0].labels)
            same = (found[0].inertia, found[0].iterations)
            assert (other.inertia, other.iterations) == same
        else:
            np.testing.assert_array_equal(other, found[0])


def textbook(
    rows: np.ndarray, centers: np.ndarray, max_iterations: int, tolerance: float
) -> KMeansResult | str:
    """Lloyd's iterations over all pairs; a message where clusters cannot be filled."""
    labels = np.full(len(rows), -1)
    centers = centers.copy()
    for iterations in range(1, max_iterations + 1):  # noqa: B007
        dist_sq = all_dist_sq(rows, centers)
        before, labels = labels, dist_sq.argmin(axis=1)
        sizes = np.bincount(labels, minlength=len(centers))
        if sizes.all() and (labels != before).sum() <= tolerance * len(rows):
            break
        own = dist_sq.min(axis=1)
        farthest = iter(np.argsort(-own, kind="stable"))
        if not sizes.all() and not own.any():
            return f"hold only {np.count_nonzero(sizes)} distinct"
        for cluster, size in enumerate(sizes):
            members = rows[labels == cluster].astype(np.float64)
            centers[cluster] = members.sum(axis=0) / size if size else rows[next(farthest)]
    else:
        labels = all_dist_sq(rows, centers).argmin(axis=1)
    inertia = all_dist_sq(rows, centers).min(axis=1).sum(dtype=np.float64)
    return KMeansResult(
        centers=centers, labels=labels, inertia=float(inertia), iterations=iterations
    )


@settings(max_examples=60)
@given(
    rows=tables(),
    shards=one_pool,
    data=st.data(),
    max_iterations=st.sampled_from([1, 2, 100]),
    tolerance=st.sampled_from([0.0, 0.3]),
)
def test_lloyd_is_the_textbook(
    rows: np.ndarray,
    shards: tuple[int],
    data: st.DataObject,
    max_iterations: int,
    tolerance: float,
) -> None:
    # Centres are rows, equal ones as well, or halves beside them, so some clusters are empty.
    number = data.draw(st.integers(1, len(rows)))
    chosen = data.draw(arrays(np.int64, number, elements=st.integers(0, len(rows) - 1)))
    shift = data.draw(arrays(np.int64, number, elements=st.sampled_from([0, 0, 0, 1, -9])))
    centers = (rows[chosen] + shift[:, None] * np.abs(rows).max() / 2).astype(np.float32)
    expected = textbook(rows, centers, max_iterations, tolerance)
    (found,) = answers(
        rows,
        shards,
        lambda pool: lloyd(pool, centers, max_iterations=max_iterations, tolerance=tolerance),
    )
    if isinstance(expected, str):
        assert expected in found
    else:
        assert_same([expected, found])


@settings(max_examples=25)
@given(rows=any_table, shards=two_pools, data=st.data(), seed=seeds)
def test_kmeans_ends_at_a_fixed_point_for_any_number_of_shards(
    rows: np.ndarray, shards: tuple[int, ...], data: st.DataObject, seed: int
) -> None:
    num_distinct = len(np.unique(rows, axis=0))
    number = data.draw(st.integers(1, min(len(rows), num_distinct + 1)))
    init = data.draw(st.sampled_from(["greedy", "parallel"]))
    found = answers(rows, shards, lambda pool: kmeans(pool, number, seed=seed, init=init))
    assert_same(found)
    if number > num_distinct:
        assert f"hold only {num_distinct} distinct ones" in found[0]
        return
    result: KMeansResult = found[0]
    np.testing.assert_array_equal(np.unique(result.labels), np.arange(number))  # none is empty
    np.testing.assert_array_equal(result.labels, nearest_centers(rows, result.centers))
    for cluster, center in enumerate(result.centers):
        mean = rows[result.labels == cluster].astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(center, mean, rtol=1e-6, atol=1e-6 * np.abs(rows).max())
    own = all_dist_sq(rows, result.centers).min(axis=1)
    assert result.inertia == pytest.approx(own.sum(dtype=np.float64), rel=1e-12)
    if number == num_distinct:
        np.testing.assert_array_equal(result.centers[result.labels], rows)


@settings(max_examples=25)
@given(rows=any_table, shards=two_pools, data=st.data(), seed=seeds)
def test_seeds_are_distinct_rows_and_begin_every_smaller_seeding(
    rows: np.ndarray, shards: tuple[int, ...], data: st.DataObject, seed: int
) -> None:
    num_distinct = len(np.unique(rows, axis=0))
    number = data.draw(st.integers(1, min(len(rows), num_distinct + 1)))
    trials = data.draw(st.sampled_from([None, 1, 3]))

    options = {"seed": seed, "num_trials": trials}
    greedy = answers(rows, shards, lambda pool: greedy_seeds(pool, number, **options).rows)
    parallel = answers(rows, shards, lambda pool: parallel_seeds(pool, number, **options).rows)
    for found in (greedy, parallel):
        assert_same(found)
        if number > num_distinct:
            assert f"hold only {num_distinct} distinct ones" in found[0]
        else:
            assert len(np.unique(rows[found[0]], axis=0)) == number
    if trials and number <= num_distinct:
        fewer = data.draw(st.integers(1, number))
        first = greedy_kmeans_plusplus(split(rows, 1), fewer, **options)
        np.testing.assert_array_equal(first, greedy[0][:fewer])


@settings(max_examples=20)
@given(
    rows=any_table,
    shards=one_pool,
    data=st.data(),
    seed=seeds,
    max_iterations=st.sampled_from([1, 100]),
)
def test_a_sweep_is_kmeans_from_the_first_seeds_of_the_largest_count(
    rows: np.ndarray, shards: tuple[int, ...], data: st.DataObject, seed: int, max_iterations: int
) -> None:
    most = len(np.unique(rows, axis=0))
    counts = data.draw(st.lists(st.integers(1, most), min_size=1, max_size=3))
    init = rows[greedy_kmeans_plusplus(split(rows, 1), max(counts), seed=seed)]
    (sweep,) = answers(
        rows,
        shards,
        lambda pool: kmeans_sweep(pool, counts, seed=seed, max_iterations=max_iterations),
    )
    for count in set(counts):
        alone = lloyd(split(rows, 1), init[:count], max_iterations=max_iterations)
        assert_same([alone, sweep[count]])
    assert list(sweep) == sorted(set(counts))


def stays(rows: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Tell which centres are neither empty nor merged, in whole numbers and fractions."""
    label = all_dist_sq(rows, centers).argmin(axis=1)
    sizes = np.bincount(label, minlength=len(centers))
    exact = [[Fraction(float(x)) for x in row] for row in rows]
    middle = [[Fraction(float(x)) for x in center] for center in centers]

    def dist_sq(a: list[Fraction], b: list[Fraction]) -> Fraction:
        return sum(((x - y) ** 2 for x, y in zip(a, b, strict=True)), Fraction(0))

    chance = [
        2 * sum(dist_sq(exact[row], middle[c]) for row in np.flatnonzero(label == c)) / size**2
        for c, size in enumerate(sizes.tolist())
        if size
    ]
    there = np.flatnonzero(sizes)
    near = sorted(
        (dist_sq(middle[i], middle[j]), i, j)
        for place, i in enumerate(there.tolist())
        for other, j in enumerate(there.tolist())
        if i < j and dist_sq(middle[i], middle[j]) <= chance[place] + chance[other]
    )
    kept = sizes > 0
    for _, i, j in near:
        if kept[i] and kept[j]:
            kept[i if sizes[i] < sizes[j] else j] = False
    return kept


@settings(max_examples=40)
@given(rows=tables(max_features=2), shards=two_pools, data=st.data(), seed=seeds)
def test_warm_centres_are_the_given_ones_or_rows(
    rows: np.ndarray, shards: tuple[int, ...], data: st.DataObject, seed: int
) -> None:
    num_distinct = len(np.unique(rows, axis=0))
    number = data.draw(st.integers(1, num_distinct))
    chosen = data.draw(arrays(np.int64, number, elements=st.integers(0, len(rows) - 1)))
    other = data.draw(arrays(np.int64, number, elements=st.integers(0, len(rows) - 1)))
    centers = (rows[chosen] + rows[other]) / 2  # of these some are equal
    kept = stays(rows, centers)
    found = answers(rows, shards, lambda pool: warm_centers(pool, centers, seed=seed))
    assert_same(found)
    np.testing.assert_array_equal(found[0][kept], centers[kept])
    drawn = found[0][~kept]
    assert (drawn[:, None] == rows).all(axis=2).any(axis=1).all()
    assert (all_dist_sq(drawn, centers[kept]) > 0).all()
    assert len(np.unique(drawn, axis=0)) == len(drawn)


@settings(max_examples=25)
@given(
    rows=any_table,
    shards=two_pools,
    data=st.data(),
    seed=seeds,
    flat_iterations=st.sampled_from([0, 1, 3]),
)
def test_two_levels_for_any_number_of_shards(
    rows: np.ndarray, shards: tuple[int, ...], data: st.DataObject, seed: int, flat_iterations: int
) -> None:
    number = data.draw(st.integers(1, len(np.unique(rows, axis=0))))
    num_cells = data.draw(st.integers(1, number))
    options = {"seed": seed, "num_cells": num_cells, "flat_clusters": 0}
    found = answers(
        rows,
        shards,
        lambda pool: hierarchical_kmeans(pool, number, flat_iterations=flat_iterations, **options),
    )
    assert_same(found)
    if isinstance(found[0], str):
        assert "choose fewer clusters or fewer cells" in found[0]
        return
    result: KMeansResult = found[0]
    if flat_iterations:
        np.testing.assert_array_equal(result.labels, nearest_centers(rows, result.centers))
        return
    np.testing.assert_array_equal(np.unique(result.labels), np.arange(number))
    cells = kmeans(split(rows, 1), num_cells, seed=seed).labels
    dist_sq = all_dist_sq(rows, result.centers)
    of_cluster = cells[[int(np.argmax(result.labels == cluster)) for cluster in range(number)]]
    dist_sq[cells[:, None] != of_cluster] = np.inf
    np.testing.assert_array_equal(result.labels, dist_sq.argmin(axis=1))
    for cluster, center in enumerate(result.centers):
        mine = result.labels == cluster
        assert len(np.unique(cells[mine])) == 1
        mean = rows[mine].astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(center, mean, rtol=1e-6, atol=1e-6 * np.abs(rows).max())


@settings(max_examples=100)
@given(sizes=arrays(np.int64, st.integers(1, 12), elements=st.integers(1, 2500)), data=st.data())
def test_shares_are_in_proportion_and_possible(sizes: np.ndarray, data: st.DataObject) -> None:
    total = data.draw(st.integers(len(sizes), int(sizes.sum())))
    shares = shares_of(sizes, total)
    assert shares.sum() == total
    assert (shares >= 1).all()
    assert (shares <= sizes).all()
    exact = total * sizes / sizes.sum()
    if not ((exact < 1) | (exact > sizes)).any():
        assert np.abs(shares - exact).max() < 1 + 1e-9

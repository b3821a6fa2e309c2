"""Shards and how a table is cut into them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from reid.clustering import (
    BLOCK,
    KMeansResult,
    Shard,
    ShardPool,
    as_rows,
    greedy_kmeans_plusplus,
    jaccard_distance,
    kmeans,
    shard_bounds,
    split,
)

Make = Callable[..., np.ndarray]


def first_and_size(shard: Shard, factor: int, *, offset: int) -> tuple[int, int]:
    return factor * shard.start + offset, len(shard.features)


@pytest.mark.parametrize("num_rows", [0, 1, 1023, 1024, 1025, 5000, 20 * BLOCK])
@pytest.mark.parametrize("num_shards", [1, 2, 3, 5, 8])
def test_bounds_cover_the_rows_on_edges_of_blocks(num_rows: int, num_shards: int) -> None:
    bounds = shard_bounds(num_rows, num_shards)
    assert len(bounds) == num_shards
    assert [start for start, _ in bounds[1:]] == [stop for _, stop in bounds[:-1]]
    assert (bounds[0][0], bounds[-1][1]) == (0, num_rows)
    assert all(start % BLOCK == 0 or start == num_rows for start, _ in bounds)
    blocks = [-(-(stop - start) // BLOCK) for start, stop in bounds]
    assert max(blocks) - min(blocks) <= 1


def test_split_keeps_every_row_in_order() -> None:
    features = np.arange(3 * 2500, dtype=np.float32).reshape(2500, 3)
    pool = split(features, 2)
    assert (pool.num_rows, pool.num_features) == (2500, 3)
    np.testing.assert_array_equal(np.concatenate([s.features for s in pool.shards]), features)
    assert all(np.shares_memory(shard.features, features) for shard in pool.shards)
    assert [shard.blocks() for shard in pool.shards] == [
        [slice(0, 1024)],
        [slice(0, 1024), slice(1024, 1476)],
    ]


def test_more_shards_than_blocks_leaves_shards_without_rows() -> None:
    pool = split(np.ones((1500, 2), dtype=np.float32), 5)
    assert sorted(len(shard.features) for shard in pool.shards) == [0, 0, 0, 476, 1024]
    assert all(shard.features.shape[1] == 2 for shard in pool.shards)
    assert [shard.blocks() for shard in pool.shards if not len(shard.features)] == [[], [], []]


def test_map_passes_arguments_and_keeps_the_order() -> None:
    pool = split(np.ones((2048, 2), dtype=np.float32), 2)
    assert pool.map(first_and_size, 2, offset=7) == [(7, 1024), (2055, 1024)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_rows_of_a_tensor(dtype: torch.dtype) -> None:
    features = torch.tensor([[1.5, -2.0], [0.25, 3.0], [8.0, 0.5]], dtype=dtype).T
    rows = as_rows(features.requires_grad_())
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    np.testing.assert_array_equal(rows, [[1.5, 0.25, 8.0], [-2.0, 3.0, 0.5]])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    features = np.ones((3000, 4))
    features[[2049, 2050, 2999], [3, 0, 1]] = value
    message = "features of 3 of 3000 rows hold NaN or infinity in float32, row %d the first"
    with np.errstate(over="ignore"):  # 1e39 is too large for float32
        with pytest.raises(ValueError, match=message % 2049):
            split(features, 2)
        with pytest.raises(ValueError, match=message % 7049):  # a part of a table
            as_rows(features, start=5000)


@pytest.mark.parametrize("shape", [(6,), (2, 3, 1)])
def test_features_that_are_not_a_matrix_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(rows, dimensions\)"):
        split(np.ones(shape), 1)


def test_no_shard_is_refused() -> None:
    with pytest.raises(ValueError, match="num_shards is 0"):
        split(np.ones((4, 2)), 0)


def same(result: KMeansResult, expected: KMeansResult) -> bool:
    """Tell whether two clusterings agree bit for bit."""
    return (
        np.array_equal(result.labels, expected.labels)
        and np.array_equal(result.centers, expected.centers)
        and (result.inertia, result.iterations) == (expected.inertia, expected.iterations)
    )


def test_clusterings_of_one_pool_may_run_at_once(identities: Make) -> None:
    features = identities(3000, 30, 20, seed=0)
    pool = split(features, 2)
    kinds = [(12, 1), (20, 2), (35, 3)]
    for _ in range(3):
        with ThreadPoolExecutor(len(kinds)) as threads:
            found = list(threads.map(lambda kind: kmeans(pool, kind[0], seed=kind[1]), kinds))
        for result, (num_clusters, seed) in zip(found, kinds, strict=True):
            assert same(result, kmeans(split(features, 1), num_clusters, seed=seed))


@pytest.mark.parametrize("number", [5, 20, 60])  # of the call before which another one begins
def test_an_algorithm_between_two_calls_of_another_changes_nothing(
    number: int, identities: Make
) -> None:
    features = identities(2500, 30, 20, seed=1)
    pool = split(features, 2)
    between: list[Any] = []

    class Interrupted:
        num_rows, num_features, num_calls = pool.num_rows, pool.num_features, 0

        def __init__(self, inner: ShardPool) -> None:
            self.inner = inner

        def map(self, fn: Any, *args: Any, **kwargs: Any) -> list[Any]:
            self.num_calls += 1
            if self.num_calls == number:
                between.append(kmeans(pool, 12, seed=2))
                between.append(greedy_kmeans_plusplus(pool, 9, seed=3))
            return self.inner.map(fn, *args, **kwargs)

        def run(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            return fn(self, *args, **kwargs)

    def interrupted(inner: ShardPool) -> KMeansResult:
        return kmeans(Interrupted(inner), 30, seed=1)

    result = pool.run(interrupted)
    inner, rows = between
    assert same(result, kmeans(split(features, 1), 30, seed=1))
    assert same(inner, kmeans(split(features, 1), 12, seed=2))
    np.testing.assert_array_equal(rows, greedy_kmeans_plusplus(split(features, 1), 9, seed=3))


def test_nothing_is_left_of_an_algorithm_but_what_follows_from_the_rows(identities: Make) -> None:
    pool = split(identities(1500, 10, 8, seed=0), 2)
    kmeans(pool, 5, seed=0)
    greedy_kmeans_plusplus(pool, 5, seed=0)
    jaccard_distance(pool, k1=6)
    assert [shard.state for shard in pool.shards] == [{}, {}]
    assert [list(shard.derived) for shard in pool.shards] == [["coded_rows"]] * 2

"""Shards in Ray actors: the same clustering as in one process, and refusal instead of guessing."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import ray

from cluster.answers import ShardLost
from cluster.shard_actor import ShardActor, ShardNotLoaded
from cluster.shards import RayShardPool, send_features, start_actors
from reid.clustering import (
    KMeansResult,
    Shard,
    ShardPool,
    camera_jaccard_distance,
    dbscan,
    greedy_kmeans_plusplus,
    jaccard_distance,
    kmeans,
    nearest_neighbors,
    split,
)
from reid.clustering.seeding import greedy_seeds

pytestmark = pytest.mark.ray

NUM_ROWS, NUM_FEATURES, NUM_CLUSTERS = 3500, 24, 12
TOKEN = (3, 0)


@pytest.fixture(scope="module")
def actors(ray_cluster: str) -> Iterator[list[Any]]:
    handles = start_actors(3, num_cpus=0.5, max_restarts=-1)
    yield handles
    for handle in handles:
        ray.kill(handle)


def count_rows(shard: Shard) -> int:
    return len(shard.features)


# The workers cannot import this file: its functions travel as code.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def view(seed: int) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(seed))
    means = generator.normal(size=(NUM_CLUSTERS, NUM_FEATURES))
    rows = means[generator.integers(NUM_CLUSTERS, size=NUM_ROWS)]
    return (rows + 0.5 * generator.normal(size=rows.shape)).astype(np.float32)


def send(actors: list[Any], features: np.ndarray, key: str, token: tuple[int, int]) -> None:
    """Send from two ranks whose border is no edge of a block, the later rows first."""
    for start, stop in ((1300, len(features)), (0, 1300)):
        part = features[start:stop]
        send_features(
            actors, key, token, num_rows=len(features), start=start, features=part, timeout_s=60
        )


def pool_of(actors: list[Any], key: str, token: tuple[int, int], **changes: Any) -> RayShardPool:
    options = {"num_rows": NUM_ROWS, "num_features": NUM_FEATURES, "timeout_s": 60.0} | changes
    return RayShardPool(actors, key, token=token, **options)


def assert_same(result: KMeansResult, expected: KMeansResult) -> None:
    np.testing.assert_array_equal(result.centers, expected.centers)
    np.testing.assert_array_equal(result.labels, expected.labels)
    assert (result.inertia, result.iterations) == (expected.inertia, expected.iterations)


@pytest.mark.parametrize("num_actors", [1, 3])
def test_clustering_is_the_same_as_in_one_process(actors: list[Any], num_actors: int) -> None:
    features = view(0)
    local = split(features, 1)
    send(actors[:num_actors], features, "global", TOKEN)
    pool = pool_of(actors[:num_actors], "global", TOKEN)
    np.testing.assert_array_equal(
        greedy_kmeans_plusplus(pool, NUM_CLUSTERS, seed=1),
        greedy_kmeans_plusplus(local, NUM_CLUSTERS, seed=1),
    )
    assert_same(kmeans(pool, NUM_CLUSTERS, seed=1), kmeans(local, NUM_CLUSTERS, seed=1))


def test_sparse_clustering_is_the_same_as_in_one_process(actors: list[Any]) -> None:
    features, camid = view(7), np.arange(NUM_ROWS) % 5
    send(actors, features, "global", (9, 0))
    pool = pool_of(actors, "global", (9, 0))
    near, expected = nearest_neighbors(pool, 9), nearest_neighbors(features, 9)
    np.testing.assert_array_equal(near.indices, expected.indices)
    np.testing.assert_array_equal(near.distances, expected.distances)
    for ours, local in (
        (jaccard_distance(pool, k1=12), jaccard_distance(features, k1=12)),
        (
            camera_jaccard_distance(pool, camid, max_distance=0.7),
            camera_jaccard_distance(features, camid, max_distance=0.7),
        ),
    ):
        np.testing.assert_array_equal(ours.indptr, local.indptr)
        np.testing.assert_array_equal(ours.indices, local.indices)
        np.testing.assert_array_equal(ours.data, local.data)
        np.testing.assert_array_equal(dbscan(ours, eps=0.6), dbscan(local, eps=0.6))


def test_shards_without_rows_take_part(actors: list[Any]) -> None:
    features = view(0)[:1500]  # two blocks on three actors
    send(actors, features, "short", TOKEN)
    pool = pool_of(actors, "short", TOKEN, num_rows=1500)
    expected = kmeans(split(features, 1), NUM_CLUSTERS, seed=2)
    assert_same(kmeans(pool, NUM_CLUSTERS, seed=2), expected)


def test_three_views_are_clustered_at_once(actors: list[Any]) -> None:
    views = {name: view(seed) for seed, name in enumerate(("global", "top", "bottom"))}
    for name, features in views.items():
        send(actors, features, name, (4, 0))
    pools = [pool_of(actors, name, (4, 0)) for name in views]
    with ThreadPoolExecutor(3) as threads:
        results = list(threads.map(lambda pool: kmeans(pool, NUM_CLUSTERS, seed=5), pools))
    for result, features in zip(results, views.values(), strict=True):
        assert_same(result, kmeans(split(features, 1), NUM_CLUSTERS, seed=5))


def test_clusterings_of_one_view_run_at_once(actors: list[Any]) -> None:
    features = view(1)
    send(actors, features, "global", (4, 1))
    pool = pool_of(actors, "global", (4, 1))
    kinds = [(NUM_CLUSTERS, 5), (20, 6), (35, 7)]
    with ThreadPoolExecutor(4) as threads:
        rows = threads.submit(greedy_kmeans_plusplus, pool, 9, seed=8)
        found = list(threads.map(lambda kind: kmeans(pool, kind[0], seed=kind[1]), kinds))
    for result, (num_clusters, seed) in zip(found, kinds, strict=True):
        assert_same(result, kmeans(split(features, 1), num_clusters, seed=seed))
    expected = greedy_kmeans_plusplus(split(features, 1), 9, seed=8)
    np.testing.assert_array_equal(rows.result(), expected)


class KillingPool(RayShardPool):
    """Kills the actor of shard 1 before the tenth call."""

    num_calls = 0

    def map(self, fn: Any, *args: Any, **kwargs: Any) -> list[Any]:
        self.num_calls += 1
        if self.num_calls == 10:
            ray.kill(self._actors[1], no_restart=False)
        return super().map(fn, *args, **kwargs)


def send_until_it_arrives(actors: list[Any], features: np.ndarray, token: tuple[int, int]) -> None:
    for _ in range(100):  # until Ray has restarted what died
        try:
            send(actors, features, "global", token)
            return
        except ShardLost:
            time.sleep(0.2)


def test_a_dead_actor_is_reported_and_a_repeat_gives_the_same(actors: list[Any]) -> None:
    features = view(0)
    send(actors, features, "global", (5, 0))
    options = {"num_rows": NUM_ROWS, "num_features": NUM_FEATURES, "timeout_s": 60.0}
    pool = KillingPool(actors, "global", token=(5, 0), **options)
    with pytest.raises(ShardLost, match="next generation") as error:
        greedy_seeds(pool, NUM_CLUSTERS, seed=1)
    assert error.value.shards == [1]

    send_until_it_arrives(actors, features, (5, 1))
    result = kmeans(pool_of(actors, "global", (5, 1)), NUM_CLUSTERS, seed=1)
    assert_same(result, kmeans(split(features, 1), NUM_CLUSTERS, seed=1))


def die_in_the_middle(pool: ShardPool) -> int:
    def die(shard: Shard) -> None:
        if shard.start == 1024:
            os.kill(os.getpid(), signal.SIGKILL)

    num_rows = sum(pool.map(count_rows))
    pool.map(die)
    return num_rows


def test_a_death_during_an_algorithm_leaves_nobody_waiting(actors: list[Any]) -> None:
    features = view(0)
    send(actors, features, "global", (8, 0))
    started = time.monotonic()
    with pytest.raises(ShardLost, match="next generation") as error:
        pool_of(actors, "global", (8, 0), timeout_s=300.0).run(die_in_the_middle)
    assert error.value.shards == [1]
    assert time.monotonic() - started < 60, "the others waited for the dead one"

    send_until_it_arrives(actors, features, (8, 1))
    result = kmeans(pool_of(actors, "global", (8, 1)), NUM_CLUSTERS, seed=1)
    assert_same(result, kmeans(split(features, 1), NUM_CLUSTERS, seed=1))


def results_of_several_sizes(pool: ShardPool) -> list[list[int]]:
    def numbers(shard: Shard, count: int) -> list[int]:
        return [shard.start] * count

    return [row for count in (1, 50_000, 2) for row in pool.map(numbers, count)]


def test_an_exchange_brings_results_of_any_size_in_shard_order(actors: list[Any]) -> None:
    send(actors, view(0), "global", TOKEN)
    found = pool_of(actors, "global", TOKEN).run(results_of_several_sizes)
    assert found == [[start] * count for count in (1, 50_000, 2) for start in (0, 1024, 2048)]


def test_an_error_on_one_shard_is_raised_and_the_pool_goes_on(actors: list[Any]) -> None:
    def fail(pool: ShardPool) -> None:
        def one(shard: Shard) -> None:
            if shard.start == 1024:
                raise ValueError("no good rows")

        pool.map(one)

    features = view(0)
    send(actors, features, "global", TOKEN)
    pool = pool_of(actors, "global", TOKEN)
    with pytest.raises(ValueError, match="no good rows"):
        pool.run(fail)
    result = kmeans(pool, NUM_CLUSTERS, seed=3)
    assert_same(result, kmeans(split(features, 1), NUM_CLUSTERS, seed=3))


def test_another_token_or_key_is_lost(actors: list[Any]) -> None:
    send(actors, view(0), "global", (6, 1))
    for key, token in (("global", (6, 0)), ("global", (7, 1)), ("nowhere", (6, 1))):
        with pytest.raises(ShardLost) as error:
            pool_of(actors, key, token).map(count_rows)
        assert error.value.shards == [0, 1, 2]
    assert sum(pool_of(actors, "global", (6, 1)).map(count_rows)) == NUM_ROWS


def test_an_incomplete_shard_is_lost(actors: list[Any]) -> None:
    send_features(
        actors, "part", TOKEN, num_rows=NUM_ROWS, start=0, features=view(0)[:2000], timeout_s=60
    )
    with pytest.raises(ShardLost) as error:
        pool_of(actors, "part", TOKEN).map(count_rows)
    # Of 4 blocks, shard 0 owns one, 1 owns one (rows 1024 to 2047) and 2 the rest.
    assert error.value.shards == [1, 2]


def test_a_stall_names_shard_and_node(actors: list[Any]) -> None:
    send(actors, view(0), "global", TOKEN)

    def stall(shard: Shard) -> None:
        if shard.start == 1024:
            time.sleep(3)

    pool = pool_of(actors, "global", TOKEN, timeout_s=1.0)
    node = ray.get_runtime_context().get_node_id()
    with pytest.raises(TimeoutError, match=rf"from shards 1 \(node {node}\)"):
        pool.map(stall)


def test_errors_of_the_function_pass(actors: list[Any]) -> None:
    send(actors, view(0), "global", TOKEN)

    def fail(shard: Shard) -> None:
        raise ValueError(f"no good rows from {shard.start} on")

    with pytest.raises(ValueError, match="no good rows from"):
        pool_of(actors, "global", TOKEN).map(fail)


def test_rows_outside_the_table_are_refused(actors: list[Any]) -> None:
    with pytest.raises(ValueError, match="outside a table of 100"):
        send_features(
            actors, "x", TOKEN, num_rows=100, start=90, features=np.ones((11, 2)), timeout_s=5
        )


def test_more_actors_than_the_cluster_holds(ray_cluster: str) -> None:
    with pytest.raises(TimeoutError, match="0 of 1 shard actors started"):
        start_actors(1, num_cpus=1000, timeout_s=1)


def test_actors_wait_for_nodes_of_their_labels(ray_cluster: str) -> None:
    with pytest.raises(TimeoutError, match=r"0 of 1 .* on nodes labelled role=nowhere,"):
        start_actors(1, num_cpus=0.1, labels={"role": "nowhere"}, timeout_s=3)


def test_an_actor_replaces_the_rows_of_another_token() -> None:
    actor = ShardActor()
    bounds = (1024, 1028)
    actor.load("global", (0, 0), bounds, 1024, np.zeros((4, 2), np.float32))
    assert actor.apply("global", (0, 0), count_rows) == 4
    actor.load("global", (0, 1), bounds, 1026, np.ones((2, 2), np.float32))
    with pytest.raises(ShardNotLoaded, match=r"token \(0, 0\) and holds token \(0, 1\)"):
        actor.apply("global", (0, 0), count_rows)
    actor.load("global", (0, 1), bounds, 1026, np.ones((2, 2), np.float32))
    with pytest.raises(ShardNotLoaded, match="lacks 2 rows"):
        actor.apply("global", (0, 1), count_rows)
    actor.load("global", (0, 1), bounds, 1024, np.ones((2, 2), np.float32))
    assert actor.apply("global", (0, 1), count_rows) == 4

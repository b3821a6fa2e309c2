"""Every algorithm gives the same bits over 1, 2, 3, 8 and 16 actors as in one process.

Shards of one process are in tests/reid/clustering.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import ray

from cluster.shards import RayShardPool, send_features, start_actors
from reid.clustering import (
    BLOCK,
    DBSCANConfig,
    ShardPool,
    camera_jaccard_distance,
    cluster_means,
    cross_agreement,
    greedy_kmeans_plusplus,
    hierarchical_kmeans,
    jaccard_dbscan,
    jaccard_distance,
    kmeans,
    kmeans_sweep,
    nearest_neighbors,
    self_paced_labels,
    split,
    warm_centers,
)
from reid.clustering.health import health

pytestmark = pytest.mark.ray

MOST = 16
NUM_ROWS, NUM_FEATURES = MOST * BLOCK - 300, 16
CAMID = np.arange(NUM_ROWS) % 5


def made_rows() -> np.ndarray:
    """Return unit rows in 60 groups, some of them duplicates."""
    generator = np.random.Generator(np.random.Philox(3))
    means = generator.normal(size=(60, NUM_FEATURES))
    rows = means[generator.integers(60, size=NUM_ROWS)]
    rows += 0.4 * generator.normal(size=rows.shape)
    rows[100:140] = rows[7000:7040]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


def of_kmeans(pool: ShardPool, init: Any) -> list[np.ndarray]:
    found = kmeans(pool, 40, seed=1, init=init, max_iterations=6)
    return [found.centers, found.labels, np.array([found.inertia])]


def of_sweep(pool: ShardPool) -> list[np.ndarray]:
    found = kmeans_sweep(pool, [10, 25], seed=2, max_iterations=3)
    return [result.labels for result in found.values()]


def of_warm(pool: ShardPool) -> list[np.ndarray]:
    return [warm_centers(pool, made_rows()[:30], seed=4)]


def of_hierarchy(pool: ShardPool) -> list[np.ndarray]:
    found = hierarchical_kmeans(pool, 200, seed=5, flat_clusters=50, max_iterations=2)
    return [found.centers, found.labels]


def of_neighbors(pool: ShardPool) -> list[np.ndarray]:
    found = nearest_neighbors(pool, 8)
    return [found.indices, found.distances]


def of_jaccard(pool: ShardPool) -> list[np.ndarray]:
    distance = jaccard_distance(pool, k1=10, k2=3, max_distance=0.7)
    found = self_paced_labels(distance, eps=0.6, eps_gap=0.02)
    return [distance.indptr, distance.indices, distance.data, found.labels]


def of_cameras(pool: ShardPool) -> list[np.ndarray]:
    distance = camera_jaccard_distance(pool, CAMID, k1_intra=4, k1_inter=6, max_distance=0.7)
    return [distance.indptr, distance.indices, distance.data]


def of_labels(pool: ShardPool) -> list[np.ndarray]:
    found = jaccard_dbscan(pool, DBSCANConfig(k1=10, k2=3))
    figures = health(found, pool=pool, camid=CAMID)
    return [found.labels, found.centers, np.array(list(figures.values()))]


def of_means(pool: ShardPool) -> list[np.ndarray]:
    return [cluster_means(pool, np.arange(NUM_ROWS) % 70)]


def of_agreement(pool: ShardPool) -> list[np.ndarray]:
    return [cross_agreement(pool, [pool], k=5)]


ALGORITHMS: dict[str, Callable[[ShardPool], list[np.ndarray]]] = {
    "seeds": lambda pool: [greedy_kmeans_plusplus(pool, 40, seed=1)],
    "kmeans": partial(of_kmeans, init="greedy"),
    "parallel": partial(of_kmeans, init="parallel"),
    "given centres": partial(of_kmeans, init=made_rows()[:40]),
    "sweep": of_sweep,
    "warm": of_warm,
    "hierarchy": of_hierarchy,
    "neighbours": of_neighbors,
    "jaccard": of_jaccard,
    "cameras": of_cameras,
    "labels": of_labels,
    "means": of_means,
    "agreement": of_agreement,
}


@pytest.fixture(scope="module")
def actors(ray_cluster: str) -> Iterator[list[Any]]:
    handles = start_actors(MOST, num_cpus=0.05, max_restarts=0)
    yield handles
    for handle in handles:
        ray.kill(handle)


@pytest.fixture(scope="module")
def expected() -> dict[str, list[np.ndarray]]:
    pool = split(made_rows(), 1)
    return {name: algorithm(pool) for name, algorithm in ALGORITHMS.items()}


@pytest.mark.parametrize("count", [1, 2, 3, 8, MOST])
def test_every_algorithm_is_bit_identical(
    actors: list[Any], expected: dict[str, list[np.ndarray]], count: int
) -> None:
    features, token = made_rows(), (count, 0)
    sent = {"num_rows": NUM_ROWS, "start": 0, "features": features, "timeout_s": 60}
    send_features(actors[:count], "global", token, **sent)
    pool = RayShardPool(
        actors[:count],
        "global",
        token=token,
        num_rows=NUM_ROWS,
        num_features=NUM_FEATURES,
        timeout_s=120.0,
    )
    for name, algorithm in ALGORITHMS.items():
        for found, wanted in zip(algorithm(pool), expected[name], strict=True):
            np.testing.assert_array_equal(found, wanted, err_msg=name)


def test_the_rows_are_worth_comparing(expected: dict[str, list[np.ndarray]]) -> None:
    """Clusters and outliers are there, and what should differ does."""
    labels, centers, _ = expected["labels"]
    assert 10 < len(centers) < 2000
    assert 0 < (labels < 0).mean() < 0.9
    assert len(np.unique(expected["jaccard"][-1])) > len(centers)
    assert not np.array_equal(expected["kmeans"][1], expected["parallel"][1])

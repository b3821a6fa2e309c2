"""Actors that die or stall in the middle of an algorithm: the same result, or their name.

A fault happens inside a mapped function of a running algorithm, after it changed the shard's state,
and leaves a record of where that was.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from cluster.answers import ShardLost
from cluster.links import RayLink
from cluster.shards import RayShardPool, send_features, start_actors
from reid.clustering import (
    KMeansResult,
    Shard,
    ShardPool,
    jaccard_distance,
    kmeans,
    shard_bounds,
    split,
)

pytestmark = pytest.mark.ray

NUM_ROWS, NUM_FEATURES, NUM_CLUSTERS, NUM_ACTORS = 3500, 24, 40, 3
STALL_TIMEOUT_S = 2.0

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file


@pytest.fixture(scope="module")
def actors(ray_cluster: str) -> Iterator[list[Any]]:
    handles = start_actors(NUM_ACTORS, num_cpus=0.5, max_restarts=-1)
    yield handles
    for handle in handles:
        ray.kill(handle)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """In the `turn`th call of the function `name`, shard `shard` dies, or sleeps `stall_s`.

    Once: not when there is a `record`, which it leaves.
    """

    name: str
    turn: int
    shard: int
    record: str
    stall_s: float = 0.0

    def happen(self, shard: Shard, fn: Callable[..., Any]) -> None:
        """Leave the record and go."""
        what = {"in": f"{fn.__module__}.{fn.__name__}", "state": sorted(shard.state)}
        Path(self.record).write_text(json.dumps(what | {"pid": os.getpid()}))
        if self.stall_s:
            time.sleep(self.stall_s)
        else:
            os.kill(os.getpid(), signal.SIGKILL)


class Disturbed:
    """A pool whose algorithms meet a fault, wherever they are worked out."""

    def __init__(self, pool: ShardPool, fault: Fault) -> None:
        self.num_rows, self.num_features = pool.num_rows, pool.num_features
        self.pool, self.fault, self.turn = pool, fault, 0

    def map(self, fn: Any, *args: Any, **kwargs: Any) -> list[Any]:
        self.turn += fn.__name__ == self.fault.name
        if fn.__name__ == self.fault.name and self.turn == self.fault.turn:
            return self.pool.map(faulty, self.fault, fn, *args, **kwargs)
        return self.pool.map(fn, *args, **kwargs)

    def run(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        return self.pool.run(disturbed, self.fault, fn, *args, **kwargs)


def disturbed(pool: ShardPool, fault: Fault, fn: Any, *args: Any, **kwargs: Any) -> Any:
    return fn(Disturbed(pool, fault), *args, **kwargs)


def faulty(shard: Shard, fault: Fault, fn: Any, *args: Any, **kwargs: Any) -> Any:
    result = fn(shard, *args, **kwargs)
    begin, _ = shard_bounds(NUM_ROWS, NUM_ACTORS)[fault.shard]
    if shard.start == begin and not os.path.exists(fault.record):
        fault.happen(shard, fn)
    return result


class Alone(RayLink):
    """The link of the only rank."""

    def agree(self, compute: Callable[[], Any]) -> Any:
        return compute()


def view(seed: int) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(seed))
    means = generator.normal(size=(NUM_CLUSTERS, NUM_FEATURES))
    rows = means[generator.integers(NUM_CLUSTERS, size=NUM_ROWS)]
    return (rows + 0.5 * generator.normal(size=rows.shape)).astype(np.float32)


def solved(actors: list[Any], views: dict[str, np.ndarray], solve: Callable[..., Any]) -> list[Any]:
    """Return what each attempt to solve gave: None where shards were lost."""
    attempts: list[Any] = []

    def attempt(pools: Any) -> None:
        attempts.append(None)
        attempts[-1] = solve(pools)

    Alone(actors=actors, board=None, timeout_s=60.0).cluster(
        {name: torch.from_numpy(features) for name, features in views.items()},
        rows=range(NUM_ROWS),
        num_rows=NUM_ROWS,
        round=0,
        solve=attempt,
    )
    return attempts


def assert_same(result: KMeansResult, expected: KMeansResult) -> None:
    np.testing.assert_array_equal(result.centers, expected.centers)
    np.testing.assert_array_equal(result.labels, expected.labels)
    assert (result.inertia, result.iterations) == (expected.inertia, expected.iterations)


def happened(fault: Fault) -> dict[str, Any]:
    """Return the fault's record."""
    found: dict[str, Any] = json.loads(Path(fault.record).read_text())
    return found


@pytest.mark.parametrize(
    ("name", "turn", "shard", "place", "state"),
    [
        ("gains", 20, 1, "reid.clustering.seed_candidates.gains", "candidates"),
        ("_assign", 3, 0, "reid.clustering.lloyd._assign", "lloyd"),  # the one all are connected to
    ],
    ids=["seeding", "lloyd"],
)
def test_three_views_survive_a_death_in_one(
    actors: list[Any], tmp_path: Path, name: str, turn: int, shard: int, place: str, state: str
) -> None:
    views = {key: view(seed) for seed, key in enumerate(("global", "top", "bottom"))}
    fault = Fault(name=name, turn=turn, shard=shard, record=str(tmp_path / "record"))

    def solve(pools: dict[str, ShardPool]) -> dict[str, KMeansResult]:
        pools = pools | {"top": Disturbed(pools["top"], fault)}
        with ThreadPoolExecutor(3) as threads:
            found = threads.map(lambda key: kmeans(pools[key], NUM_CLUSTERS, seed=5), pools)
            return dict(zip(pools, found, strict=True))

    attempts = solved(actors, views, solve)
    record = happened(fault)
    assert (record["in"], record["state"]) == (place, [state])
    assert len(attempts) == 2
    assert attempts[0] is None
    for key, features in views.items():
        assert_same(attempts[1][key], kmeans(split(features, 1), NUM_CLUSTERS, seed=5))


def test_jaccard_survives_a_death(actors: list[Any], tmp_path: Path) -> None:
    features = view(3)
    fault = Fault(name="_measure", turn=2, shard=2, record=str(tmp_path / "record"))

    def solve(pools: dict[str, ShardPool]) -> Any:
        return jaccard_distance(Disturbed(pools["global"], fault), k1=8)

    attempts = solved(actors, {"global": features}, solve)
    record = happened(fault)
    assert (record["in"], record["state"]) == ("reid.clustering.jaccard._measure", ["jaccard"])
    assert len(attempts) == 2
    assert attempts[0] is None
    found, expected = attempts[1], jaccard_distance(features, k1=8)
    for part in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(found, part), getattr(expected, part))


@pytest.mark.parametrize(
    ("shards", "shard"), [(3, 1), (1, 0)], ids=["one of three", "one that is alone"]
)
def test_a_stall_in_an_algorithm_names_shard_and_node(
    actors: list[Any], tmp_path: Path, shards: int, shard: int
) -> None:
    fault = Fault(
        name="_assign", turn=3, shard=shard, record=str(tmp_path / "record"), stall_s=120.0
    )
    mine = actors[:shards]
    sent = {"num_rows": NUM_ROWS, "timeout_s": 60.0, "features": view(4), "start": 0}
    send_features(mine, "global", (7, shards), **sent)
    sizes = {"num_rows": NUM_ROWS, "num_features": NUM_FEATURES}
    pool = RayShardPool(mine, "global", token=(7, shards), timeout_s=STALL_TIMEOUT_S, **sizes)
    node = ray.get_runtime_context().get_node_id()
    with pytest.raises(TimeoutError, match=rf"from shards {shard} \(node {node}\)"):
        kmeans(Disturbed(pool, fault), NUM_CLUSTERS, seed=5)
    waited = time.time() - os.path.getmtime(fault.record)
    assert waited < STALL_TIMEOUT_S + 3, "the error came late"
    assert happened(fault)["in"] == "reid.clustering.lloyd._assign"


def test_a_long_algorithm_is_no_stall(actors: list[Any]) -> None:
    """It takes longer than a shard is given, but none of its exchanges does."""

    def count_slowly(pool: ShardPool) -> int:
        def one(shard: Shard) -> int:
            time.sleep(0.15)
            return 1

        return sum(sum(pool.map(one)) for _ in range(10))

    for number in range(100):  # until Ray has restarted what stalled
        try:
            sent = {"num_rows": NUM_ROWS, "timeout_s": 60.0, "features": view(4), "start": 0}
            send_features(actors, "global", (8, number), **sent)
            break
        except ShardLost:
            time.sleep(0.2)
    sizes = {"num_rows": NUM_ROWS, "num_features": NUM_FEATURES}
    pool = RayShardPool(actors, "global", token=(8, number), timeout_s=1.0, **sizes)
    assert pool.map(len_of) == [1024, 1024, NUM_ROWS - 2048]
    started = time.monotonic()
    assert pool.run(count_slowly) == 30
    assert time.monotonic() - started > 1.4


def len_of(shard: Shard) -> int:
    return len(shard.features)

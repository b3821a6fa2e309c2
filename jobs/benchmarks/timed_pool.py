"""A pool that takes the time of its exchanges; actors import this file, so it imports little.

Legend: N rows.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
from jaxtyping import Int64

from reid.clustering import Shard, ShardPool, kmeans

P = ParamSpec("P")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figures:
    """A clustering's labels and what its exchanges took, in seconds: all, and the slowest shard."""

    labels: Int64[np.ndarray, "N"]
    num_exchanges: int
    exchange_s: float
    slowest_s: float


class Timed:
    """A `ShardPool` that takes the time of every exchange."""

    def __init__(self, pool: ShardPool) -> None:
        self.num_rows, self.num_features = pool.num_rows, pool.num_features
        self.pool = pool
        self.num_exchanges, self.exchange_s, self.slowest_s = 0, 0.0, 0.0

    def map(
        self, fn: Callable[Concatenate[Shard, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> list[T]:
        """Return what the pool does."""
        started = time.perf_counter()
        parts = self.pool.map(_timed, fn, *args, **kwargs)
        self.exchange_s += time.perf_counter() - started
        self.slowest_s += max(seconds for seconds, _ in parts)
        self.num_exchanges += 1
        return [value for _, value in parts]

    def run(
        self, fn: Callable[Concatenate[ShardPool, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return `fn(self, *args, **kwargs)`."""
        return fn(self, *args, **kwargs)


def timed_kmeans(pool: ShardPool, num_clusters: int, *, seed: int) -> Figures:
    """Cluster the pool's rows and return what it took."""
    timed = Timed(pool)
    labels = kmeans(timed, num_clusters, seed=seed).labels
    return Figures(
        labels=labels,
        num_exchanges=timed.num_exchanges,
        exchange_s=timed.exchange_s,
        slowest_s=timed.slowest_s,
    )


def by_run(pool: ShardPool, num_clusters: int, *, seed: int) -> Figures:
    """Cluster by exchanges among the actors."""
    return pool.run(timed_kmeans, num_clusters, seed=seed)


# What runs on a shard. Each function sees one shard and the arguments of `pool.map`.


def _timed(
    shard: Shard, fn: Callable[Concatenate[Shard, P], T], /, *args: P.args, **kwargs: P.kwargs
) -> tuple[float, T]:
    started = time.perf_counter()
    value = fn(shard, *args, **kwargs)
    return time.perf_counter() - started, value


def process_seconds(_: Shard) -> float:
    """Return the processor seconds of the shard's process."""
    return time.process_time()

"""The stages of the scale study: what is run, what it took, what actors would have told each other.

Legend: N rows, D feature dimensions, K clusters.
"""

import ctypes
import pickle
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray
from scipy import sparse

from jobs.benchmarks.timing import cpu_seconds
from jobs.planning import work
from reid.clustering import (
    Shard,
    ShardPool,
    dbscan,
    hierarchical_kmeans,
    jaccard_distance,
    nearest_neighbors,
    split,
)
from reid.clustering import search as neighbor_search
from reid.clustering.codes import CODED, coded_rows
from reid.clustering.lloyd import lloyd
from reid.clustering.parallel import parallel_seeds
from reid.clustering.seeding import greedy_seeds

P = ParamSpec("P")
T = TypeVar("T")

ITERATIONS = work.MEASURED_ITERATIONS
"""of Lloyd, and on each level of the hierarchy"""
K1, K2, REACH, EPS = work.MEASURED_K1, 6, 0.65, 0.6
"""of the Jaccard distance and DBSCAN"""
_ENOUGH_S, _MOST_REPEATS = 1.0, 3


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much: `num_clusters` is 0 where a stage has none."""

    num_rows: int
    num_features: int
    num_clusters: int = 0
    num_shards: int = 1


class CountedPool:
    """A pool in this process that counts what its shards would tell each other as actors.

    An exchange a `map`: `num_bytes` is what every actor hears, all shards' answers pickled.
    `spent` is (processor, wall) seconds by the module whose function was mapped.
    """

    def __init__(self, features: Float32[np.ndarray, "N D"], num_shards: int) -> None:
        self._pool = split(features, num_shards)
        self.shards = self._pool.shards
        self.num_rows, self.num_features = features.shape
        self.messages, self.num_bytes = 0, 0
        self.spent: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(2))

    def map(
        self, fn: Callable[Concatenate[Shard, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> list[T]:
        """Return `fn(shard, *args, **kwargs)` of every shard, in shard order."""
        started = _clocks()
        answers = self._pool.map(fn, *args, **kwargs)
        self.spent[fn.__module__] += _clocks() - started
        self.messages += 1
        self.num_bytes += sum(map(pickled_bytes, answers))
        return answers

    def run(
        self, fn: Callable[Concatenate[ShardPool, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return `fn(self, *args, **kwargs)`."""
        return fn(self, *args, **kwargs)

    def forget(self) -> None:
        """Start counting anew."""
        self.messages, self.num_bytes = 0, 0
        self.spent.clear()


def pickled_bytes(answer: object) -> int:
    """Return the size of a shard's answer as an actor sends it; large arrays are not copied."""
    buffers: list[pickle.PickleBuffer] = []
    message = (True, answer)
    head = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append)
    return len(head) + sum(buffer.raw().nbytes for buffer in buffers)


@dataclass(kw_only=True)
class Run:
    """A table's pool, and what one stage leaves for the next: centres (K,D) by K, distances."""

    pool: CountedPool
    centers: dict[int, Float32[np.ndarray, "K D"]] = field(default_factory=dict)
    distance: sparse.csr_array | None = None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of clustering: how to run it, and its amount of work, as `jobs.plan` counts it.

    `per` divides the seconds of a run. `without` is a module whose maps are not of this stage.
    """

    run: Callable[[Run, int], object]
    work: Callable[[Size], float]
    per: int = 1
    without: str = ""


def _codes(run: Run, _: int) -> None:
    for shard in run.pool.shards:
        shard.derived.pop(CODED, None)
    for shard in run.pool.shards:
        coded_rows(shard)


def _parallel(run: Run, num_clusters: int) -> None:
    run.centers[num_clusters] = parallel_seeds(run.pool, num_clusters, seed=0).features


def _lloyd(run: Run, num_clusters: int) -> None:
    lloyd(run.pool, run.centers[num_clusters], max_iterations=ITERATIONS)


def _hierarchy(run: Run, num_clusters: int) -> None:
    hierarchical_kmeans(
        run.pool,
        num_clusters,
        seed=0,
        flat_clusters=0,
        flat_iterations=0,
        max_iterations=ITERATIONS,
    )


def _jaccard(run: Run, _: int) -> None:
    run.distance = jaccard_distance(run.pool, k1=K1, k2=K2, max_distance=REACH)


def _dbscan(run: Run, _: int) -> None:
    assert run.distance is not None
    dbscan(run.distance, eps=EPS)


def _sizes(size: Size) -> tuple[int, int, int]:
    return size.num_rows, size.num_features, size.num_clusters


STAGES: Mapping[str, Stage] = MappingProxyType(
    {
        "codes": Stage(run=_codes, work=lambda s: 2 * s.num_rows * s.num_features),
        "greedy": Stage(
            run=lambda run, k: greedy_seeds(run.pool, k, seed=0),
            work=lambda s: work.seeding_flops(*_sizes(s)),
        ),
        "parallel": Stage(run=_parallel, work=lambda s: work.parallel_seeding_flops(*_sizes(s))),
        "lloyd": Stage(run=_lloyd, work=lambda s: work.lloyd_flops(*_sizes(s)), per=ITERATIONS),
        "hierarchy": Stage(
            run=_hierarchy,
            work=lambda s: work.hierarchy_unit_flops(*_sizes(s)),
        ),
        "neighbors": Stage(
            run=lambda run, _: nearest_neighbors(run.pool, K1),
            work=lambda s: (
                work.neighbor_flops(s.num_rows, s.num_features) * work.neighbor_share(s.num_shards)
            ),
        ),
        "jaccard": Stage(
            run=_jaccard,
            work=lambda s: work.jaccard_adds(s.num_rows, K1),
            without=neighbor_search.__name__,
        ),
        "dbscan": Stage(run=_dbscan, work=lambda s: work.jaccard_entries(s.num_rows, K1)),
    }
)


def measured(name: str, run: Run, size: Size) -> dict[str, Any]:
    """Run a stage a few times, or once if it takes long; return its row.

    Seconds are medians. The peak is memory beyond what was there, the features' file not counted.
    """
    stage, pool = STAGES[name], run.pool
    spent: list[NDArray[np.float64]] = []
    pool.forget()
    before = _forget_peak()
    while len(spent) < _MOST_REPEATS and sum(wall for _, wall in spent) < _ENOUGH_S:
        started, left_out = _clocks(), pool.spent[stage.without].copy()
        stage.run(run, size.num_clusters)
        spent.append(_clocks() - started - (pool.spent[stage.without] - left_out))
        if len(spent) == 1:
            peak = max(_memory_mib("VmHWM") - before, 0.0)
            messages, num_bytes = pool.messages, pool.num_bytes
    cpu, wall = np.median(spent, axis=0) / stage.per
    return row_of(name, size) | {
        "cpu_s": float(cpu),
        "wall_s": float(wall),
        "peak_mib": peak,
        "messages": messages,
        "bytes": num_bytes,
    }


def row_of(name: str, size: Size) -> dict[str, Any]:
    """Return what a row says of a stage and a size before anything was measured."""
    return {
        "stage": name,
        "num_rows": size.num_rows,
        "num_features": size.num_features,
        "num_clusters": size.num_clusters,
        "num_shards": size.num_shards,
        "work": STAGES[name].work(size),
    }


def _clocks() -> NDArray[np.float64]:
    """Return (processor, wall) seconds."""
    return np.array([cpu_seconds(), time.perf_counter()])


def _forget_peak() -> float:
    """Give freed memory back, let the system count the peak anew, and return what is in use."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return _memory_mib("VmRSS")


def _memory_mib(name: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise OSError(f"this system does not tell {name}")

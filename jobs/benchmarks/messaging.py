"""What messages cost a round of clustering: three views over Ray actors, by two transports.

    python -m jobs.benchmark messaging

`run` sends the algorithm to the actors, which exchange parts among themselves; its peer leaves the
algorithm here and makes every `map` a Ray call to each actor. Labels must be those of one process,
or no time counts. Views go one after another, so that none waits for another's arithmetic.

Messaging is the time of all exchanges beyond what the slowest shard computed in each: packing,
sending, waiting to be woken, unpacking. With more actors than cores it also holds waiting for one.

Legend: N rows, D feature dimensions.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from rich.table import Table

from cluster.answers import ActorHandle
from cluster.config import ClusterConfig
from cluster.launch import connected
from cluster.shards import RayShardPool, send_features, start_actors, stop_actors
from jobs.benchmarks.features import made_features
from jobs.benchmarks.timed_pool import Figures, by_run, process_seconds, timed_kmeans
from jobs.benchmarks.timing import duration, median_ratio
from jobs.console import Show
from reid.clustering import kmeans, split

VIEWS = ("global", "top", "bottom")
PEER = "Ray calls (RayShardPool.map)"
TIMEOUT_S = 600.0
_CPUS = 0.1  # of an actor, as reserved: there may be more actors than cores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Exchanges among clustering actors against Ray calls."""

    num_images: int = 12_936
    """rows of each view, as Market-1501's training set"""
    num_features: int = 2048
    """dimensions of a row"""
    num_clusters: int = 700
    """clusters of k-means"""
    actors: tuple[int, ...] = (1, 2, 4)
    """numbers of actors"""
    repeats: int = 1
    """measured turns of both transports"""
    json: str | None = None
    """file to write the rows to"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round:
    """A round of three views: processor and wall seconds, and the sums of the views' figures."""

    cpu_s: float
    wall_s: float
    num_exchanges: int
    messaging_s: float


def measure(options: Options, *, show: Show) -> list[dict[str, Any]]:
    """Check and time every number of actors; return one row each."""
    size = (options.num_images, options.num_features)
    views = {view: made_features(*size, seed=seed) for seed, view in enumerate(VIEWS)}
    expected = {
        view: kmeans(split(features, 1), options.num_clusters, seed=seed).labels
        for seed, (view, features) in enumerate(views.items())
    }
    rows = []
    with connected(ClusterConfig(num_workers=0)):
        actors = start_actors(max(options.actors), num_cpus=_CPUS)
        try:
            for done, number in enumerate(options.actors):
                show("messaging", done, len(options.actors), f"{number} actors")
                pools = _pools(actors[:number], views, generation=done)
                rows.append(_row(pools, expected, number, options))
        finally:
            stop_actors(actors)
    show("messaging", len(options.actors), len(options.actors), "")
    return rows


def _pools(
    actors: Sequence[ActorHandle],
    views: Mapping[str, Float32[np.ndarray, "N D"]],
    *,
    generation: int,
) -> dict[str, RayShardPool]:
    token = (0, generation)
    pools = {}
    for view, features in views.items():
        num_rows, num_features = features.shape
        sent: Any = {"num_rows": num_rows, "timeout_s": TIMEOUT_S}
        send_features(actors, view, token, start=0, features=features, **sent)
        pools[view] = RayShardPool(actors, view, token=token, num_features=num_features, **sent)
    return pools


def _row(
    pools: Mapping[str, RayShardPool],
    expected: Mapping[str, Int64[np.ndarray, "N"]],
    number: int,
    options: Options,
) -> dict[str, Any]:
    """Return the figures of one number of actors, after a turn with few clusters to warm up."""
    transports = {"ours": by_run, "peer": timed_kmeans}
    for cluster in transports.values():
        for pool in pools.values():
            cluster(pool, min(8, options.num_clusters), seed=0)
    rounds: dict[str, list[Round]] = {name: [] for name in transports}
    for _ in range(options.repeats):
        for name, cluster in transports.items():
            rounds[name].append(_round(cluster, pools, expected, options.num_clusters))
    ours, peer = rounds["ours"], rounds["peer"]
    return {
        "case": f"{len(pools)} views, k={options.num_clusters}, actors: {number}",
        "ours_cpu_s": statistics.median(each.cpu_s for each in ours),
        "peer": PEER,
        "peer_cpu_s": statistics.median(each.cpu_s for each in peer),
        "ratio": median_ratio([each.cpu_s for each in peer], [each.cpu_s for each in ours]),
        "ours_peak_mib": None,
        "peer_peak_mib": None,
        "parity": "labels equal those of one process",
        "num_images": options.num_images,
        "num_features": options.num_features,
        "actors": number,
        "exchanges": ours[0].num_exchanges,
        **_seconds("ours", ours),
        **_seconds("peer", peer),
    }


def _seconds(whose: str, rounds: Sequence[Round]) -> dict[str, float]:
    messaging_s = statistics.median(each.messaging_s for each in rounds)
    return {
        f"{whose}_wall_s": statistics.median(each.wall_s for each in rounds),
        f"{whose}_messaging_s": messaging_s,
        f"{whose}_messaging_us_a_map": 1e6 * messaging_s / rounds[0].num_exchanges,
    }


def _round(
    cluster: Callable[..., Figures],
    pools: Mapping[str, RayShardPool],
    expected: Mapping[str, Int64[np.ndarray, "N"]],
    num_clusters: int,
) -> Round:
    """Cluster all views one after another; ArithmeticError for other labels than one process has.

    Processor time is that of the actors and of this process, without Ray's own.
    """
    some = next(iter(pools.values()))
    cpu, wall = -sum(some.map(process_seconds)) - time.process_time(), -time.perf_counter()
    found = {
        view: cluster(pool, num_clusters, seed=seed)
        for seed, (view, pool) in enumerate(pools.items())
    }
    wall += time.perf_counter()
    cpu += sum(some.map(process_seconds)) + time.process_time()
    for view, figures in found.items():
        if not np.array_equal(figures.labels, expected[view]):
            raise ArithmeticError(f"view {view} has other labels than in one process")
    return Round(
        cpu_s=cpu,
        wall_s=wall,
        num_exchanges=sum(each.num_exchanges for each in found.values()),
        messaging_s=sum(each.exchange_s - each.slowest_s for each in found.values()),
    )


def table_of(rows: Sequence[dict[str, Any]]) -> Table:
    """Return a line for each number of actors: exchanges among them, and Ray calls."""
    size = f"N={rows[0]['num_images']}, d={rows[0]['num_features']}" if rows else ""
    title = f"messaging, {size}; ours: run, peer: {PEER}; labels equal those of one process"
    table = Table(title=title, title_justify="left")
    table.add_column("a round", no_wrap=True)
    for column in ("exchanges", "", "wall", "messaging", "a map", "processor"):
        table.add_column(column, justify="left" if not column else "right")
    for row in rows:
        for whose in ("ours", "peer"):
            first = whose == "ours"
            table.add_row(
                row["case"] if first else "",
                str(row["exchanges"]) if first else "",
                whose,
                duration(row[f"{whose}_wall_s"]),
                duration(max(row[f"{whose}_messaging_s"], 0)),
                f"{row[f'{whose}_messaging_us_a_map']:.0f} us",
                duration(row[f"{whose}_cpu_s"]),
            )
    return table

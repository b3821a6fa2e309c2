"""The clustering tier of a search: many clusterings of one extraction, scored before any training.

The initial model's features are extracted once. All numbers of clusters share one seeding (the
first k of more centres of greedy k-means++ seed k clusters), all radii and sizes of DBSCAN one
matrix of Jaccard distances. Scores need no labels; true identities give the adjusted Rand index for
comparison.
"""

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import torch

from cluster.board import Show
from cluster.config import ClusterConfig, named_values
from cluster.inputs import Inputs
from cluster.search_space import Parameter, Values, kind_of_clustering
from cluster.shards import RayShardPool, send_features, start_actors, stop_actors
from cluster.worker import Job, make_recipe, pick_device
from reid.clustering import (
    DBSCANConfig,
    ShardPool,
    cluster_means,
    dbscan,
    jaccard_distance,
    kmeans_sweep,
    split,
)
from reid.clustering.guards import check_features
from reid.clustering.health import health
from reid.extract import extract
from reid.override import flatten
from reid.recipes import RunConfig
from reid.recipes.contract import round_seed
from reid.types import PseudoLabels

KEY = "tier"
COUNTS, EPS, MIN_SAMPLES = "num_clusters", "dbscan.eps", "dbscan.min_samples"
NUM_SCORED = 20
"""numbers of clusters, or radii, that are tried"""


@dataclass(frozen=True, kw_only=True)
class Tier:
    """What was tried, {field: value} and figures of `health.FIGURES` a row, and what it took."""

    rows: Sequence[Mapping[str, Any]]
    seconds: Mapping[str, float] = field(default_factory=dict)


def grid_of(
    space: Sequence[Parameter], config: RunConfig, *, num_images: int, num: int = NUM_SCORED
) -> list[Values]:
    """Return what the tier tries: the space's numbers of clusters, or its radii and sizes.

    Ranges are cut into `num` values. Without such a field in the space, a quarter of the run's own
    number of clusters to four times as many, or its radius and 0.2 around it. ValueError for a run
    that clusters by neither, or by a radius that it finds for itself.
    """
    named = {parameter.path: parameter for parameter in space}
    flat: Any = flatten(config)
    kind = kind_of_clustering(config)
    if kind == "kmeans":
        own = int(flat[COUNTS])
        most = min(4 * own, max(num_images // 2, 2))
        counts = named.get(COUNTS) or Parameter(
            path=COUNTS, kind="logint", low=max(2, min(own, most) // 4), high=most
        )
        return [{COUNTS: value} for value in values_of(counts, num)]
    if kind == "none" or EPS not in flat:
        raise ValueError(
            f"a {type(config).__name__} has neither {COUNTS} nor {EPS} to choose before training; "
            "the clustering tier is for runs that do"
        )
    eps = named.get(EPS) or Parameter(
        path=EPS, kind="float", low=max(0.05, flat[EPS] - 0.2), high=min(0.95, flat[EPS] + 0.2)
    )
    sizes = [flat[MIN_SAMPLES]]
    if MIN_SAMPLES in named:
        sizes = values_of(named[MIN_SAMPLES], num)
    return [{EPS: e, MIN_SAMPLES: m} for m, e in product(sizes, values_of(eps, num))]


def values_of(parameter: Parameter, num: int) -> list[Any]:
    """Return a parameter's choices, or `num` values from its low end to its high one."""
    if parameter.kind == "choice":
        return list(parameter.choices)
    spread = np.geomspace if parameter.is_log else np.linspace
    values = spread(parameter.low, parameter.high, num)
    if parameter.kind in ("int", "logint"):
        return [int(value) for value in np.unique(np.round(values))]
    return [float(f"{value:.4g}") for value in values]


def sweep(job: Job, inputs: Inputs, grid: Sequence[Values], *, show: Show) -> Tier:
    """Extract the first view's features with a job's first weights; cluster and score the grid.

    `job.starts` are the checkpoints its backbones begin with. ValueError for features that cannot
    be clustered.
    """
    # The process that starts a search may be on a node without a GPU.
    device = pick_device(job.where) if torch.cuda.is_available() else torch.device("cpu")
    recipe = make_recipe(job, inputs)
    recipe.networks.to(device).to(memory_format=torch.channels_last).eval()  # as the loop does
    view, store = recipe.views[0], inputs.tables["target"].store
    started = time.perf_counter()
    features = extract(
        lambda images: {view: recipe.features(images)[view]},
        store,
        rows=range(len(store)),
        batch_size=job.config.extract_batch,
        device=device,
        precision=job.config.precision,
        progress=lambda done, total: show("extract", done, total, ""),
    )[view]
    seconds = {"extract": time.perf_counter() - started}
    started = time.perf_counter()
    rows = []
    with pool_of(features, job.where) as pool:
        check_features(pool, name="the initial model's features")
        for done, (values, found) in enumerate(clusterings(pool, job.config, grid), start=1):
            figures = health(
                found, pool=pool, camid=inputs.tables["target"].camid, truth=inputs.truth
            )
            rows.append({**figures, **values})  # counts stay whole
            show("cluster and score", done, len(grid), note_of(values))
    seconds["cluster and score"] = time.perf_counter() - started
    return Tier(rows=rows, seconds=seconds)


def clusterings(
    pool: ShardPool, config: RunConfig, grid: Sequence[Values]
) -> Iterator[tuple[Values, PseudoLabels]]:
    """Yield each entry of a grid with its clustering of the pool's rows."""
    if COUNTS in grid[0]:
        counts = [int(str(values[COUNTS])) for values in grid]
        found = kmeans_sweep(pool, counts, seed=round_seed(config.seed, 0, 0))
        for values, count in zip(grid, counts, strict=True):
            result = found[count]
            yield values, PseudoLabels(labels=result.labels, centers=result.centers)
        return
    settings: DBSCANConfig = config.dbscan  # type: ignore[attr-defined]
    # Distances up to and including the largest radius: those below the next number.
    largest = np.float32(max(float(str(values[EPS])) for values in grid))
    distance = jaccard_distance(
        pool,
        k1=settings.k1,
        k2=settings.k2,
        max_distance=float(np.nextafter(largest, np.float32(1))),
    )
    for values in grid:
        labels = dbscan(
            distance, eps=float(str(values[EPS])), min_samples=int(str(values[MIN_SAMPLES]))
        )
        yield values, PseudoLabels(labels=labels, centers=cluster_means(pool, labels))


@contextmanager
def pool_of(features: torch.Tensor, where: ClusterConfig) -> Iterator[ShardPool]:
    """Spread rows over shards: in this process, or over actors where the run has workers."""
    if where.num_workers == 0:
        yield split(features, where.num_shards)
        return
    actors = start_actors(
        where.num_shards,
        num_cpus=where.cpus_per_shard,
        num_gpus=where.gpus_per_shard,
        labels=named_values(where.pool_labels, option="pool_labels"),
        timeout_s=where.start_timeout_s,
    )
    token = (0, secrets.randbits(40))
    rows = {"num_rows": len(features), "timeout_s": where.call_timeout_s}
    try:
        send_features(actors, KEY, token, start=0, features=features, **rows)  # type: ignore[arg-type]
        yield RayShardPool(actors, KEY, num_features=features.shape[1], token=token, **rows)  # type: ignore[arg-type]
    finally:
        stop_actors(actors)


def best_of(rows: Sequence[Mapping[str, Any]], score: str) -> Mapping[str, Any] | None:
    """Return the row with the highest score, the first of equals; None where none has one."""
    return max((row for row in rows if score in row), key=lambda row: row[score], default=None)


def note_of(values: Values) -> str:
    """Return values in a few words."""
    return ", ".join(f"{path.rpartition('.')[2]} {value:g}" for path, value in values.items())

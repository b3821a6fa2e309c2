"""Scores of a clustering that need no truth: silhouette and agreement with the neighbours.

Both are exact for a fixed sample of rows, so that the rounds of a run are compared on the same
images, and hold nothing larger than sample x `BLOCK` or sample x `_TILE`. They are bit-identical
for any number of shards.

Legend: N rows, n rows of one shard, B rows of a block, D feature dimensions, K clusters, S sampled
rows, k neighbours.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from reid.clustering.shards import Shard, ShardPool
from reid.types import OUTLIER, PseudoLabels

SAMPLE = 512
"""rows whose scores are worked out; the standard error of a share of them is at most 0.022"""
NEIGHBORS = 10
"""neighbours of a row that are asked for their label"""

_TILE = 2048  # centres whose distances to the sample are in memory at once
_COINCIDENT = 2.0**-40  # of |x|^2: a squared distance that rounding alone may leave
_SEED = 0  # of the sample: the same rows in every round and run


@dataclass(frozen=True, kw_only=True)
class _Survey:
    """What one shard knows: `dist_sq` (n,) of its rows to their centres, 0 for outliers.

    `own` and `other` (S,k): distances of the sampled rows to the nearest rows here with their label
    and with another, in no order, each sampled row's less its own squared norm.
    """

    dist_sq: Float64[np.ndarray, "n"]
    own: Float32[np.ndarray, "S k"]
    other: Float32[np.ndarray, "S k"]


def scores(
    pool: ShardPool,
    found: PseudoLabels,
    *,
    num_sampled: int = SAMPLE,
    num_neighbors: int = NEIGHBORS,
) -> dict[str, float]:
    """Return {"silhouette", "neighbor_agreement"} of a clustering of the pool's rows.

    Means over `num_sampled` rows drawn once and for all from the table; those that are outliers now
    do not count. `found.centers` must be the means of the clusters. A figure that is not defined is
    left out: silhouette of fewer than two clusters, agreement without a cluster of two rows.

    `silhouette`: Rousseeuw 1987, "Silhouettes", with the squared Euclidean distance (for rows of
    unit length twice the cosine distance, so the silhouette of both). It needs no distances between
    rows: the mean squared distance of x to a cluster's rows is |x - mean|^2 + their mean squared
    distance to the mean. Outliers are in no cluster; a cluster of one scores 0, as in scikit-learn.

    `neighbor_agreement`: share of a row's nearest rows, of all, that bear its label; as many of
    them as its cluster has other rows, at most `num_neighbors`, so that any perfect cluster
    scores 1. Rows alone in their cluster do not count; of equally near rows those of the same label
    are first.

    Cost: 2 S (N + K) D operations, one pass over the rows, N distances sent; 0.5 s on one core for
    12,936 rows of 2,048 in 700 clusters.
    """
    rows = _sample(found.labels, num_sampled)
    if not len(rows):
        return {}
    features = np.concatenate(pool.map(_features, rows))
    # Arrays of their own: a pool of actors shares those instead of sending each a copy.
    surveys = pool.map(
        _survey,
        found.labels,
        found.centers,
        rows=rows,
        features=features,
        num_neighbors=num_neighbors,
    )
    labelled = found.labels != OUTLIER
    dist_sq = np.concatenate([part.dist_sq for part in surveys])[labelled]
    counts, spread = (
        np.bincount(found.labels[labelled], weights, minlength=found.num_clusters)
        for weights in (None, dist_sq)
    )
    figures = {}
    if np.count_nonzero(counts) > 1:
        values = _silhouettes(features, found.labels[rows], found.centers, counts, spread)
        figures["silhouette"] = float(values.mean())
    others = counts[found.labels[rows]] - 1
    if others.any():
        own = _smallest([part.own for part in surveys], num_neighbors)
        other = _smallest([part.other for part in surveys], num_neighbors)
        with_others = others > 0
        shares = _shares(own[with_others], other[with_others], others[with_others])
        figures["neighbor_agreement"] = float(shares.mean())
    return figures


def _sample(labels: Int64[np.ndarray, "N"], num_sampled: int) -> Int64[np.ndarray, "S"]:
    """Return the fixed sample's rows that have a label, in order."""
    generator = np.random.Generator(np.random.Philox(_SEED))
    size = min(num_sampled, len(labels))
    rows = np.sort(generator.choice(len(labels), size, replace=False, shuffle=False))
    kept: np.ndarray = rows[labels[rows] != OUTLIER]
    return kept


def _silhouettes(
    features: Float32[np.ndarray, "S D"],
    labels: Int64[np.ndarray, "S"],
    centers: Float32[np.ndarray, "K D"],
    counts: Int64[np.ndarray, "K"],
    spread: Float64[np.ndarray, "K"],
) -> Float64[np.ndarray, "S"]:
    """Return the silhouette of each sampled row; `spread` sums squared distances to the mean."""
    sampled = np.arange(len(labels))
    within = np.empty(len(labels))
    nearest = np.full(len(labels), np.inf)
    for low in range(0, len(centers), _TILE):
        tile = slice(low, low + _TILE)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean_dist_sq = spread[tile] / counts[tile]  # NaN without rows
        mean_dist_sq = mean_dist_sq + _sq_dist(features, centers[tile])
        mean_dist_sq[:, counts[tile] == 0] = np.inf
        here = np.flatnonzero((labels >= low) & (labels < low + _TILE))
        own = (here, labels[here] - low)
        within[here] = mean_dist_sq[own]
        mean_dist_sq[own] = np.inf
        nearest[sampled] = np.minimum(nearest, mean_dist_sq.min(axis=1))
    sizes = counts[labels]
    within *= sizes / np.maximum(sizes - 1, 1)  # the row itself, at distance 0, is not counted
    largest = np.maximum(within, nearest)
    values = np.zeros(len(labels))
    apart = largest > _COINCIDENT * _sq_norms(features)
    np.divide(nearest - within, largest, out=values, where=apart & (sizes > 1))
    return values


def _sq_dist(
    rows: Float32[np.ndarray, "S D"], centers: Float32[np.ndarray, "C D"]
) -> Float64[np.ndarray, "S C"]:
    # float64: to equal rows the difference is nothing but rounding, and sets the sign of a score
    products = rows.astype(np.float64) @ centers.T.astype(np.float64)
    dist_sq: np.ndarray = _sq_norms(rows)[:, None] - 2 * products + _sq_norms(centers)
    return dist_sq.clip(min=0)


def _sq_norms(rows: Float32[np.ndarray, "S D"]) -> Float64[np.ndarray, "S"]:
    norms: np.ndarray = np.einsum("sd,sd->s", rows, rows, dtype=np.float64)
    return norms


def _shares(
    own: Float32[np.ndarray, "S k"],
    other: Float32[np.ndarray, "S k"],
    others: Int64[np.ndarray, "S"],
) -> Float64[np.ndarray, "S"]:
    """Return the share of own rows among the nearest of both; a row's cluster has `others`."""
    own, other = np.sort(own, axis=1), np.sort(other, axis=1)
    wanted = np.minimum(others, own.shape[1])
    before = (other[:, None, :] < own[:, :, None]).sum(axis=2)
    among = np.arange(own.shape[1]) + before < wanted[:, None]
    shares: np.ndarray = (among & np.isfinite(own)).sum(axis=1) / wanted
    return shares


def _smallest(parts: list[Float32[np.ndarray, "S _"]], count: int) -> Float32[np.ndarray, "S k"]:
    """Return the `count` smallest values of each row of the parts side by side, in no order."""
    return np.partition(np.concatenate(parts, axis=1), count - 1, axis=1)[:, :count]


# What runs on a shard. Each function sees one shard and the arguments of `pool.map`.


def _features(shard: Shard, rows: Int64[np.ndarray, "S"]) -> Float32[np.ndarray, "m D"]:
    """Return the features of those of the rows, in rising order, that the shard owns."""
    local = rows - shard.start
    owned: np.ndarray = shard.features[local[(local >= 0) & (local < len(shard.features))]]
    return owned


def _survey(
    shard: Shard,
    all_labels: Int64[np.ndarray, "N"],
    centers: Float32[np.ndarray, "K D"],
    *,
    rows: Int64[np.ndarray, "S"],
    features: Float32[np.ndarray, "S D"],
    num_neighbors: int,
) -> _Survey:
    """Measure the shard's rows against their centres and against the sampled rows."""
    labels = all_labels[shard.start : shard.start + len(shard.features)]
    sampled_labels = all_labels[rows]
    dist_sq = np.zeros(len(labels))
    own = np.full((len(rows), num_neighbors), np.inf, dtype=np.float32)
    other = own
    for block in shard.blocks():
        part = shard.features[block]
        offset = part - centers[np.maximum(labels[block], 0)]
        dist_sq[block] = _sq_norms(offset) * (labels[block] != OUTLIER)
        near = features @ part.T
        near *= -2
        near += np.einsum("nd,nd->n", part, part)
        itself = rows - (shard.start + block.start)
        here = np.flatnonzero((itself >= 0) & (itself < len(part)))
        near[here, itself[here]] = np.inf
        same: Bool[np.ndarray, "S B"] = labels[block] == sampled_labels[:, None]
        own = _smallest([own, np.where(same, near, np.inf)], num_neighbors)
        other = _smallest([other, np.where(same, np.inf, near)], num_neighbors)
    return _Survey(dist_sq=dist_sq, own=own, other=other)

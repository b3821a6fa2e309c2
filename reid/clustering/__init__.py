"""Pseudo-labels: clustering of features over a pool of shards."""

from reid.clustering.kmeans import greedy_kmeans_plusplus, kmeans
from reid.clustering.lloyd import KMeansResult
from reid.clustering.nearest import nearest_centers
from reid.clustering.shards import (
    BLOCK,
    LocalShardPool,
    Shard,
    ShardPool,
    as_rows,
    shard_bounds,
    split,
)

__all__ = [
    "BLOCK",
    "KMeansResult",
    "LocalShardPool",
    "Shard",
    "ShardPool",
    "as_rows",
    "greedy_kmeans_plusplus",
    "kmeans",
    "nearest_centers",
    "shard_bounds",
    "split",
]

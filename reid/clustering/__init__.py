"""Pseudo-labels: clustering of features over a pool of shards."""

from reid.clustering.assignment import nearest_centers
from reid.clustering.hierarchy import hierarchical_kmeans
from reid.clustering.kmeans import kmeans, kmeans_sweep
from reid.clustering.lloyd import KMeansResult
from reid.clustering.seeding import greedy_kmeans_plusplus
from reid.clustering.shards import (
    BLOCK,
    LocalShardPool,
    Shard,
    ShardPool,
    as_rows,
    shard_bounds,
    split,
)
from reid.clustering.warm import warm_centers

__all__ = [
    "BLOCK",
    "KMeansResult",
    "LocalShardPool",
    "Shard",
    "ShardPool",
    "as_rows",
    "greedy_kmeans_plusplus",
    "hierarchical_kmeans",
    "kmeans",
    "kmeans_sweep",
    "nearest_centers",
    "shard_bounds",
    "split",
    "warm_centers",
]

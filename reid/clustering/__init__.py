"""Pseudo-labels: clustering of features over a pool of shards."""

from reid.clustering.agreement import cross_agreement
from reid.clustering.dbscan import dbscan
from reid.clustering.jaccard import camera_jaccard_distance, jaccard_distance
from reid.clustering.kmeans import greedy_kmeans_plusplus, kmeans
from reid.clustering.listing import Neighbors
from reid.clustering.lloyd import KMeansResult
from reid.clustering.nearest import nearest_centers
from reid.clustering.neighbors import nearest_neighbors
from reid.clustering.reliability import (
    Reliability,
    SelfPacedLabels,
    reliability,
    self_paced_labels,
)
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
    "Neighbors",
    "Reliability",
    "SelfPacedLabels",
    "Shard",
    "ShardPool",
    "as_rows",
    "camera_jaccard_distance",
    "cross_agreement",
    "dbscan",
    "greedy_kmeans_plusplus",
    "jaccard_distance",
    "kmeans",
    "nearest_centers",
    "nearest_neighbors",
    "reliability",
    "self_paced_labels",
    "shard_bounds",
    "split",
]

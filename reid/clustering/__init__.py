"""Pseudo-labels: clustering of features over a pool of shards."""

from reid.clustering.agreement import cross_agreement
from reid.clustering.assignment import nearest_centers
from reid.clustering.dbscan import dbscan, mean_of_smallest
from reid.clustering.density import DBSCANConfig, jaccard_dbscan, self_paced_clusters
from reid.clustering.hierarchy import hierarchical_kmeans
from reid.clustering.jaccard import camera_jaccard_distance, jaccard_distance
from reid.clustering.kmeans import kmeans, kmeans_sweep
from reid.clustering.listing import Neighbors
from reid.clustering.lloyd import KMeansResult
from reid.clustering.means import cluster_means
from reid.clustering.neighbors import nearest_neighbors
from reid.clustering.reliability import (
    Reliability,
    SelfPacedLabels,
    reliability,
    self_paced_labels,
)
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
    "DBSCANConfig",
    "KMeansResult",
    "LocalShardPool",
    "Neighbors",
    "Reliability",
    "SelfPacedLabels",
    "Shard",
    "ShardPool",
    "as_rows",
    "camera_jaccard_distance",
    "cluster_means",
    "cross_agreement",
    "dbscan",
    "greedy_kmeans_plusplus",
    "hierarchical_kmeans",
    "jaccard_dbscan",
    "jaccard_distance",
    "kmeans",
    "kmeans_sweep",
    "mean_of_smallest",
    "nearest_centers",
    "nearest_neighbors",
    "reliability",
    "self_paced_clusters",
    "self_paced_labels",
    "shard_bounds",
    "split",
    "warm_centers",
]

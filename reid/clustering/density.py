"""The round's labels of most unsupervised methods: DBSCAN of k-reciprocal Jaccard distances."""

from dataclasses import dataclass

import numpy as np

from reid.clustering.dbscan import dbscan
from reid.clustering.jaccard import jaccard_distance
from reid.clustering.means import cluster_means
from reid.clustering.reliability import SelfPacedLabels, self_paced_labels
from reid.clustering.shards import ShardPool
from reid.types import PseudoLabels


@dataclass(frozen=True, kw_only=True)
class DBSCANConfig:
    """How near rows must be to share a cluster; defaults are Cluster-Contrast's and SpCL's."""

    k1: int = 30
    """neighbours whose sets make the Jaccard distance"""
    k2: int = 6
    """neighbours whose encodings are averaged, the row itself included"""
    eps: float = 0.6
    """largest Jaccard distance between neighbours, above 0 and below 1"""
    min_samples: int = 4
    """neighbours that make a row a cluster's core, itself included"""

    def __post_init__(self) -> None:
        """Refuse values that cannot cluster."""
        if not 0 < self.eps < 1:
            raise ValueError(f"eps is {self.eps}; it must be above 0 and below 1")
        if self.min_samples < 1:
            raise ValueError(f"min_samples is {self.min_samples}; it must be at least 1")
        if not 1 <= self.k2 <= self.k1:
            raise ValueError(f"k1 is {self.k1} and k2 is {self.k2}; choose 1 <= k2 <= k1")


def jaccard_dbscan(pool: ShardPool, config: DBSCANConfig) -> PseudoLabels:
    """Return DBSCAN's clusters of a pool's rows, outliers left out, and the means of their rows.

    The means are of rows as they are, not brought to unit length. Bit-identical for any number of
    shards. ValueError as for `jaccard_distance`.

    Source: Ge et al. 2020 (SpCL), arXiv 2006.02713; spcl_inclr.md, section 5.1.
    """
    # Distances up to and including eps: those below the next number.
    beyond = float(np.nextafter(np.float32(config.eps), np.float32(1)))
    distance = jaccard_distance(pool, k1=config.k1, k2=config.k2, max_distance=beyond)
    labels = dbscan(distance, eps=config.eps, min_samples=config.min_samples)
    return PseudoLabels(labels=labels, centers=cluster_means(pool, labels))


def self_paced_clusters(
    pool: ShardPool,
    config: DBSCANConfig,
    *,
    eps_gap: float,
    independence_threshold: float | None = None,
) -> SelfPacedLabels:
    """Return `self_paced_labels` of a pool's rows, by Jaccard distances. ValueError as for both."""
    distance = jaccard_distance(
        pool, k1=config.k1, k2=config.k2, max_distance=min(1.0, config.eps + eps_gap + 0.01)
    )
    return self_paced_labels(
        distance,
        eps=config.eps,
        eps_gap=eps_gap,
        min_samples=config.min_samples,
        independence_threshold=independence_threshold,
    )

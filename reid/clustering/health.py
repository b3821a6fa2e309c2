"""Whether a clustering is fit to learn from: its figures of a round, by name."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int64

from reid.clustering.partitions import (
    adjusted_rand_index,
    each_alone,
    mixing,
    normalized_mutual_information,
    purity,
)
from reid.clustering.scores import scores
from reid.clustering.shards import ShardPool
from reid.types import OUTLIER, PseudoLabels

FIGURES: Mapping[str, str] = {
    "num_clusters": "clusters with images",
    "num_outliers": "images without a cluster",
    "singletons": "clusters of one image",
    "smallest_size": "images of the smallest cluster",
    "median_size": "median of the clusters' numbers of images",
    "largest_size": "images of the largest cluster",
    "largest_cluster": "share of the labelled images that the largest cluster holds",
    "stability": "adjusted Rand index with the last round's labels; 1: nothing changed",
    "silhouette": "-1..1: images nearer to their own cluster than to the next; see `scores`",
    "neighbor_agreement": "0..1: nearest images that bear an image's label; see `scores`",
    "camera_mixing": "0..1: clusters hold the cameras in the proportions of all; see `mixing`",
    "ari": "adjusted Rand index with the true identities: a diagnostic, never trains anything",
    "nmi": "normalised mutual information with the true identities: a diagnostic",
    "purity": "share of images that are of their cluster's main identity: a diagnostic",
}
"""What each figure of `health` means: the names in MLflow (`round/NAME/VIEW`) and in storage."""


def health(
    found: PseudoLabels,
    *,
    pool: ShardPool | None = None,
    camid: Int64[np.ndarray, "N"] | None = None,
    truth: Int64[np.ndarray, "N"] | None = None,
    previous: Int64[np.ndarray, "N"] | None = None,
) -> dict[str, float]:
    """Return the `FIGURES` of a clustering that the arguments allow, and that are defined.

    `pool` holds the clustered rows (`silhouette`, `neighbor_agreement`); `camid` (N,) their
    cameras (`camera_mixing`); `truth` (N,) their identities (`ari`, `nmi`, `purity`); `previous`
    (N,) the last round's labels (`stability`). To `ari`, `nmi` and `stability` each outlier is a
    cluster of its own: nothing says that outliers are of one identity.
    """
    labels, parts = found.labels, each_alone(found.labels)
    figures: dict[str, float | None] = {**sizes(labels)}
    if previous is not None:
        figures["stability"] = adjusted_rand_index(each_alone(previous), parts)
    if pool is not None:
        figures |= scores(pool, found)
    if camid is not None:
        figures["camera_mixing"] = mixing(labels, camid)
    if truth is not None:
        figures["ari"] = adjusted_rand_index(truth, parts)
        figures["nmi"] = normalized_mutual_information(truth, parts)
        figures["purity"] = purity(labels, truth)
    return {name: value for name, value in figures.items() if value is not None}


def sizes(labels: Int64[np.ndarray, "N"]) -> dict[str, float]:
    """Return how many clusters and outliers there are, and how large the clusters are."""
    kept = labels[labels != OUTLIER]
    counts = np.bincount(kept)
    counts = counts[counts > 0]
    figures = {
        "num_clusters": float(len(counts)),
        "num_outliers": float(len(labels) - len(kept)),
        "singletons": float(np.count_nonzero(counts == 1)),
    }
    if len(counts):
        figures |= {
            "smallest_size": float(counts.min()),
            "median_size": float(np.median(counts)),
            "largest_size": float(counts.max()),
            "largest_cluster": float(counts.max() / len(kept)),
        }
    return figures

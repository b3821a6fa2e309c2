"""Self-paced labels: clusters are trusted where a tighter and a looser criterion agree with them.

All scores come from counts of rows that share both of two labels, never from N x N masks.
Source: Ge et al. 2020, "Self-paced contrastive learning with hybrid memory for domain adaptive
object re-ID", cluster reliability criterion; spcl_inclr.md, section 1.4, for what its code does.

Legend: N rows.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy import sparse

from reid.clustering.dbscan import dbscan
from reid.clustering.partitions import each_alone
from reid.compiled import compiled
from reid.types import OUTLIER

_SHARE_KEPT = 0.9  # of the clusters of the round that sets the independence threshold
_ROUNDING = 2.0**-22  # a threshold stored in float32 still admits the cluster that set it


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """How much of a row's cluster a looser and a tighter criterion confirm, each (N,) in 0..1."""

    independence: Float64[np.ndarray, "N"]
    compactness: Float64[np.ndarray, "N"]


@dataclass(frozen=True, kw_only=True)
class SelfPacedLabels:
    """`labels` (N,) int64 in 0..K-1 for every row; the threshold they passed, for later rounds.

    `independence_threshold` is None as long as no round had a cluster to set it by.
    """

    labels: Int64[np.ndarray, "N"]
    independence_threshold: float | None


def reliability(
    labels: Int64[np.ndarray, "N"],
    labels_tight: Int64[np.ndarray, "tight"],
    labels_loose: Int64[np.ndarray, "loose"],
) -> Reliability:
    """Return the independence and compactness of each row's cluster, as the row sees them.

    Intersection over union of the row's cluster with its cluster by `labels_loose` (independence)
    and by `labels_tight` (compactness). An `OUTLIER` is alone in each. ValueError when lengths
    differ, and for other labels below 0.
    """
    if not len(labels) == len(labels_tight) == len(labels_loose):
        lengths = (len(labels), len(labels_tight), len(labels_loose))
        raise ValueError(f"labels of lengths {lengths}: give one of each for every row")
    if min(each.min(initial=0) for each in (labels, labels_tight, labels_loose)) < OUTLIER:
        raise ValueError(f"a label is below {OUTLIER}, which marks outliers: label from 0 on")
    own, tight, loose = (each_alone(each) for each in (labels, labels_tight, labels_loose))
    return Reliability(independence=_overlap(own, loose), compactness=_overlap(own, tight))


def self_paced_labels(
    distance: sparse.csr_array | sparse.csr_matrix,
    *,
    eps: float,
    eps_gap: float,
    min_samples: int = 4,
    independence_threshold: float | None = None,
) -> SelfPacedLabels:
    """Return labels of DBSCAN's reliable clusters; rows not in one are alone in their label.

    The tight and loose criteria are DBSCAN at `eps` - and + `eps_gap` on the same distances (N,N).
    A row stays in its cluster when the best independence in it reaches the threshold and the row's
    own compactness is the best in it. A threshold of None is set so that nine of ten clusters of
    more than one row reach it; SpCL keeps that of its first round. Clusters come first in the
    labels, in DBSCAN's order. ValueError as for `dbscan`, and unless 0 <= `eps_gap` < `eps`.
    """
    if not 0 <= eps_gap < eps:
        raise ValueError(f"eps_gap is {eps_gap} and eps {eps}: choose 0 <= eps_gap < eps")
    labels, tight, loose = (
        dbscan(distance, eps=radius, min_samples=min_samples)
        for radius in (eps, eps - eps_gap, eps + eps_gap)
    )
    scores = reliability(labels, tight, loose)
    clustered = np.flatnonzero(labels != OUTLIER)
    cluster = labels[clustered]
    independence, compactness = np.zeros((2, int(labels.max(initial=OUTLIER)) + 1))
    np.maximum.at(independence, cluster, scores.independence[clustered])
    np.maximum.at(compactness, cluster, scores.compactness[clustered])
    if independence_threshold is None:
        independence_threshold = _threshold(independence[np.bincount(cluster) > 1])
    least = 0.0 if independence_threshold is None else independence_threshold
    stays = scores.compactness[clustered] >= compactness[cluster]
    stays &= independence[cluster] >= least - _ROUNDING
    final = np.empty(len(labels), dtype=np.int64)
    kept = clustered[stays]
    names, final[kept] = np.unique(labels[kept], return_inverse=True)
    alone = np.ones(len(labels), dtype=bool)
    alone[kept] = False
    final[alone] = len(names) + np.arange(np.count_nonzero(alone))
    return SelfPacedLabels(labels=final, independence_threshold=independence_threshold)


def _threshold(independence: Float64[np.ndarray, "K"]) -> float | None:
    """Return the score that `_SHARE_KEPT` of clusters reach, counted as in the released code."""
    if len(independence) == 0:
        return None
    place = min(round(_SHARE_KEPT * len(independence)), len(independence) - 1)
    return float(np.sort(independence)[::-1][place])


@compiled
def _overlap(
    first: Int64[np.ndarray, "N"], second: Int64[np.ndarray, "N"]
) -> Float64[np.ndarray, "N"]:
    """Return |A & B| / |A | B| of the sets A and B that share a row's label in each, as `_named`.

    Rows are gone through by their first label, so that one line of the table of counts is enough.
    """
    num_rows = first.size
    end, size = np.zeros(2 * num_rows + 1, np.int64), np.zeros(2 * num_rows, np.int64)
    for row in range(num_rows):
        end[first[row] + 1] += 1
        size[second[row]] += 1
    for name in range(2 * num_rows):
        end[name + 1] += end[name]
    place = end[:-1].copy()
    ordered = np.empty(num_rows, np.int64)
    for row in range(num_rows):
        ordered[place[first[row]]] = row
        place[first[row]] += 1
    overlap = np.empty(num_rows)
    both = np.zeros(2 * num_rows, np.int64)
    for name in range(2 * num_rows):
        members = ordered[end[name] : end[name + 1]]
        for m in range(members.size):
            both[second[members[m]]] += 1
        for m in range(members.size):
            other = second[members[m]]
            overlap[members[m]] = both[other] / (members.size + size[other] - both[other])
        for m in range(members.size):
            both[second[members[m]]] = 0
    return overlap

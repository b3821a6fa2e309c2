"""What two partitions of the same rows have to do with each other.

All figures are functions of the sizes of the parts and of their intersections. Own lines because
importing scikit-learn costs each worker 6 s of processor time. A number below zero, such as
`OUTLIER`, is a part like any other, as in scikit-learn, unless said.

Legend: N rows, A and B parts of the first and the second partition, M non-empty intersections.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from reid.types import OUTLIER


def each_alone(labels: Int64[np.ndarray, "N"]) -> Int64[np.ndarray, "N"]:
    """Return a clustering's labels, below 2 N, in which every outlier is a part of its own."""
    outlying = labels == OUTLIER
    named = labels.copy()
    if labels.max(initial=0) >= len(labels):
        named[~outlying] = np.unique(labels[~outlying], return_inverse=True)[1]
    named[outlying] = len(labels) + np.arange(np.count_nonzero(outlying))
    return named


@dataclass(frozen=True, kw_only=True)
class Contingency:
    """Sizes (A,) and (B,) of the parts, `both` (M,) of their intersections.

    `first` and `second` (M,) number the parts that an intersection belongs to.
    """

    in_first: Int64[np.ndarray, "A"]
    in_second: Int64[np.ndarray, "B"]
    both: Int64[np.ndarray, "M"]
    first: Int64[np.ndarray, "M"]
    second: Int64[np.ndarray, "M"]


def contingency(first: Int64[np.ndarray, "N"], second: Int64[np.ndarray, "N"]) -> Contingency:
    """Return the sizes of two partitions' parts and intersections, without an A x B table."""
    _, a = np.unique(first, return_inverse=True)
    _, b = np.unique(second, return_inverse=True)
    width = int(b.max(initial=0)) + 1
    cells, both = np.unique(a * width + b, return_counts=True)
    return Contingency(
        in_first=np.bincount(a),
        in_second=np.bincount(b),
        both=both,
        first=cells // width,
        second=cells % width,
    )


def adjusted_rand_index(first: Int64[np.ndarray, "N"], second: Int64[np.ndarray, "N"]) -> float:
    """Return the agreement of two partitions, 1 for equal ones, 0 on average for random ones.

    Source: Hubert and Arabie 1985, "Comparing partitions", equation 5.
    """
    sizes = contingency(first, second)
    together, in_first, in_second = (
        float((counts * (counts - 1) // 2).sum())
        for counts in (sizes.both, sizes.in_first, sizes.in_second)
    )
    expected = in_first * in_second / max(len(first) * (len(first) - 1) / 2, 1)
    largest = (in_first + in_second) / 2
    return 1.0 if largest == expected else (together - expected) / (largest - expected)


def normalized_mutual_information(
    first: Int64[np.ndarray, "N"], second: Int64[np.ndarray, "N"]
) -> float:
    """Return the mutual information over the mean of both entropies: 0 independent, 1 equal.

    Two partitions of one part each agree (1). Source: Strehl and Ghosh 2002, "Cluster ensembles",
    section 2.2, with the arithmetic mean, as in scikit-learn.
    """
    sizes = contingency(first, second)
    in_first, in_second = entropy(sizes.in_first), entropy(sizes.in_second)
    if in_first + in_second == 0:
        return 1.0
    shared = max(in_first + in_second - entropy(sizes.both), 0.0)
    return 2 * shared / (in_first + in_second)


def purity(labels: Int64[np.ndarray, "N"], truth: Int64[np.ndarray, "N"]) -> float | None:
    """Return the share of labelled rows that bear their cluster's most frequent identity.

    Outliers have no cluster and do not count; None where nothing else is left. A cluster of one row
    is pure: read it beside the number of clusters.
    """
    kept = labels != OUTLIER
    if not kept.any():
        return None
    sizes = contingency(labels[kept], truth[kept])
    most = np.zeros_like(sizes.in_first)
    np.maximum.at(most, sizes.first, sizes.both)
    return float(most.sum() / kept.sum())


def mixing(labels: Int64[np.ndarray, "N"], camid: Int64[np.ndarray, "N"]) -> float | None:
    """Return how well clusters mix cameras: H(camera | cluster) / H(camera) over labelled rows.

    1 where every cluster has the cameras in the proportions of all, 0 where every cluster is seen
    by one camera, None where all rows are. A cluster of n rows reaches ln n at most, so compare
    rounds whose clusters are of one size.
    """
    kept = labels != OUTLIER
    sizes = contingency(labels[kept], camid[kept])
    over_all = entropy(sizes.in_second)
    if over_all == 0:
        return None
    within = entropy(sizes.both) - entropy(sizes.in_first)
    return max(within, 0.0) / over_all


def entropy(counts: Int64[np.ndarray, "M"]) -> float:
    """Return the entropy in nats of a partition with parts of these sizes, all above 0."""
    if len(counts) < 2:
        return 0.0  # exactly, where the sum below may leave rounding
    share = counts / counts.sum()
    return float(-(share * np.log(share)).sum())

"""Whether a clustering is fit to learn from."""

import numpy as np
from jaxtyping import Int64

from reid.types import OUTLIER


def health(
    labels: Int64[np.ndarray, "N"],
    *,
    truth: Int64[np.ndarray, "N"] | None = None,
    previous: Int64[np.ndarray, "N"] | None = None,
) -> dict[str, float]:
    """Return a clustering's figures: counts, share of the largest cluster, agreements.

    `ari` (adjusted Rand index with the true identities) is a diagnostic and never trains anything;
    `stability` is the ARI with the last round's labels.
    """
    kept = labels[labels != OUTLIER]
    sizes = np.bincount(kept) if len(kept) else np.zeros(1, np.int64)
    figures = {
        "num_clusters": float(np.count_nonzero(sizes)),
        "num_outliers": float(len(labels) - len(kept)),
        "largest_cluster": float(sizes.max() / max(len(kept), 1)),
        "singletons": float(np.count_nonzero(sizes == 1)),
    }
    if truth is not None:
        figures["ari"] = adjusted_rand_index(truth, labels)
    if previous is not None:
        figures["stability"] = adjusted_rand_index(previous, labels)
    return figures


def adjusted_rand_index(first: Int64[np.ndarray, "N"], second: Int64[np.ndarray, "N"]) -> float:
    """Return the agreement of two partitions, 1 for equal ones, 0 on average for random ones.

    Hubert and Arabie 1985, equation 5. Own lines because importing scikit-learn costs each worker
    6 s of processor time; outliers are one cluster, as there.
    """

    def pairs(counts: Int64[np.ndarray, "M"]) -> float:
        return float((counts * (counts - 1) // 2).sum())

    _, a = np.unique(first, return_inverse=True)
    _, b = np.unique(second, return_inverse=True)
    cells = np.unique(a * (b.max() + 1) + b, return_counts=True)[1]
    together, in_first, in_second = (pairs(c) for c in (cells, np.bincount(a), np.bincount(b)))
    expected = in_first * in_second / max(len(first) * (len(first) - 1) / 2, 1)
    largest = (in_first + in_second) / 2
    return 1.0 if largest == expected else (together - expected) / (largest - expected)

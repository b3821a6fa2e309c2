"""Whether a clustering is fit to learn from."""

import numpy as np
from jaxtyping import Int64
from sklearn.metrics import adjusted_rand_score

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
        figures["ari"] = float(adjusted_rand_score(truth, labels))
    if previous is not None:
        figures["stability"] = float(adjusted_rand_score(previous, labels))
    return figures

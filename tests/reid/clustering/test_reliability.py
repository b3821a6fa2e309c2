"""Self-paced labels: published vectors, and the N x N way."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import sparse
from sklearn.cluster import DBSCAN

from reid.clustering import reliability, self_paced_labels
from tests.reid.clustering.references import made_distance, partition, stored

Golden = Callable[[str], dict[str, np.ndarray]]


@pytest.mark.parametrize("epoch", [0, 1])
def test_published_labels(epoch: int, golden: Golden) -> None:
    vectors = golden(f"spcl_reliability_epoch{epoch}")
    threshold = float(vectors["threshold_in"])
    eps, eps_gap = float(vectors["eps"]), float(vectors["eps_gap"])
    ours = self_paced_labels(
        stored(vectors["distance"]),
        eps=eps,
        eps_gap=eps_gap,
        min_samples=int(vectors["min_samples"]),
        independence_threshold=None if np.isnan(threshold) else threshold,
    )
    np.testing.assert_array_equal(partition(ours.labels), partition(vectors["labels"]))
    assert ours.independence_threshold == pytest.approx(float(vectors["threshold"]), abs=1e-6)

    labels, tight, loose = (
        DBSCAN(eps=radius, min_samples=4, metric="precomputed").fit(vectors["distance"]).labels_
        for radius in (eps, eps - eps_gap, eps + eps_gap)
    )
    scores = reliability(labels, tight, loose)
    np.testing.assert_allclose(scores.independence, vectors["independence"], atol=1e-6)
    np.testing.assert_allclose(scores.compactness, vectors["compactness"], atol=1e-6)


@pytest.mark.parametrize("num_rows", [1, 5])
def test_outliers_alone_set_no_threshold(num_rows: int) -> None:
    far = sparse.csr_array((num_rows, num_rows), dtype=np.float32)
    ours = self_paced_labels(far, eps=0.5, eps_gap=0.1)
    assert ours.labels.tolist() == list(range(num_rows))
    assert ours.independence_threshold is None
    kept = self_paced_labels(far, eps=0.5, eps_gap=0.1, independence_threshold=0.4)
    assert kept.independence_threshold == 0.4


def test_a_threshold_stored_in_float32_admits_its_own_cluster() -> None:
    distance = made_distance(240, seed=3)
    first = self_paced_labels(stored(distance), eps=0.35, eps_gap=0.04)
    assert first.independence_threshold is not None
    above = float(np.nextafter(np.float32(first.independence_threshold), np.float32(2)))
    again = self_paced_labels(
        stored(distance), eps=0.35, eps_gap=0.04, independence_threshold=above
    )
    np.testing.assert_array_equal(again.labels, first.labels)


def test_bad_questions_are_refused() -> None:
    labels = np.zeros(4, dtype=np.int64)
    with pytest.raises(ValueError, match=r"lengths \(4, 4, 3\)"):
        reliability(labels, labels, labels[1:])
    with pytest.raises(ValueError, match="a label is below -1"):
        reliability(labels, labels - 2, labels)
    for gap in (-0.1, 0.5):
        with pytest.raises(ValueError, match="choose 0 <= eps_gap < eps"):
            self_paced_labels(sparse.csr_array((3, 3)), eps=0.5, eps_gap=gap)

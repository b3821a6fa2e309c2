"""Self-paced labels: published vectors, and the N x N way."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import sparse
from sklearn.cluster import DBSCAN

from reid.clustering import reliability, self_paced_labels

Golden = Callable[[str], dict[str, np.ndarray]]


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def stored(distance: np.ndarray) -> sparse.csr_array:
    """Return the distances below 1, zeros included."""
    where = np.nonzero(distance < 1)
    return sparse.csr_array((distance[where], where), distance.shape)


def partition(labels: np.ndarray) -> np.ndarray:
    """Return labels renamed by first appearance."""
    _, first, names = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[names]


def alone(labels: np.ndarray) -> np.ndarray:
    """Return labels with a new one for each outlier."""
    own = labels.copy()
    own[labels == -1] = labels.max() + 1 + np.arange((labels == -1).sum())
    return own


def overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    one, other = first[:, None] == first, second[:, None] == second
    return (one & other).sum(axis=1) / (one | other).sum(axis=1)


def by_the_book(
    distance: np.ndarray, eps: float, eps_gap: float, threshold: float | None
) -> tuple[np.ndarray, float]:
    """SpCL's criterion, one cluster and one row at a time, on N x N masks."""
    labels, tight, loose = (
        alone(DBSCAN(eps=radius, min_samples=4, metric="precomputed").fit(distance).labels_)
        for radius in (eps, eps - eps_gap, eps + eps_gap)
    )
    independence, compactness = overlap(labels, loose), overlap(labels, tight)
    best_independence = {c: independence[labels == c].max() for c in set(labels)}
    best_compactness = {c: compactness[labels == c].max() for c in set(labels)}
    if threshold is None:
        large = sorted(1 - best_independence[c] for c in set(labels) if (labels == c).sum() > 1)
        threshold = 1 - large[min(len(large) - 1, int(np.round(0.9 * len(large))))]
    final = labels.copy()
    for row, label in enumerate(labels):
        independent = best_independence[label] >= threshold - 1e-9
        if not (independent and compactness[row] >= best_compactness[label]):
            final[row] = len(labels) + row
    return final, threshold


def made_distance(num_rows: int, *, seed: int) -> np.ndarray:
    """Return distances in 0..1 with clusters that a small change of radius breaks."""
    rng = generator(seed)
    points = rng.normal(size=(num_rows // 12, 3))[rng.integers(num_rows // 12, size=num_rows)]
    points = points + 0.25 * rng.normal(size=points.shape)
    distance = np.sqrt(((points[:, None] - points) ** 2).sum(axis=2))
    return np.minimum(distance, 1).astype(np.float32)


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


@pytest.mark.parametrize("num_rows", [1, 2, 30, 400])
def test_counts_give_what_masks_give(num_rows: int) -> None:
    for seed in range(10):
        rng = generator(seed)
        labels, tight, loose = rng.integers(-1, 1 + num_rows // 5, size=(3, num_rows))
        labels[labels == 2] = 10**6  # any numbers will do
        scores = reliability(labels, tight, loose)
        np.testing.assert_allclose(
            scores.independence, overlap(alone(labels), alone(loose)), rtol=1e-15
        )
        np.testing.assert_allclose(
            scores.compactness, overlap(alone(labels), alone(tight)), rtol=1e-15
        )


@pytest.mark.parametrize("threshold", [None, 0.3, 0.7, 1.0])
def test_the_book(threshold: float | None) -> None:
    num_dissolved = 0
    for seed in range(5):
        distance = made_distance(240, seed=seed)
        ours = self_paced_labels(
            stored(distance), eps=0.35, eps_gap=0.04, independence_threshold=threshold
        )
        expected, used = by_the_book(distance, 0.35, 0.04, threshold)
        np.testing.assert_array_equal(partition(ours.labels), partition(expected))
        assert ours.independence_threshold == pytest.approx(used, abs=1e-12)
        plain = alone(DBSCAN(eps=0.35, min_samples=4, metric="precomputed").fit(distance).labels_)
        num_dissolved += len(set(ours.labels)) - len(set(plain))
        np.testing.assert_array_equal(np.unique(ours.labels), np.arange(ours.labels.max() + 1))
    assert num_dissolved > 20


def test_clusters_come_before_rows_alone() -> None:
    labels = self_paced_labels(stored(made_distance(240, seed=1)), eps=0.35, eps_gap=0.04).labels
    sizes = np.bincount(labels)
    first_alone = int(np.argmax(sizes == 1))
    assert (sizes[:first_alone] > 1).all()
    assert first_alone > 3


def test_no_gap_dissolves_nothing() -> None:
    distance = made_distance(240, seed=2)
    ours = self_paced_labels(stored(distance), eps=0.35, eps_gap=0.0)
    plain = DBSCAN(eps=0.35, min_samples=4, metric="precomputed").fit(distance).labels_
    np.testing.assert_array_equal(partition(ours.labels), partition(alone(plain)))
    assert ours.independence_threshold == 1


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

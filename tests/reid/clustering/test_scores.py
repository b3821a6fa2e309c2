"""Label-free scores, against scikit-learn and dense definitions."""

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import silhouette_samples, silhouette_score

from reid.clustering import BLOCK, split
from reid.clustering import scores as module
from reid.clustering.scores import scores
from reid.types import OUTLIER, PseudoLabels
from tests.reid.clustering.references import neighbor_agreement


def clustering(features: np.ndarray, labels: np.ndarray) -> PseudoLabels:
    """Return labels with the means of their rows; centres without rows are far from everything."""
    centers = np.full((labels.max(initial=0) + 1, features.shape[1]), 1e3, dtype=np.float32)
    for label in set(labels.tolist()) - {OUTLIER}:
        centers[label] = features[labels == label].mean(axis=0)
    return PseudoLabels(labels=labels, centers=centers)


def made(
    num_rows: int, num_clusters: int, *, seed: int, spread: float = 0.6, outliers: float = 0.1
) -> tuple[np.ndarray, PseudoLabels]:
    """Return unit rows around centres, and labels of which some are wrong and some outliers."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_clusters, num_rows)
    features = rng.standard_normal((num_clusters, 16))[labels]
    features += spread * rng.standard_normal(features.shape)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    wrong = rng.random(num_rows) < 0.1
    labels[wrong] = rng.integers(0, num_clusters, wrong.sum())
    labels[rng.random(num_rows) < outliers] = OUTLIER
    rows = features.astype(np.float32)
    return rows, clustering(rows, labels)


def test_silhouette_of_unit_rows_is_that_of_cosine_distance() -> None:
    features, found = made(700, 25, seed=0)
    kept = found.labels != OUTLIER
    expected = silhouette_score(features[kept], found.labels[kept], metric="cosine")
    value = scores(split(features, 2), found, num_sampled=700)["silhouette"]
    assert value == pytest.approx(expected, abs=1e-6)


def test_the_sample_is_scored_against_all_rows() -> None:
    features, found = made(900, 30, seed=4)
    labels, kept = found.labels, found.labels != OUTLIER
    rows = module._sample(labels, 100)
    assert 50 < len(rows) < 100  # the others are outliers
    assert (labels[rows] != OUTLIER).all()
    each = np.zeros(len(labels))
    each[kept] = silhouette_samples(features[kept], labels[kept], metric="sqeuclidean")
    expected = {
        "silhouette": each[rows].mean(),
        "neighbor_agreement": neighbor_agreement(features, labels, rows, 10),
    }
    assert scores(split(features, 1), found, num_sampled=100) == pytest.approx(expected, abs=1e-6)


def test_a_perfect_clustering_scores_1() -> None:
    features = np.repeat(np.eye(12, dtype=np.float32), 3, axis=0)
    found = clustering(features, np.repeat(np.arange(12), 3))
    assert scores(split(features, 1), found) == {"silhouette": 1.0, "neighbor_agreement": 1.0}


def test_any_number_of_shards_gives_the_same_bits() -> None:
    features, found = made(3 * BLOCK + 17, 40, seed=6)
    expected = scores(split(features, 1), found, num_sampled=200)
    assert len(expected) == 2
    for num_shards in (2, 3, 8, 16):
        assert scores(split(features, num_shards), found, num_sampled=200) == expected


def test_the_numbers_of_the_clusters_do_not_matter() -> None:
    features, found = made(500, 20, seed=7)
    order = np.random.default_rng(8).permutation(20)
    renamed = np.where(found.labels == OUTLIER, OUTLIER, order[found.labels])
    value = scores(split(features, 1), clustering(features, renamed))
    assert value == pytest.approx(scores(split(features, 1), found))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([OUTLIER] * 6, set()),
        ([0] * 6, {"neighbor_agreement"}),
        ([0, 1, 2, 3, 4, 5], {"silhouette"}),
        ([0, 0, OUTLIER, OUTLIER, OUTLIER, 1], {"silhouette", "neighbor_agreement"}),
        ([0], set()),
    ],
)
def test_what_is_not_defined_is_left_out(labels: list[int], names: set[str]) -> None:
    features = np.eye(len(labels), 6, dtype=np.float32)
    value: dict[str, Any] = scores(split(features, 1), clustering(features, np.array(labels)))
    assert value.keys() == names
    assert np.isfinite(list(value.values())).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("num_features", [3, 2048])
def test_equal_rows_score_0_not_the_sign_of_a_rounding(num_features: int, seed: int) -> None:
    row = np.random.default_rng(seed).standard_normal(num_features)
    features = np.tile(row / np.linalg.norm(row), (8, 1)).astype(np.float32)
    value = scores(split(features, 1), clustering(features, np.repeat([0, 1], 4)))
    assert value == {"silhouette": 0.0, "neighbor_agreement": 1.0}

"""Label-free scores, against scikit-learn and dense definitions."""

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import silhouette_samples, silhouette_score

from reid.clustering import BLOCK, split
from reid.clustering import scores as module
from reid.clustering.scores import scores
from reid.types import OUTLIER, PseudoLabels


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


def agreement(features: np.ndarray, labels: np.ndarray, rows: np.ndarray, k: int) -> float:
    """Return the agreement with the neighbours from the whole distance matrix."""
    dist_sq = np.square(features[:, None].astype(np.float64) - features[None]).sum(axis=2)
    np.fill_diagonal(dist_sq, np.inf)
    shares = []
    for row in rows:
        same = labels == labels[row]
        wanted = min(k, same.sum() - 1)
        if labels[row] == OUTLIER or wanted == 0:
            continue
        order = np.lexsort((~same, dist_sq[row]))[:wanted]
        shares.append(same[order].mean())
    return float(np.mean(shares))


@pytest.mark.parametrize("seed", range(3))
def test_silhouette_of_all_rows_is_scikit_learns(seed: int) -> None:
    features, found = made(700, 25, seed=seed)
    kept = found.labels != OUTLIER
    expected = silhouette_score(features[kept], found.labels[kept], metric="sqeuclidean")
    value = scores(split(features, 2), found, num_sampled=700)["silhouette"]
    assert value == pytest.approx(expected, abs=1e-6)
    cosine = silhouette_score(features[kept], found.labels[kept], metric="cosine")
    assert value == pytest.approx(cosine, abs=1e-6)


def test_rows_alone_and_labels_without_rows_are_as_in_scikit_learn() -> None:
    features, found = made(300, 20, seed=3, outliers=0)
    labels = found.labels.copy()
    labels[labels == 7] = 8
    labels[:2] = [7, 30]
    found = clustering(features, labels)
    expected = silhouette_score(features, labels, metric="sqeuclidean")
    value = scores(split(features, 1), found, num_sampled=300)["silhouette"]
    assert value == pytest.approx(expected, abs=1e-6)


def test_the_sample_is_scored_against_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    features, found = made(900, 30, seed=4)
    labels, kept = found.labels, found.labels != OUTLIER
    rows = module._sample(labels, 100)
    assert 50 < len(rows) < 100  # the others are outliers
    assert (labels[rows] != OUTLIER).all()
    each = np.zeros(len(labels))
    each[kept] = silhouette_samples(features[kept], labels[kept], metric="sqeuclidean")
    expected = {
        "silhouette": each[rows].mean(),
        "neighbor_agreement": agreement(features, labels, rows, 10),
    }
    assert scores(split(features, 1), found, num_sampled=100) == pytest.approx(expected, abs=1e-6)
    monkeypatch.setattr(module, "_TILE", 7)  # centres in several pieces
    assert scores(split(features, 1), found, num_sampled=100) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("num_clusters", "k"), [(4, 10), (30, 10), (200, 10), (200, 1), (4, 299)])
def test_agreement_is_the_definition(num_clusters: int, k: int) -> None:
    features, found = made(300, num_clusters, seed=5)
    expected = agreement(features, found.labels, np.arange(300), k)
    value = scores(split(features, 1), found, num_sampled=300, num_neighbors=k)
    assert value["neighbor_agreement"] == pytest.approx(expected, abs=1e-12)


def test_equally_near_rows_of_the_same_label_are_first() -> None:
    features = np.tile(np.eye(4, dtype=np.float32), (6, 1))
    labels = np.tile([0, 1, 2, 3], 6)
    labels[:4] = [1, 2, 3, 0]  # of six equal rows, one has another label
    value = scores(split(features, 1), clustering(features, labels), num_sampled=24)
    expected = agreement(features, labels, np.arange(24), 10)
    assert value["neighbor_agreement"] == pytest.approx(expected, abs=1e-12)
    assert value["neighbor_agreement"] < 1


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


def test_equal_rows_score_0_not_nan() -> None:
    features = np.ones((8, 3), dtype=np.float32)
    value = scores(split(features, 1), clustering(features, np.repeat([0, 1], 4)))
    assert value == {"silhouette": 0.0, "neighbor_agreement": 1.0}

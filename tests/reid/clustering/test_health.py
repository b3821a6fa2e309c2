"""Figures of a clustering: which there are, and that they are those of their functions."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from reid.clustering import split
from reid.clustering.health import FIGURES, health
from reid.clustering.partitions import mixing, purity
from reid.clustering.scores import scores
from reid.types import OUTLIER, PseudoLabels


def labelled(labels: np.ndarray) -> PseudoLabels:
    """Return labels whose centres nobody asks for."""
    return PseudoLabels(labels=labels, centers=np.zeros((labels.max() + 1, 1), dtype=np.float32))


def test_counts_of_a_clustering_written_down() -> None:
    labels = np.array([0, 0, 0, 3, 3, 5, OUTLIER, OUTLIER])
    assert health(labelled(labels)) == {
        "num_clusters": 3.0,
        "num_outliers": 2.0,
        "singletons": 1.0,
        "smallest_size": 1.0,
        "median_size": 2.0,
        "largest_size": 3.0,
        "largest_cluster": 3 / 6,  # of the six that have a cluster
    }


def test_figures_are_those_of_their_functions() -> None:
    rng = np.random.default_rng(0)
    labels, truth, previous, camid = rng.integers(-1, 9, (4, 200))
    features = rng.standard_normal((200, 5)).astype(np.float32)
    centers = np.stack([features[labels == label].mean(axis=0) for label in range(9)])
    found = PseudoLabels(labels=labels, centers=centers)
    pool = split(features, 1)
    figures = health(found, pool=pool, camid=camid, truth=truth, previous=previous)
    parts, before = (np.where(x == OUTLIER, 9 + np.arange(200), x) for x in (labels, previous))
    assert figures["ari"] == pytest.approx(adjusted_rand_score(truth, parts))
    assert figures["nmi"] == pytest.approx(normalized_mutual_info_score(truth, parts))
    assert figures["purity"] == purity(labels, truth)
    assert figures["stability"] == pytest.approx(adjusted_rand_score(before, parts))
    assert figures["camera_mixing"] == mixing(labels, camid)
    assert figures.items() >= scores(pool, found).items()
    sizes = [int((labels == k).sum()) for k in range(9)]
    assert figures["largest_cluster"] == max(sizes) / sum(sizes)
    assert figures["median_size"] == np.median(sizes)
    assert figures["num_outliers"] == 200 - sum(sizes)


def test_every_figure_has_its_meaning_written_down() -> None:
    features = np.random.default_rng(1).standard_normal((40, 3)).astype(np.float32)
    labels = np.arange(40) % 4
    centers = np.stack([features[labels == label].mean(axis=0) for label in range(4)])
    figures = health(
        PseudoLabels(labels=labels, centers=centers),
        pool=split(features, 1),
        camid=np.arange(40) % 3,
        truth=labels,
        previous=labels,
    )
    assert figures.keys() == FIGURES.keys()


def test_agreement_does_not_depend_on_the_clusters_numbers() -> None:
    labels = np.repeat(np.arange(5), 4)
    found = health(labelled(labels), truth=4 - labels, previous=labels)
    assert (found["ari"], found["nmi"], found["purity"], found["stability"]) == (1, 1, 1, 1)


def test_nothing_but_outliers() -> None:
    labels = np.full(7, OUTLIER)
    found = health(labelled(labels), truth=np.arange(7), camid=np.arange(7))
    assert found == {
        "num_clusters": 0.0,
        "num_outliers": 7.0,
        "singletons": 0.0,
        "ari": 1.0,  # all different, in truth as well
        "nmi": 1.0,
    }


def test_figures_appear_only_where_asked_for() -> None:
    asked = {"ari", "nmi", "purity", "stability", "silhouette", "camera_mixing"}
    assert not asked & health(labelled(np.array([0, 1]))).keys()

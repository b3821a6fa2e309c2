"""Figures of a clustering, against scikit-learn and counting by hand."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from reid.clustering.health import health
from reid.types import OUTLIER


def test_counts_of_a_clustering_written_down():
    labels = np.array([0, 0, 0, 3, 3, 5, OUTLIER, OUTLIER])
    assert health(labels) == {
        "num_clusters": 3.0,
        "num_outliers": 2.0,
        "largest_cluster": 3 / 6,  # of the six that have a cluster
        "singletons": 1.0,
    }


def test_agreements_are_scikit_learns():
    rng = np.random.default_rng(0)
    labels, truth, previous = rng.integers(-1, 9, (3, 200))
    found = health(labels, truth=truth, previous=previous)
    assert found["ari"] == pytest.approx(adjusted_rand_score(truth, labels))
    assert found["stability"] == pytest.approx(adjusted_rand_score(previous, labels))
    sizes = {k: int((labels == k).sum()) for k in range(9)}
    assert found["largest_cluster"] == max(sizes.values()) / sum(sizes.values())
    assert found["num_outliers"] == 200 - sum(sizes.values())


def pairs_ari(first, second):
    """Return the adjusted Rand index by counting pairs, from its definition (Hubert, Arabie)."""
    upper = np.triu_indices(len(first), 1)
    a = (first[:, None] == first[None])[upper]
    b = (second[:, None] == second[None])[upper]
    expected = a.sum() * b.sum() / len(a)
    return ((a & b).sum() - expected) / ((a.sum() + b.sum()) / 2 - expected)


def test_ari_by_counting_pairs():
    rng = np.random.default_rng(1)
    labels, truth = rng.integers(0, 4, (2, 60))
    assert health(labels, truth=truth)["ari"] == pytest.approx(pairs_ari(labels, truth))


def test_agreement_does_not_depend_on_the_clusters_numbers():
    labels = np.repeat(np.arange(5), 4)
    found = health(labels, truth=4 - labels, previous=labels)
    assert (found["ari"], found["stability"]) == (1.0, 1.0)


def test_nothing_but_outliers():
    found = health(np.full(7, OUTLIER))
    assert found == {
        "num_clusters": 0.0,
        "num_outliers": 7.0,
        "largest_cluster": 0.0,
        "singletons": 0.0,
    }


def test_agreements_appear_only_where_asked_for():
    assert not {"ari", "stability"} & health(np.array([0, 1])).keys()

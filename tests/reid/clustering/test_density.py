"""Jaccard distances, DBSCAN and means together: against dense distances and scikit-learn."""

import numpy as np
import pytest
from sklearn.cluster import DBSCAN

from reid.clustering import (
    DBSCANConfig,
    jaccard_dbscan,
    jaccard_distance,
    self_paced_clusters,
    self_paced_labels,
    split,
)
from reid.types import OUTLIER


def clustered(features, config):
    stored = jaccard_distance(features, k1=config.k1, k2=config.k2).tocoo()
    dense = np.ones(stored.shape, dtype=np.float32)
    dense[stored.row, stored.col] = stored.data
    search = DBSCAN(eps=config.eps, min_samples=config.min_samples, metric="precomputed")
    return search.fit_predict(dense)


@pytest.mark.parametrize(
    "config",
    [
        DBSCANConfig(k1=12, k2=3, eps=0.5),
        DBSCANConfig(k1=8, k2=2, eps=0.35, min_samples=2),
        DBSCANConfig(k1=20, k2=6, eps=0.6),
    ],
)
def test_labels_are_those_of_dense_distances(config, identities):
    features = identities(600, 16, 40, seed=2)
    found = jaccard_dbscan(split(features, 1), config)
    expected = clustered(features, config)
    np.testing.assert_array_equal(found.labels, expected)
    assert 1 < found.num_clusters == expected.max() + 1
    assert (expected == OUTLIER).any()
    for cluster, center in enumerate(found.centers):
        mean = features[expected == cluster].mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(center, mean, rtol=1e-6, atol=1e-7)


def test_a_distance_of_exactly_eps_counts(identities):
    features = identities(300, 16, 25, seed=3)
    stored = jaccard_distance(features, k1=10, k2=3).data
    pairs = 0
    for eps in np.unique(stored[stored > 0])[:20]:
        at, below = (
            DBSCANConfig(k1=10, k2=3, eps=float(limit), min_samples=2)
            for limit in (eps, np.nextafter(eps, np.float32(0)))
        )
        found, without = (jaccard_dbscan(split(features, 1), c).labels for c in (at, below))
        np.testing.assert_array_equal(found, clustered(features, at))
        pairs += (found != without).any()
    assert pairs > 0  # the others join rows that nearer ones joined already


@pytest.mark.parametrize("threshold", [None, 0.9])
def test_self_paced_labels_are_those_of_all_distances(threshold, identities):
    features = identities(300, 16, 20, seed=0)
    config = DBSCANConfig(k1=12, k2=3, eps=0.5, min_samples=5)
    distance = jaccard_distance(features, k1=12, k2=3)
    expected, plain = (
        self_paced_labels(
            distance, eps=0.5, eps_gap=gap, min_samples=5, independence_threshold=threshold
        )
        for gap in (0.05, 0.0)
    )
    found = self_paced_clusters(
        split(features, 1), config, eps_gap=0.05, independence_threshold=threshold
    )
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.independence_threshold == expected.independence_threshold
    assert (expected.labels != plain.labels).any()  # the other two radii have a say


def test_shards_do_not_change_a_bit(identities):
    features = identities(2500, 16, 100, seed=4)
    one, several = (jaccard_dbscan(split(features, n), DBSCANConfig()) for n in (1, 3))
    np.testing.assert_array_equal(several.labels, one.labels)
    np.testing.assert_array_equal(several.centers, one.centers)


def test_rows_far_apart_are_outliers():
    found = jaccard_dbscan(split(np.eye(3, dtype=np.float32), 1), DBSCANConfig())
    assert found.labels.tolist() == [OUTLIER] * 3
    assert found.centers.shape == (0, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"eps": 0.0}, "eps is 0.0"),
        ({"eps": 1.0}, "eps is 1.0"),
        ({"min_samples": 0}, "min_samples is 0"),
        ({"k1": 5, "k2": 6}, "k1 is 5 and k2 is 6"),
        ({"k2": 0}, "k2 is 0"),
    ],
)
def test_settings_that_cannot_cluster_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        DBSCANConfig(**values)

"""Means of given clusters: by their definition, and the same bits for any number of shards."""

import numpy as np
import pytest

from reid.clustering import BLOCK, cluster_means, split
from reid.types import OUTLIER


@pytest.fixture
def case(identities):
    def make(num_rows: int = 3 * BLOCK + 7, num_clusters: int = 40):
        rng = np.random.Generator(np.random.Philox(num_rows))
        labels = rng.integers(OUTLIER, num_clusters, size=num_rows)
        labels[:num_clusters] = np.arange(num_clusters)
        return identities(num_rows, 24, 30, seed=1), labels

    return make


def test_means_are_those_of_the_rows_without_outliers(case):
    features, labels = case()
    means = cluster_means(split(features, 2), labels)
    wide = features.astype(np.float64)
    for cluster, mean in enumerate(means):
        expected = wide[labels == cluster].sum(axis=0) / (labels == cluster).sum()
        np.testing.assert_array_equal(mean, expected.astype(np.float32))
    assert means.dtype == np.float32


@pytest.mark.parametrize("num_shards", [2, 3, 9])
def test_shards_do_not_change_a_bit(num_shards, case):
    features, labels = case()
    features *= np.float32(1e3) ** np.arange(-3, 5, 1 / 3, dtype=np.float32)  # of all magnitudes
    expected = cluster_means(split(features, 1), labels)
    np.testing.assert_array_equal(cluster_means(split(features, num_shards), labels), expected)


def test_the_order_of_rows_does_not_change_a_bit(case):
    features, labels = case()
    order = np.random.Generator(np.random.Philox(5)).permutation(len(labels))
    found = cluster_means(split(features[order], 2), labels[order])
    np.testing.assert_array_equal(found, cluster_means(split(features, 2), labels))


def test_without_clusters_or_rows_there_are_no_means(case):
    features, _ = case(num_rows=50)
    for rows in (features, features[:0]):
        outliers = np.full(len(rows), OUTLIER, dtype=np.int64)
        assert cluster_means(split(rows, 2), outliers).shape == (0, 24)


def test_labels_that_do_not_fit_are_refused(case):
    features, labels = case(num_rows=50, num_clusters=5)
    pool = split(features, 1)
    with pytest.raises(ValueError, match="49 labels for 50 rows"):
        cluster_means(pool, labels[1:])
    with pytest.raises(ValueError, match="below -1"):
        cluster_means(pool, labels - 1)
    with pytest.raises(ValueError, match="1 clusters have no row, 3 the first"):
        cluster_means(pool, np.where(labels == 3, 4, labels))

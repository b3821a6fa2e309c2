"""DBSCAN: scikit-learn's labels on the same matrix."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.cluster import DBSCAN

from reid.clustering import dbscan, jaccard_distance, mean_of_smallest
from reid.clustering.dbscan import _num_neighbors


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")
def test_scikit_learn_on_jaccard_distances_at_many_radii() -> None:
    rng = generator(1)
    rows = rng.normal(size=(60, 24))[rng.integers(60, size=900)]
    rows += 0.7 * rng.normal(size=rows.shape)
    features = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    features[:30] = features[100]  # equal rows
    full = jaccard_distance(features, k1=20)
    near = jaccard_distance(features, k1=20, max_distance=0.8)
    everywhere = np.ones((900, 900), dtype=np.float32)
    everywhere[full.tocoo().row, full.tocoo().col] = full.data
    outliers = []
    for eps in np.linspace(0.3, 0.75, 10):
        for min_samples in (2, 4):
            ours = dbscan(near, eps=float(eps), min_samples=min_samples)
            np.testing.assert_array_equal(ours, dbscan(full, eps=eps, min_samples=min_samples))
            expected = DBSCAN(eps=float(eps), min_samples=min_samples, metric="precomputed").fit(
                everywhere
            )
            np.testing.assert_array_equal(ours, expected.labels_)
            outliers.append(int((ours < 0).sum()))
    assert outliers[0] > outliers[-1]
    assert outliers[0] > 20
    assert dbscan(near, eps=0.6).max() > 10


def test_a_border_row_joins_the_first_of_two_clusters() -> None:
    # Rows 0-3 and 5-8 are two cliques; row 4 is near one row of each, and no core.
    edges = [(a, b) for group in (range(4), range(5, 9)) for a in group for b in group if a < b]
    edges += [(3, 4), (4, 5)]
    row, column = np.array(edges).T
    near = sparse.coo_array((np.full(len(edges), 0.1), (row, column)), (9, 9))
    distance = sparse.csr_array(near + near.T)
    assert dbscan(distance, eps=0.2, min_samples=4).tolist() == [0] * 5 + [1] * 4


def test_entries_in_any_order_and_in_parts() -> None:
    values = generator(3).integers(-9, 6, size=(50, 50)) / 10  # the larger half is stored
    row, column = np.nonzero(values > 0)
    distance = sparse.csr_array((values[row, column], (row, column)), values.shape)
    shuffled = sparse.csr_array(
        (distance.data.copy(), distance.indices.copy(), distance.indptr.copy()), distance.shape
    )
    for start, stop in zip(distance.indptr[:-1], distance.indptr[1:], strict=True):
        shuffled.indices[start:stop] = shuffled.indices[start:stop][::-1].copy()
        shuffled.data[start:stop] = shuffled.data[start:stop][::-1].copy()
    np.testing.assert_array_equal(
        dbscan(shuffled, eps=0.5, min_samples=2), dbscan(distance, eps=0.5, min_samples=2)
    )


def test_a_stored_diagonal_counts_once() -> None:
    stored = sparse.csr_array(np.array([[0.2, 0.1], [0.1, 0.9]]))
    near = stored.data <= 0.5
    assert _num_neighbors(stored.indptr, stored.indices, near).tolist() == [2, 1]
    missing = sparse.csr_array((2, 2), dtype=np.float32)
    assert dbscan(missing, eps=0.5, min_samples=1).tolist() == [0, 1]
    assert dbscan(missing, eps=0.5, min_samples=2).tolist() == [-1, -1]
    assert dbscan(sparse.csr_array((0, 0)), eps=0.5).shape == (0,)


def test_bad_questions_are_refused() -> None:
    square = sparse.csr_array(np.eye(3))
    with pytest.raises(ValueError, match=r"shape \(3, 2\): expected a square"):
        dbscan(sparse.csr_array(np.ones((3, 2))), eps=0.5)
    for eps, min_samples in ((0.0, 4), (-1.0, 4), (np.nan, 4), (0.5, 0)):
        with pytest.raises(ValueError, match="choose eps above 0, min_samples from 1 on"):
            dbscan(square, eps=eps, min_samples=min_samples)
    for value in (-0.5, np.nan):
        with pytest.raises(ValueError, match="negative or NaN"):
            dbscan(square * value, eps=0.5)


@pytest.mark.parametrize("share", [1e-9, 1.6e-3, 0.02, 0.5, 1.0])
def test_mean_of_smallest_is_that_of_all_pairs_that_differ(share, identities):
    features = identities(200, 16, 20, seed=3)
    features[7], features[90] = features[5], features[5]
    stored = jaccard_distance(features, k1=10, k2=3)
    full = np.ones(stored.shape)
    entries = stored.tocoo()
    full[entries.row, entries.col] = entries.data
    upper = np.triu(full, 1)
    upper = np.sort(upper[np.nonzero(upper)])
    assert len(upper) < 200 * 199 / 2
    expected = upper[: max(int(np.round(share * len(upper))), 1)].mean()
    assert mean_of_smallest(stored, share) == pytest.approx(expected, rel=1e-12)


def test_mean_of_smallest_refuses_what_has_none():
    same = jaccard_distance(np.ones((2, 3), dtype=np.float32), k1=2, k2=1)
    with pytest.raises(ValueError, match="no two of 2 rows differ"):
        mean_of_smallest(same, 0.1)
    for share in (0.0, 1.1):
        with pytest.raises(ValueError, match=f"share is {share}"):
            mean_of_smallest(same, share)

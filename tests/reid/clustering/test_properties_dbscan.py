"""DBSCAN and self-paced labels of any small matrix: scikit-learn, and the N x N way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.cluster import DBSCAN

from reid.clustering import dbscan, jaccard_distance, reliability, self_paced_labels, split
from reid.clustering.density import DBSCANConfig, jaccard_dbscan
from tests.reid.clustering.references import alone, dense, made_distance, partition, stored
from tests.reid.clustering.strategies import distances, labels, one_pool, tables

radii = st.integers(1, 12).map(lambda tenths: tenths / 10)
sample_counts = st.integers(1, 5)
many_clusters = st.integers(0, 2**20).map(lambda seed: stored(made_distance(200, seed=seed)))


def theirs(distance: sparse.csr_array, eps: float, min_samples: int) -> np.ndarray:
    found: np.ndarray = (
        DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed")
        .fit(sparse.csr_matrix(distance))
        .labels_
    )
    return found


@settings(max_examples=150)
@given(distance=distances(), eps=radii, min_samples=sample_counts)
@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")
def test_the_labels_are_scikit_learns(
    distance: sparse.csr_array, eps: float, min_samples: int
) -> None:
    before = distance.copy()
    ours = dbscan(distance, eps=eps, min_samples=min_samples)
    np.testing.assert_array_equal(ours, theirs(distance, eps, min_samples))
    assert (before != distance).nnz == 0


@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")
@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=40)
@given(
    rows=tables(),
    shards=one_pool,
    k1=st.integers(1, 12),
    eps=st.sampled_from([0.2, 1 / 3, 0.5, 0.6, 2 / 3]),  # some of them are distances
    min_samples=sample_counts,
)
def test_labels_of_a_round_are_those_of_all_distances(
    rows: np.ndarray, shards: tuple[int], k1: int, eps: float, min_samples: int
) -> None:
    k2 = min(k1, 3)
    config = DBSCANConfig(k1=k1, k2=k2, eps=eps, min_samples=min_samples)
    found = jaccard_dbscan(split(rows, *shards), config)
    expected = theirs(jaccard_distance(rows, k1=k1, k2=k2), eps, min_samples)
    np.testing.assert_array_equal(found.labels, expected)
    means = [rows[expected == c].mean(axis=0, dtype=np.float64) for c in range(found.num_clusters)]
    assert found.num_clusters == expected.max() + 1
    np.testing.assert_array_equal(
        found.centers, np.array(means, np.float32).reshape(-1, rows[0].size)
    )


def far(distance: sparse.csr_array) -> np.ndarray:
    """Return all distances: out of reach where none is stored, but each row is near itself."""
    full = dense(distance, missing=100)
    np.fill_diagonal(full, 0)
    return full


@settings(max_examples=60)
@given(distance=distances(symmetric=True), eps=radii, min_samples=sample_counts, data=st.data())
def test_only_border_rows_depend_on_the_order_of_rows(
    distance: sparse.csr_array, eps: float, min_samples: int, data: st.DataObject
) -> None:
    order = np.array(data.draw(st.permutations(range(distance.shape[0]))))
    ours = dbscan(distance, eps=eps, min_samples=min_samples)[order]
    permuted = dbscan(distance[order][:, order], eps=eps, min_samples=min_samples)
    np.testing.assert_array_equal(permuted < 0, ours < 0)
    is_core = (far(distance) <= eps).sum(axis=1)[order] >= min_samples
    np.testing.assert_array_equal(partition(permuted[is_core]), partition(ours[is_core]))


def overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    one, other = first[:, None] == first, second[:, None] == second
    return (one & other).sum(axis=1) / (one | other).sum(axis=1)


@settings(max_examples=100)
@given(num_rows=st.integers(1, 40), data=st.data())
def test_scores_are_those_of_masks(num_rows: int, data: st.DataObject) -> None:
    own, tight, loose = (data.draw(labels(num_rows)) for _ in range(3))
    if data.draw(st.booleans()):
        own[own == 1] = 10**6  # any numbers will do
    scores = reliability(own, tight, loose)
    for ours, other in ((scores.independence, loose), (scores.compactness, tight)):
        np.testing.assert_allclose(ours, overlap(alone(own), alone(other)), rtol=1e-15)


def by_the_book(
    distance: np.ndarray, eps: float, eps_gap: float, min_samples: int, threshold: float | None
) -> tuple[np.ndarray, float | None]:
    """SpCL's criterion, one cluster and one row at a time, on N x N masks."""
    named, tight, loose = (
        alone(DBSCAN(eps=r, min_samples=min_samples, metric="precomputed").fit(distance).labels_)
        for r in (eps, eps - eps_gap, eps + eps_gap)
    )
    independence, compactness = overlap(named, loose), overlap(named, tight)
    best_independence = {c: independence[named == c].max() for c in set(named)}
    best_compactness = {c: compactness[named == c].max() for c in set(named)}
    if threshold is None:
        large = sorted(1 - best_independence[c] for c in set(named) if (named == c).sum() > 1)
        if large:
            threshold = 1 - large[min(len(large) - 1, int(np.round(0.9 * len(large))))]
    final = named.copy()
    for row, label in enumerate(named):
        independent = threshold is None or best_independence[label] >= threshold - 1e-9
        if not (independent and compactness[row] >= best_compactness[label]):
            final[row] = len(named) + row
    return final, threshold


@settings(max_examples=150)
@given(
    distance=st.one_of(distances(symmetric=True), many_clusters),
    eps=st.sampled_from([0.2, 0.3, 0.35, 0.4, 0.6, 1.1]),
    gap=st.sampled_from([0.0, 0.12, 0.3, 0.9]),
    min_samples=st.integers(1, 4),
    threshold=st.sampled_from([None, None, None, 0.3, 0.7, 1.0]),
)
def test_self_paced_labels_are_those_of_the_book(
    distance: sparse.csr_array, eps: float, gap: float, min_samples: int, threshold: float | None
) -> None:
    eps_gap = gap * eps
    ours = self_paced_labels(
        distance,
        eps=eps,
        eps_gap=eps_gap,
        min_samples=min_samples,
        independence_threshold=threshold,
    )
    expected, used = by_the_book(far(distance), eps, eps_gap, min_samples, threshold)
    np.testing.assert_array_equal(partition(ours.labels), partition(expected))
    assert ours.independence_threshold == (used if used is None else pytest.approx(used, abs=1e-12))
    np.testing.assert_array_equal(np.unique(ours.labels), np.arange(ours.labels.max() + 1))
    # Clusters before rows that were rejected or outlying, which have one row each
    sizes = np.bincount(ours.labels)
    if (sizes > 1).any():
        plain = dbscan(distance, eps=eps, min_samples=min_samples)
        last = int(np.flatnonzero(sizes > 1)[-1])
        assert all((plain[ours.labels == label] >= 0).all() for label in range(last + 1))

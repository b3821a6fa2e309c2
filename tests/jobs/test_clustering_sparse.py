"""The benchmark of sparse clustering: its reference is the published way, its cases agree."""

from collections.abc import Callable

import numpy as np
import pytest

from jobs.benchmarks import clustering_sparse
from jobs.benchmarks.clustering_sparse import dense_jaccard
from jobs.benchmarks.features import made_features

Golden = Callable[[str], dict[str, np.ndarray]]


def test_the_dense_reference_is_the_published_way(golden: Golden) -> None:
    vectors = golden("jaccard_a")
    assert (vectors["k1"], vectors["k2"]) == (clustering_sparse.K1, clustering_sparse.K2)
    np.testing.assert_allclose(
        dense_jaccard(vectors["features"]), vectors["distance"], rtol=0, atol=2e-6
    )


def test_every_case_has_parity() -> None:
    features = made_features(900, 96)
    every = clustering_sparse.cases(features)
    said = [case.parity([case.ours()], [case.theirs()]) for case in every]
    assert len(said) == 5
    assert "identical labels" in said[2]
    assert [case.peak_mib is None for case in every] == [True, True, False, True, True]
    assert every[3].share == 2 / 80


def test_failed_parity_gives_no_figures() -> None:
    labels = np.array([0, 0, 1])
    with pytest.raises(AssertionError, match="1 labels differ"):
        clustering_sparse._same_labels([labels], [np.array([0, 0, 0])])
    with pytest.raises(AssertionError, match="have the same neighbours"):
        clustering_sparse._same_sets([np.array([[0, 1]])], [np.array([[0, 2]])])


def test_memory_of_a_process_of_its_own() -> None:
    assert clustering_sparse.peak_mib("peer", 2000, 32) > 2 * 2000**2 * 4 / 2**20

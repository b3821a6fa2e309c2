"""The cases of the k-means benchmark at a small size."""

import numpy as np
import pytest

from jobs.benchmarks import clustering_kmeans as cases


def silent(*_: object, **__: object) -> None:
    """Show nothing."""


def test_features_are_unit_rows_around_identities() -> None:
    features = cases.made_features(600, 64, num_identities=10, seed=1)
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    rank = np.linalg.matrix_rank(cases.made_features(80, 64, num_identities=3, rank=8), tol=3)
    assert rank < 20  # a few strong directions, the rest is noise
    np.testing.assert_array_equal(features, cases.made_features(600, 64, num_identities=10, seed=1))


def test_potential_is_that_of_all_pairs() -> None:
    features = cases.made_features(300, 32, num_identities=10)
    centers = features[::30]
    dist_sq = ((features[:, None].astype(np.float64) - centers) ** 2).sum(axis=2)
    expected = dist_sq.min(axis=1).sum()
    assert cases.potential(features, centers) == pytest.approx(expected, rel=1e-6)


def test_every_case_has_a_row_as_the_interface_says() -> None:
    size = {"num_rows": 1500, "num_features": 32, "num_clusters": 40}
    rows = cases.measure(**size, repeats=3, show=silent)
    assert [row["peer"].split(",")[0] for row in rows] == [
        "scikit-learn kmeans_plusplus",
        "faiss.Kmeans",
        "faiss.Kmeans",
    ]
    for row in rows:
        assert set(row) == {
            *("case", "ours_cpu_s", "peer", "peer_cpu_s", "ratio"),
            *("ours_peak_mib", "peer_peak_mib", "parity"),
        }
        assert row["ours_cpu_s"] > 0
        assert row["ratio"] > 0
        assert "of the peer's" in row["parity"]


def test_a_worse_result_voids_the_comparison() -> None:
    with pytest.raises(ValueError, match=r"inertia is 1.0100 of the peer's, above 1.001"):
        cases._compared("inertia", 1.01, at_most=1.001)

"""The cases of the k-means benchmark at a small size."""

import numpy as np
import pytest

from jobs.benchmarks import clustering_kmeans
from jobs.benchmarks.features import made_features


def test_potential_is_that_of_all_pairs() -> None:
    features = made_features(300, 32)
    centers = features[::30]
    dist_sq = ((features[:, None].astype(np.float64) - centers) ** 2).sum(axis=2)
    expected = dist_sq.min(axis=1).sum()
    assert clustering_kmeans.potential(features, centers) == pytest.approx(expected, rel=1e-6)


def test_every_case_compares_results_of_one_quality() -> None:
    cases = clustering_kmeans.cases(made_features(1500, 32), 40)
    assert [case.peer.split(",")[0] for case in cases] == [
        "scikit-learn kmeans_plusplus",
        "scikit-learn kmeans_plusplus",
        "faiss.Kmeans",
        "faiss.Kmeans",
    ]
    assert cases[2].units == cases[3].units > 1
    for case in cases:
        tried = [(case.ours(), case.theirs()) for _ in range(case.tries)]
        assert "of the peer's" in case.parity(*zip(*tried, strict=True))
    (first, _), (second, _) = [(cases[0].ours(), cases[0].theirs()) for _ in range(2)]
    assert (first != second).any()  # each run takes the next seed


def test_a_worse_result_voids_the_comparison() -> None:
    with pytest.raises(ValueError, match=r"inertia is 1.0100 of the peer's, above 1.001"):
        clustering_kmeans._compared("inertia", 1.01, at_most=1.001)

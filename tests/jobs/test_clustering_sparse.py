"""The benchmark of sparse clustering: its reference is the published way, its rows have parity."""

from collections.abc import Callable

import numpy as np
import pytest

from jobs.benchmarks import clustering_sparse
from jobs.benchmarks.clustering_sparse import Case, cases, dense_jaccard, made_features, rows

Golden = Callable[[str], dict[str, np.ndarray]]


def test_the_dense_reference_is_the_published_way(golden: Golden) -> None:
    vectors = golden("jaccard_a")
    assert (vectors["k1"], vectors["k2"]) == (clustering_sparse.K1, clustering_sparse.K2)
    np.testing.assert_allclose(
        dense_jaccard(vectors["features"]), vectors["distance"], rtol=0, atol=2e-6
    )


def test_made_features_are_unit_rows_that_a_seed_repeats() -> None:
    features = made_features(700, 64, seed=1)
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(features, made_features(700, 64, seed=1))
    assert (features != made_features(700, 64, seed=2)).all()


def test_every_case_is_measured_after_its_parity() -> None:
    features = made_features(900, 96)
    shown: list[str] = []
    found = rows(features, repeats=1, peaks=False, show=lambda *what: shown.append(what[3]))
    assert [row["case"] for row in found] == [f"clustering: {case}" for case in shown]
    assert len(found) == len(cases(features)) == 5
    for row in found:
        assert row["ours_cpu_s"] > 0
        assert row["peer_cpu_s"] > 0
        assert row["parity"]
    assert "identical labels" in found[2]["parity"]


def test_the_peer_is_charged_for_all_its_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(kind: str) -> Callable[[], object]:
        return lambda: clock.__setitem__(0, clock[0] + {"ours": 1.0, "peer": 2.0}[kind])

    clock = [0.0]
    case = Case(
        name="x",
        peer="y",
        ours=counted("ours"),
        theirs=counted("peer"),
        parity=lambda *_: "same",
        share=0.1,
    )
    monkeypatch.setattr(clustering_sparse, "cases", lambda _: [case])
    monkeypatch.setattr(clustering_sparse, "cpu_seconds", lambda: clock[0])
    (row,) = rows(np.zeros((2, 2), np.float32), repeats=3, show=lambda *_: None)
    assert (row["ours_cpu_s"], row["peer_cpu_s"], row["ratio"]) == (1, 20, 20)


def test_failed_parity_gives_no_figures() -> None:
    labels = np.array([0, 0, 1])
    with pytest.raises(AssertionError, match="1 labels differ"):
        clustering_sparse._same_labels(labels, np.array([0, 0, 0]))
    with pytest.raises(AssertionError, match="have the same neighbours"):
        clustering_sparse._same_sets(np.array([[0, 1]]), np.array([[0, 2]]))


def test_memory_of_a_process_of_its_own() -> None:
    assert clustering_sparse.peak_mib("peer", 2000, 32) > 2 * 2000**2 * 4 / 2**20

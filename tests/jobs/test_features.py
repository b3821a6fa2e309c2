"""Made features: a seed repeats them, and they have the structure they are made for."""

from pathlib import Path

import numpy as np

from jobs.benchmarks.features import made_features, write_features
from reid.clustering import dbscan, jaccard_distance


def test_features_are_unit_rows_that_a_seed_repeats() -> None:
    features = made_features(1100, 64, seed=1)
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(features, made_features(1100, 64, seed=1))
    assert (features != made_features(1100, 64, seed=2)).all()


def test_a_file_holds_the_same_rows(tmp_path: Path) -> None:
    features = write_features(tmp_path / "f.npy", 9000, 40)  # more than one piece
    assert isinstance(features, np.memmap)
    np.testing.assert_array_equal(features, made_features(9000, 40))


def test_few_directions_hold_most_of_the_features() -> None:
    features = made_features(600, 256, rank=8)
    energy = np.linalg.svd(features, compute_uv=False) ** 2
    assert energy[:8].sum() > 0.8 * energy.sum()
    assert energy[8] < 0.1 * energy[7]


def test_dbscan_finds_many_clusters_and_some_outliers() -> None:
    features = made_features(1500, 256)
    labels = dbscan(jaccard_distance(features, max_distance=0.65), eps=0.6)
    assert 40 < labels.max() + 1 < 150  # of 88 identities
    assert 0.05 < (labels < 0).mean() < 0.6

"""Agreement and mixing of partitions, against scikit-learn and counting by hand."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from reid.clustering.partitions import (
    adjusted_rand_index,
    mixing,
    normalized_mutual_information,
    purity,
)
from reid.types import OUTLIER


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([0, 0, 0, 0], [3, 3, 3, 3]),
        ([0, 0, 0, 0], [0, 1, 2, 3]),
        ([0, 1, 2, 3], [3, 1, 2, 0]),
        ([7], [7]),
        ([], []),
    ],
)
def test_agreements_at_the_edge_are_scikit_learns(first: list[int], second: list[int]) -> None:
    a, b = np.array(first, dtype=np.int64), np.array(second, dtype=np.int64)
    assert adjusted_rand_index(a, b) == adjusted_rand_score(a, b)
    assert normalized_mutual_information(a, b) == normalized_mutual_info_score(a, b)


def test_purity_counts_the_main_identity_of_each_cluster() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 4, OUTLIER, OUTLIER])
    truth = np.array([8, 8, 8, 3, 3, 2, 5, 1, 1])
    assert purity(labels, truth) == (3 + 1 + 1) / 7
    assert purity(np.full(3, OUTLIER), np.arange(3)) is None


def test_camera_mixing_between_its_ends() -> None:
    camid = np.tile([0, 1, 2, 2], 20)
    assert mixing(camid, camid) == 0
    assert mixing(np.repeat(np.arange(20), 4), camid) == pytest.approx(1)
    outliers_apart = np.where(camid == 2, OUTLIER, np.repeat(np.arange(20), 4))
    assert mixing(outliers_apart, camid) == pytest.approx(1)  # of the labelled: two cameras
    assert mixing(camid, np.zeros(80, dtype=np.int64)) is None
    assert mixing(np.full(80, OUTLIER), camid) is None

"""Agreement and mixing of partitions, against scikit-learn and counting by hand."""

import math
from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from reid.clustering.partitions import (
    adjusted_rand_index,
    contingency,
    mixing,
    normalized_mutual_information,
    purity,
)
from reid.types import OUTLIER

PAIRS = [
    np.random.default_rng(seed).integers(-1, parts, (2, rows))
    for seed, (parts, rows) in enumerate([(9, 200), (3, 1000), (60, 64), (2, 5), (1, 30)])
]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_agreements_are_scikit_learns(first: np.ndarray, second: np.ndarray) -> None:
    ari, nmi = adjusted_rand_score(first, second), normalized_mutual_info_score(first, second)
    assert adjusted_rand_index(first, second) == pytest.approx(ari, abs=1e-12)
    assert normalized_mutual_information(first, second) == pytest.approx(nmi, abs=1e-12)


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


def pairs_ari(first: np.ndarray, second: np.ndarray) -> float:
    """Return the adjusted Rand index by counting pairs, from its definition (Hubert, Arabie)."""
    upper = np.triu_indices(len(first), 1)
    a = (first[:, None] == first[None])[upper]
    b = (second[:, None] == second[None])[upper]
    expected = a.sum() * b.sum() / len(a)
    return float(((a & b).sum() - expected) / ((a.sum() + b.sum()) / 2 - expected))


def test_ari_by_counting_pairs() -> None:
    first, second = np.random.default_rng(1).integers(0, 4, (2, 60))
    assert adjusted_rand_index(first, second) == pytest.approx(pairs_ari(first, second))


def test_intersections_are_those_of_a_dense_table() -> None:
    first, second = np.random.default_rng(2).integers(-1, 6, (2, 300))
    sizes = contingency(first, second)
    dense = np.zeros((7, 7), dtype=np.int64)
    np.add.at(dense, (first + 1, second + 1), 1)
    found = np.zeros_like(dense)
    found[sizes.first, sizes.second] = sizes.both
    np.testing.assert_array_equal(found, dense)
    np.testing.assert_array_equal(sizes.in_first, dense.sum(axis=1))
    np.testing.assert_array_equal(sizes.in_second, dense.sum(axis=0))


def test_purity_counts_the_main_identity_of_each_cluster() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 4, OUTLIER, OUTLIER])
    truth = np.array([8, 8, 8, 3, 3, 2, 5, 1, 1])
    assert purity(labels, truth) == (3 + 1 + 1) / 7
    assert purity(np.full(3, OUTLIER), np.arange(3)) is None


def entropies(labels: np.ndarray, camid: np.ndarray) -> float:
    """Return H(camera | cluster) / H(camera) by loops over clusters."""

    def entropy(values: list[int]) -> float:
        return -sum(n / len(values) * math.log(n / len(values)) for n in Counter(values).values())

    kept = [(int(c), int(v)) for c, v in zip(labels, camid, strict=True) if c != OUTLIER]
    clusters = {c: [v for d, v in kept if d == c] for c, _ in kept}
    within = sum(len(v) / len(kept) * entropy(v) for v in clusters.values())
    return within / entropy([v for _, v in kept])


def test_camera_mixing_is_the_definition() -> None:
    rng = np.random.default_rng(3)
    labels, camid = rng.integers(-1, 12, 400), rng.integers(0, 6, 400)
    assert mixing(labels, camid) == pytest.approx(entropies(labels, camid))


def test_camera_mixing_between_its_ends() -> None:
    camid = np.tile([0, 1, 2, 2], 20)
    assert mixing(camid, camid) == 0
    assert mixing(np.repeat(np.arange(20), 4), camid) == pytest.approx(1)
    outliers_apart = np.where(camid == 2, OUTLIER, np.repeat(np.arange(20), 4))
    assert mixing(outliers_apart, camid) == pytest.approx(1)  # of the labelled: two cameras
    assert mixing(camid, np.zeros(80, dtype=np.int64)) is None
    assert mixing(np.full(80, OUTLIER), camid) is None

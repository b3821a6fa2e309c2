"""Cross agreement: a published vector, and sets."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from reid.clustering import cross_agreement, split

Golden = Callable[[str], dict[str, np.ndarray]]


def by_sets(whole: np.ndarray, parts: np.ndarray, k: int) -> np.ndarray:
    def nearest(features: np.ndarray, row: int) -> set[int]:
        wide = features.astype(np.float64)
        distance = ((wide - wide[row]) ** 2).sum(axis=1)
        distance[row] = np.inf
        return set(np.argsort(distance, kind="stable")[: min(k, len(wide) - 1)].tolist())

    scores = np.empty((len(whole), parts.shape[2]))
    for row in range(len(whole)):
        mine = nearest(whole, row)
        for part in range(parts.shape[2]):
            other = nearest(parts[:, :, part], row)
            scores[row, part] = len(mine & other) / len(mine | other)
    return scores


def test_published_scores(golden: Golden) -> None:
    vectors = golden("pplr_cross_agreement")
    ours = cross_agreement(
        vectors["global_features"], vectors["part_features"], k=int(vectors["k"])
    )
    np.testing.assert_allclose(ours, vectors["score"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("num_rows", "k"), [(2, 1), (2, 20), (15, 20), (120, 1), (120, 20)])
def test_sets_of_neighbours(num_rows: int, k: int) -> None:
    rng = np.random.Generator(np.random.Philox(num_rows))
    whole = rng.normal(size=(num_rows, 12)).astype(np.float32)
    parts = whole[:, :, None] + 0.5 * rng.normal(size=(num_rows, 12, 3)).astype(np.float32)
    parts[:, :, 1] = whole  # agrees fully
    ours = cross_agreement(whole, parts, k=k)
    np.testing.assert_allclose(ours, by_sets(whole, parts, k), rtol=1e-15)
    assert (ours[:, 1] == 1).all()
    tensors = cross_agreement(torch.from_numpy(whole), torch.from_numpy(parts), k=k)
    np.testing.assert_array_equal(tensors, ours)


def test_equal_rows_agree_by_index() -> None:
    whole = np.ones((9, 4), dtype=np.float32)
    ours = cross_agreement(whole, np.zeros((9, 4, 2), dtype=np.float32), k=3)
    assert (ours == 1).all()


def test_bad_questions_are_refused() -> None:
    whole = np.ones((4, 3), dtype=np.float32)
    for rows, k in ((4, 0), (1, 20)):
        with pytest.raises(ValueError, match=f"k is {k} and there are {rows} rows"):
            cross_agreement(whole[:rows], whole[:rows, :, None], k=k)


@pytest.mark.parametrize("num_shards", [1, 3])
def test_pools_agree_as_arrays_do(num_shards: int, identities: Callable[..., np.ndarray]) -> None:
    whole, top, bottom = (identities(2100, 12, 40, seed=seed) for seed in range(3))
    parts = np.stack([whole[:, ::-1], top, whole + 0.02 * bottom], axis=2)
    pools = [split(np.ascontiguousarray(parts[:, :, p]), num_shards) for p in range(3)]
    found = cross_agreement(split(whole, num_shards), pools, k=7)
    np.testing.assert_array_equal(found, cross_agreement(whole, parts, k=7))
    assert (found[:, 0] == 1).all()
    assert 0 < found[:, 1].mean() < found[:, 2].mean() < 1


def test_pools_of_other_rows_are_refused() -> None:
    rows = np.ones((4, 3), dtype=np.float32)
    for parts, counts in (([], r"\[\]"), ([rows, rows[1:]], r"\[4, 3\]")):
        with pytest.raises(ValueError, match=f"parts have {counts} rows, the whole has 4"):
            cross_agreement(rows, parts)

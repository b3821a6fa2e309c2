"""Cross agreement: a published vector, kinds of input."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from reid.clustering import cross_agreement, split

Golden = Callable[[str], dict[str, np.ndarray]]


def test_published_scores(golden: Golden) -> None:
    vectors = golden("pplr_cross_agreement")
    ours = cross_agreement(
        vectors["global_features"], vectors["part_features"], k=int(vectors["k"])
    )
    np.testing.assert_allclose(ours, vectors["score"], rtol=0, atol=1e-6)


def test_tensors_are_taken() -> None:
    rng = np.random.Generator(np.random.Philox(0))
    whole, parts = rng.normal(size=(60, 12)), rng.normal(size=(60, 12, 3))
    ours = cross_agreement(torch.from_numpy(whole), torch.from_numpy(parts), k=20)
    np.testing.assert_array_equal(ours, cross_agreement(whole, parts, k=20))


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

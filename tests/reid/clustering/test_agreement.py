"""Cross agreement: a published vector, kinds of input."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from reid.clustering import cross_agreement

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

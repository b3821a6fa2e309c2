"""Retrieval scores against the definition, published vectors and invariants."""

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.metrics import average_precision_score

from reid.evaluation import retrieval, retrieval_from_distance

Golden = Callable[[str], dict[str, np.ndarray]]
Ids = dict[str, np.ndarray]


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def random_ids(rng: np.random.Generator, num_queries: int, num_gallery: int) -> Ids:
    """Ids with junk (-1), distractors (0) and queries whose identity is in no other camera."""
    query_camids = rng.integers(0, 3, num_queries)
    gallery_pids = rng.integers(-1, 7, num_gallery)
    gallery_camids = rng.integers(0, 3, num_gallery)
    query_pids = rng.integers(1, 8, num_queries)  # nobody in the gallery has pid 7
    gallery_camids[gallery_pids == 6] = 0  # pid 6 was seen by camera 0 only
    return {
        "query_pids": query_pids,
        "query_camids": query_camids,
        "gallery_pids": gallery_pids,
        "gallery_camids": gallery_camids,
    }


def definition(distance: np.ndarray, ids: Ids, max_rank: int) -> dict[str, np.ndarray]:
    """The market protocol, one query and one result at a time."""
    ap, inp, cmc = [], [], []
    for query in range(len(distance)):
        pid, camid = ids["query_pids"][query], ids["query_camids"][query]
        ranked = sorted(range(distance.shape[1]), key=lambda row: (distance[query][row], row))
        position, found, precisions, curve, last = 0, 0, [], [], 0
        for row in ranked:
            same = ids["gallery_pids"][row] == pid
            if ids["gallery_pids"][row] == -1 or (same and ids["gallery_camids"][row] == camid):
                continue
            position += 1
            if same:
                found += 1
                precisions.append(found / position)
                last = position
            curve.append(found > 0)
        if not found:
            ap.append(np.nan)
            continue
        curve += [True] * max_rank
        ap.append(sum(precisions) / found)
        inp.append(found / last)
        cmc.append(curve[:max_rank])
    return {"ap": np.array(ap), "inp": np.array(inp), "cmc": np.mean(cmc, axis=0)}


def test_published_vectors(golden: Golden) -> None:
    vectors = golden("market_protocol")
    scores = retrieval_from_distance(
        vectors["distance"],
        query_pids=vectors["query_pids"],
        query_camids=vectors["query_cams"],
        gallery_pids=vectors["gallery_pids"],
        gallery_camids=vectors["gallery_cams"],
        max_rank=len(vectors["cmc"]),
    )
    np.testing.assert_allclose(scores.ap[~np.isnan(scores.ap)], vectors["ap"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(scores.cmc, vectors["cmc"], rtol=0, atol=1e-6)
    assert scores.mAP == pytest.approx(vectors["ap"].mean(), abs=1e-6)
    assert scores.mINP == pytest.approx(vectors["inp"].mean(), abs=1e-6)
    assert scores.num_valid_queries == len(vectors["ap"])


@pytest.mark.parametrize("levels", [1, 3, 40, 10**6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_definition(levels: int, dtype: type) -> None:
    rng = generator(levels)
    ids = random_ids(rng, 60, 90)
    distance = (rng.integers(0, levels, (60, 90)) - levels // 2).astype(dtype)  # few levels: ties
    kept = distance.copy()
    expected = definition(distance, ids, 25)
    scores = retrieval_from_distance(distance, **ids, max_rank=25)
    assert 0 < np.isnan(expected["ap"]).sum() < 60
    np.testing.assert_allclose(scores.ap, expected["ap"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(scores.cmc, expected["cmc"], rtol=0, atol=1e-12)
    assert scores.mAP == pytest.approx(np.nanmean(expected["ap"]), abs=1e-12)
    assert scores.mINP == pytest.approx(expected["inp"].mean(), abs=1e-12)
    assert scores.num_valid_queries == len(expected["inp"])
    np.testing.assert_array_equal(distance, kept)


def test_average_precision_of_scikit_learn() -> None:
    rng = generator(1)
    distance = rng.random((8, 200))
    pids, gallery_pids = rng.integers(0, 5, 8), rng.integers(0, 5, 200)
    scores = retrieval_from_distance(
        distance,
        query_pids=pids,
        query_camids=np.full(8, -1),
        gallery_pids=gallery_pids,
        gallery_camids=np.zeros(200, dtype=np.int64),
    )
    expected = [
        average_precision_score(gallery_pids == pid, -row)
        for pid, row in zip(pids, distance, strict=True)
    ]
    np.testing.assert_allclose(scores.ap, expected, rtol=0, atol=1e-12)


def features_and_ids(seed: int) -> tuple[torch.Tensor, torch.Tensor, Ids]:
    rng = generator(seed)
    ids = random_ids(rng, 50, 120)
    centers = rng.normal(size=(9, 16))
    query = centers[ids["query_pids"]] + rng.normal(size=(50, 16))
    gallery = centers[ids["gallery_pids"]] + rng.normal(size=(120, 16))
    return torch.from_numpy(query).float(), torch.from_numpy(gallery).float(), ids


def test_features_give_the_scores_of_their_l2_distances() -> None:
    query, gallery, ids = features_and_ids(2)
    from_features = retrieval(query, gallery, **ids, max_rank=20)
    from_distance = retrieval_from_distance(cdist(query.numpy(), gallery.numpy()), **ids)
    np.testing.assert_array_equal(from_features.ap, from_distance.ap)
    np.testing.assert_array_equal(from_features.cmc, from_distance.cmc)
    assert from_features.mINP == from_distance.mINP


@pytest.mark.parametrize("convert", [torch.Tensor.numpy, torch.Tensor.double])
def test_arrays_and_tensors_are_alike(convert: Callable[[torch.Tensor], object]) -> None:
    query, gallery, ids = features_and_ids(3)
    expected = retrieval(query, gallery, **ids)
    tensor_ids = {name: torch.from_numpy(values) for name, values in ids.items()}
    scores = retrieval(convert(query), convert(gallery), **tensor_ids)
    np.testing.assert_array_equal(scores.ap, expected.ap)


def test_features_with_gradients_are_scored() -> None:
    query, gallery, ids = features_and_ids(3)
    expected = retrieval(query, gallery, **ids)
    scores = retrieval(query.requires_grad_(), gallery.requires_grad_(), **ids)
    np.testing.assert_array_equal(scores.ap, expected.ap)


@pytest.mark.parametrize("memory_budget", [1, 4 * 120 * 7])
def test_tile_size_changes_nothing(memory_budget: int) -> None:
    query, gallery, ids = features_and_ids(4)
    whole = retrieval(query, gallery, **ids)
    tiled = retrieval(query, gallery, **ids, memory_budget=memory_budget)
    np.testing.assert_array_equal(tiled.ap, whole.ap)
    np.testing.assert_array_equal(tiled.cmc, whole.cmc)
    assert tiled.mINP == whole.mINP


def test_compared_block_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery, ids = features_and_ids(4)
    whole = retrieval(query, gallery, **ids)
    monkeypatch.setattr(sys.modules["reid.evaluation.retrieval"], "CACHED", 300)
    np.testing.assert_array_equal(retrieval(query, gallery, **ids).ap, whole.ap)


def test_gallery_order_changes_nothing_without_ties() -> None:
    query, gallery, ids = features_and_ids(5)
    order = generator(6).permutation(len(gallery))
    shuffled = {**ids, **{f"gallery_{x}": ids[f"gallery_{x}"][order] for x in ("pids", "camids")}}
    scores, expected = (
        retrieval(query, gallery[order], **shuffled),
        retrieval(query, gallery, **ids),
    )
    np.testing.assert_array_equal(scores.ap, expected.ap)
    np.testing.assert_array_equal(scores.cmc, expected.cmc)


@pytest.mark.parametrize("ranks", [(1, 2, 3), (8, 9, 10), (2, 5, 9)])
def test_closed_form(ranks: tuple[int, ...]) -> None:
    """Matches at `ranks` of 10: AP = mean of j / r_j, INP = n / r_n, CMC a step at r_1."""
    gallery_pids = np.full(10, 0)
    gallery_pids[[rank - 1 for rank in ranks]] = 1
    scores = retrieval_from_distance(
        np.arange(10.0)[None],
        query_pids=np.array([1]),
        query_camids=np.array([0]),
        gallery_pids=gallery_pids,
        gallery_camids=np.ones(10, dtype=np.int64),
        max_rank=12,  # longer than the gallery
    )
    assert scores.mAP == pytest.approx(np.mean([(j + 1) / rank for j, rank in enumerate(ranks)]))
    assert scores.mINP == pytest.approx(3 / ranks[-1])
    assert scores.cmc.tolist() == [float(k >= ranks[0]) for k in range(1, 13)]


def test_data_without_cameras() -> None:
    ids = {
        "query_pids": np.array([1, 2]),
        "gallery_pids": np.array([2, 1, -1]),
        "gallery_camids": np.zeros(3, dtype=np.int64),
    }
    distance = np.array([[0.0, 1.0, -1.0], [0.0, 1.0, -1.0]])
    with pytest.raises(ValueError, match="without cameras pass query_camids of -1"):
        retrieval_from_distance(distance, **ids, query_camids=np.zeros(2, dtype=np.int64))
    scores = retrieval_from_distance(distance, **ids, query_camids=np.full(2, -1))
    assert scores.ap.tolist() == [0.5, 1.0]


def test_errors() -> None:
    query, gallery, ids = features_and_ids(7)
    with pytest.raises(ValueError, match="'sysu' is not implemented"):
        retrieval_from_distance(torch.cdist(query, gallery), **ids, protocol="sysu")
    with pytest.raises(ValueError, match="max_rank=0"):
        retrieval(query, gallery, **ids, max_rank=0)
    with pytest.raises(ValueError, match="not finite"):
        retrieval(query, gallery.index_fill(0, torch.tensor([3]), torch.nan), **ids)
    with pytest.raises(ValueError, match="none of 50 queries"):
        retrieval(query, gallery, **{**ids, "gallery_pids": np.full(120, -1)})

"""Jaccard distances: published vectors, the textbook's dense way, and sameness over shards."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from reid.clustering import camera_jaccard_distance, jaccard_distance, split

Golden = Callable[[str], dict[str, np.ndarray]]
SHARDS = [2, 3, 8, 16]


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def identities(num_rows: int, num_features: int, num_groups: int, *, seed: int) -> np.ndarray:
    """Return unit rows in overlapping groups, as features of a network are."""
    rng = generator(seed)
    means = rng.normal(size=(num_groups, num_features))
    rows = means[rng.integers(num_groups, size=num_rows)]
    rows = rows + 0.8 * rng.normal(size=rows.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def with_ties(num_rows: int, *, seed: int) -> np.ndarray:
    """Return whole numbers: many equal distances and equal rows, all of them exact."""
    return generator(seed).integers(-1, 2, size=(num_rows, 4)).astype(np.float32)


def dense(distance: sparse.csr_array) -> np.ndarray:
    """Return all distances, 1 where none is stored."""
    full = np.ones(distance.shape, dtype=np.float64)
    entries = distance.tocoo()
    full[entries.row, entries.col] = entries.data
    return full


def assert_same(ours: sparse.csr_array, expected: sparse.csr_array) -> None:
    np.testing.assert_array_equal(ours.indptr, expected.indptr)
    np.testing.assert_array_equal(ours.indices, expected.indices)
    np.testing.assert_array_equal(ours.data, expected.data)


# The textbook, one row and one neighbour at a time.


def squared(features: np.ndarray) -> np.ndarray:
    wide = features.astype(np.float64)
    return ((wide[:, None] - wide) ** 2).sum(axis=2)


def ranks(distance: np.ndarray, allowed: np.ndarray) -> list[list[int]]:
    """Return each row's allowed rows, itself first, then nearest first, ties by index."""
    rounded = distance.astype(np.float32)
    return [
        sorted(np.flatnonzero(allowed[i]), key=lambda j, i=i: (j != i, rounded[i, j], j))
        for i in range(len(distance))
    ]


def reciprocal(lists: list[list[int]], i: int, k: int) -> set[int]:
    return {j for j in lists[i][:k] if i in lists[j][:k]}


def encode(distance: np.ndarray, sets: list[set[int]]) -> np.ndarray:
    weights = np.zeros(distance.shape)
    for i, members in enumerate(sets):
        chosen = sorted(members)
        weights[i, chosen] = np.exp(-distance[i, chosen])
    return weights / weights.sum(axis=1, keepdims=True)


def jaccard(encoded: np.ndarray) -> np.ndarray:
    shared = np.stack([np.minimum(row, encoded).sum(axis=1) for row in encoded])
    return 1 - shared / (2 - shared)


def textbook(features: np.ndarray, k1: int, k2: int, definition: str) -> np.ndarray:
    distance = squared(features)
    lists = ranks(distance, np.ones(distance.shape, dtype=bool))
    width = k1 if definition == "spcl" else k1 + 1
    half = min(int(np.around(k1 / 2)) + 1, width)
    sets = []
    for i in range(len(features)):
        core = reciprocal(lists, i, width)
        grown = set(core)
        for c in core:
            others = reciprocal(lists, c, half)
            if len(others & core) > 2 / 3 * len(others):
                grown |= others
        sets.append(grown)
    if definition != "spcl":
        largest = distance.max(axis=1, keepdims=True)
        distance = distance / np.where(largest > 0, largest, 1)
        distance = distance**2 if definition == "torchreid" else distance
    encoded = encode(distance, sets)
    return jaccard(np.stack([encoded[row[:k2]].mean(axis=0) for row in lists]))


def camera_textbook(
    features: np.ndarray, camid: np.ndarray, k1: tuple[int, int], k2: tuple[int, int]
) -> np.ndarray:
    distance = squared(features)
    same = camid[:, None] == camid
    intra, inter = ranks(distance, same), ranks(distance, ~same)
    sets = [
        reciprocal(intra, i, k1[0] + 1) | reciprocal(inter, i, k1[1] + 1)
        for i in range(len(features))
    ]
    encoded = encode(distance, sets)
    near = [a[: k2[0]] + b[: k2[1]] for a, b in zip(intra, inter, strict=True)]
    return jaccard(np.stack([encoded[rows].mean(axis=0) for rows in near]))


@pytest.mark.parametrize("name", ["jaccard_a", "jaccard_b", "jaccard_c"])
def test_published_distances(name: str, golden: Golden) -> None:
    vectors = golden(name)
    ours = jaccard_distance(vectors["features"], k1=int(vectors["k1"]), k2=int(vectors["k2"]))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(dense(ours), vectors["distance"], rtol=0, atol=2e-6)


def test_published_reranking(golden: Golden) -> None:
    vectors = golden("rerank_k_reciprocal")
    features = np.concatenate([vectors["query"], vectors["gallery"]])
    ours = jaccard_distance(
        features, k1=int(vectors["k1"]), k2=int(vectors["k2"]), definition="torchreid"
    )
    original = squared(features) ** 2
    original /= original.max(axis=1, keepdims=True)
    weight = float(vectors["lambda_value"])
    mixed = (1 - weight) * dense(ours) + weight * original
    num_queries = len(vectors["query"])
    np.testing.assert_allclose(
        mixed[:num_queries, num_queries:], vectors["distance"], rtol=0, atol=2e-6
    )


@pytest.mark.parametrize("definition", ["spcl", "zhong", "torchreid"])
@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (5, 2), (15, 6), (30, 30), (90, 4)])
def test_the_textbook(definition: Any, k1: int, k2: int) -> None:
    for features in (
        identities(150, 16, 12, seed=k1),
        3 * identities(70, 5, 12, seed=k2),
        with_ties(130, seed=k1),
    ):
        ours = dense(jaccard_distance(features, k1=k1, k2=k2, definition=definition))
        expected = textbook(features, k1, k2, definition)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("k1", "k2"), [((5, 20), (2, 4)), ((1, 1), (1, 0)), ((30, 60), (3, 3))])
def test_the_camera_textbook(k1: tuple[int, int], k2: tuple[int, int]) -> None:
    for features in (identities(150, 16, 12, seed=1), with_ties(90, seed=2)):
        camid = generator(3).integers(5, size=len(features))
        camid[7] = 99  # a camera of one image
        ours = camera_jaccard_distance(
            features,
            camid,
            k1_intra=k1[0],
            k1_inter=k1[1],
            k2_intra=k2[0],
            k2_inter=k2[1],
        )
        expected = camera_textbook(features, camid, k1, k2)
        np.testing.assert_allclose(dense(ours), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("num_rows", [1, 2, 3, 7])
def test_fewer_rows_than_neighbours(num_rows: int) -> None:
    for features in (identities(num_rows, 4, 2, seed=4), np.zeros((num_rows, 4))):
        expected = textbook(np.asarray(features, dtype=np.float32), 30, 6, "spcl")
        np.testing.assert_allclose(dense(jaccard_distance(features)), expected, atol=2e-6)
        camid = np.zeros(num_rows, dtype=np.int64)
        alone = camera_jaccard_distance(features, camid)
        assert alone.shape == (num_rows, num_rows)


def test_equal_rows_are_at_no_distance_and_stored() -> None:
    features = identities(400, 16, 30, seed=5)
    features[350:] = features[:50]
    ours = jaccard_distance(features, k1=10)
    entries = ours.tocoo()
    stored = set(zip(entries.row, entries.col, strict=True))
    assert all((i, i) in stored for i in range(400))
    assert all((i, 350 + i) in stored for i in range(50))
    assert (ours.diagonal() == 0).all()
    assert (dense(ours)[np.arange(50), np.arange(350, 400)] < 0.5).all()


@pytest.mark.parametrize("definition", ["spcl", "zhong"])
def test_what_is_stored(definition: Any) -> None:
    features = identities(600, 16, 30, seed=6)
    full = jaccard_distance(features, definition=definition)
    assert full.has_canonical_format
    assert (full.data >= 0).all()
    assert (full.data < 1).all()
    assert_same(full.T.tocsr(), full)  # bit for bit
    entries = full.tocoo()
    for limit in (0.3, 0.62):
        part = jaccard_distance(features, max_distance=limit, definition=definition).tocoo()
        kept = full.data < np.float32(limit)
        np.testing.assert_array_equal(part.row, entries.row[kept])
        np.testing.assert_array_equal(part.col, entries.col[kept])
        np.testing.assert_array_equal(part.data, entries.data[kept])


def test_rows_in_another_order_have_the_same_distances() -> None:
    features = identities(500, 16, 30, seed=7)
    order = generator(8).permutation(500)
    expected = dense(jaccard_distance(features, k1=12))[np.ix_(order, order)]
    np.testing.assert_allclose(dense(jaccard_distance(features[order], k1=12)), expected, atol=1e-6)


@pytest.mark.parametrize("num_shards", SHARDS)
def test_the_same_bits_for_any_number_of_shards(num_shards: int) -> None:
    features = identities(2500, 16, 90, seed=9)
    features[-70:] = features[:70]
    camid = generator(10).integers(6, size=2500)
    pool = split(features, num_shards)
    for options in ({}, {"definition": "zhong", "k1": 20, "max_distance": 0.7}):
        assert_same(jaccard_distance(pool, **options), jaccard_distance(features, **options))
    assert_same(camera_jaccard_distance(pool, camid), camera_jaccard_distance(features, camid))


def test_features_far_apart_keep_to_themselves() -> None:
    features = 1e4 * identities(200, 16, 20, seed=11)
    ours = jaccard_distance(features, k1=6, k2=1)
    np.testing.assert_array_equal(ours.toarray(), np.zeros((200, 200)))
    assert ours.nnz == 200


def test_bad_questions_are_refused() -> None:
    features = identities(30, 4, 5, seed=12)
    camid = np.zeros(30, dtype=np.int64)
    for k1, k2 in ((0, 0), (5, 6), (5, 0)):
        with pytest.raises(ValueError, match=f"k1 is {k1} and k2 is {k2}: choose"):
            jaccard_distance(features, k1=k1, k2=k2)
    for limit in (0.0, 1.5, np.nan):
        with pytest.raises(ValueError, match="max_distance is"):
            jaccard_distance(features, max_distance=limit)
    with pytest.raises(ValueError, match="no rows"):
        jaccard_distance(features[:0])
    with pytest.raises(ValueError, match="29 cameras for 30 rows"):
        camera_jaccard_distance(features, camid[1:])
    with pytest.raises(ValueError, match="must be 1 at least"):
        camera_jaccard_distance(features, camid, k1_intra=0)

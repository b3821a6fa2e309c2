"""Jaccard distances of any small table: the textbook's dense way, and one answer for all shards."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from reid.clustering import camera_jaccard_distance, jaccard_distance, split
from tests.reid.clustering.references import dense, squared
from tests.reid.clustering.strategies import answers, features, one_pool, tables, two_pools

pytestmark = pytest.mark.usefixtures("small_blocks")

definitions = st.sampled_from(["spcl", "zhong", "torchreid"])
k1s, k2s = st.integers(1, 30), st.integers(1, 6)


def assert_same(ours: sparse.csr_array, expected: sparse.csr_array) -> None:
    np.testing.assert_array_equal(ours.indptr, expected.indptr)
    np.testing.assert_array_equal(ours.indices, expected.indices)
    np.testing.assert_array_equal(ours.data, expected.data)


# The textbook, one row and one neighbour at a time.


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


def textbook(rows: np.ndarray, k1: int, k2: int, definition: str) -> np.ndarray:
    distance = squared(rows)
    lists = ranks(distance, np.ones(distance.shape, dtype=bool))
    width = k1 if definition == "spcl" else k1 + 1
    half = min(int(np.around(k1 / 2)) + 1, width)
    sets = []
    for i in range(len(rows)):
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
    rows: np.ndarray, camid: np.ndarray, k1: tuple[int, int], k2: tuple[int, int]
) -> np.ndarray:
    distance = squared(rows)
    same = camid[:, None] == camid
    intra, inter = ranks(distance, same), ranks(distance, ~same)
    sets = [
        reciprocal(intra, i, k1[0] + 1) | reciprocal(inter, i, k1[1] + 1) for i in range(len(rows))
    ]
    encoded = encode(distance, sets)
    near = [a[: k2[0]] + b[: k2[1]] for a, b in zip(intra, inter, strict=True)]
    return jaccard(np.stack([encoded[rows].mean(axis=0) for rows in near]))


@settings(max_examples=100)
@given(
    rows=st.one_of(tables(max_rows=40), features(max_rows=40)),
    shards=one_pool,
    k1=k1s,
    k2=k2s,
    definition=definitions,
)
def test_the_textbook(
    rows: np.ndarray, shards: tuple[int], k1: int, k2: int, definition: Any
) -> None:
    k2 = min(k1, k2)
    ours = jaccard_distance(split(rows, *shards), k1=k1, k2=k2, definition=definition)
    expected = textbook(rows, k1, k2, definition)
    np.testing.assert_allclose(dense(ours), expected, rtol=0, atol=2e-6)


@settings(max_examples=60)
@given(
    rows=tables(max_rows=40),
    shards=one_pool,
    intra=st.tuples(st.integers(1, 6), st.integers(1, 3)).filter(lambda k: k[1] <= k[0]),
    inter=st.tuples(st.integers(1, 30), st.integers(0, 4)).filter(lambda k: k[1] <= k[0]),
    data=st.data(),
)
def test_the_camera_textbook(
    rows: np.ndarray,
    shards: tuple[int],
    intra: tuple[int, int],
    inter: tuple[int, int],
    data: st.DataObject,
) -> None:
    camid = data.draw(arrays(np.int64, len(rows), elements=st.sampled_from([0, 0, 7, -2])))
    ours = camera_jaccard_distance(
        split(rows, *shards),
        camid,
        k1_intra=intra[0],
        k1_inter=inter[0],
        k2_intra=intra[1],
        k2_inter=inter[1],
    )
    expected = camera_textbook(rows, camid, (intra[0], inter[0]), (intra[1], inter[1]))
    np.testing.assert_allclose(dense(ours), expected, rtol=0, atol=2e-6)


@settings(max_examples=40)
@given(
    rows=st.one_of(tables(), features()),
    shards=two_pools,
    k1=k1s,
    k2=k2s,
    definition=definitions,
    limit=st.sampled_from([0.01, 0.3, 0.5, 0.62, 1.0]),
)
def test_the_same_bits_for_any_number_of_shards_and_what_is_stored(
    rows: np.ndarray, shards: tuple[int, int], k1: int, k2: int, definition: Any, limit: float
) -> None:
    options = {"k1": k1, "k2": min(k1, k2), "definition": definition}
    full, other = answers(rows, shards, lambda pool: jaccard_distance(pool, **options))
    assert_same(other, full)
    assert full.dtype == np.float32
    assert full.has_canonical_format
    assert_same(full.T.tocsr(), full)  # bit for bit
    entries = full.tocoo()
    assert (full.data >= 0).all()
    assert (full.data[entries.row != entries.col] < 1).all()
    assert np.count_nonzero(entries.row == entries.col) == len(rows)  # stored zeros
    assert (full.diagonal() == 0).all()
    part = jaccard_distance(split(rows, shards[1]), max_distance=limit, **options).tocoo()
    kept = full.data < np.float32(limit)
    np.testing.assert_array_equal(part.row, entries.row[kept])
    np.testing.assert_array_equal(part.col, entries.col[kept])
    np.testing.assert_array_equal(part.data, entries.data[kept])


@settings(max_examples=20)
@given(rows=tables(), shards=two_pools, data=st.data())
def test_cameras_have_the_same_bits_for_any_number_of_shards(
    rows: np.ndarray, shards: tuple[int, int], data: st.DataObject
) -> None:
    camid = data.draw(arrays(np.int64, len(rows), elements=st.integers(0, 2)))
    ours, other = answers(rows, shards, lambda pool: camera_jaccard_distance(pool, camid))
    assert_same(other, ours)


@settings(max_examples=40)
@given(rows=features(equal=False), k1=k1s, k2=k2s, definition=definitions, data=st.data())
def test_rows_in_another_order_have_the_same_distances(
    rows: np.ndarray, k1: int, k2: int, definition: Any, data: st.DataObject
) -> None:
    # Of rows without ties: those are ordered by index.
    order = np.array(data.draw(st.permutations(range(len(rows)))))
    camid = data.draw(arrays(np.int64, len(rows), elements=st.integers(0, 2)))
    options = {"k1": k1, "k2": min(k1, k2), "definition": definition}
    expected = dense(jaccard_distance(rows, **options))[np.ix_(order, order)]
    ours = dense(jaccard_distance(rows[order], **options))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)
    expected = dense(camera_jaccard_distance(rows, camid))[np.ix_(order, order)]
    ours = dense(camera_jaccard_distance(rows[order], camid[order]))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)

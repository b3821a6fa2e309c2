"""Exact neighbours on any small table: brute force, and one answer for all shards."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from reid.clustering import cross_agreement, nearest_neighbors, split
from reid.clustering.listing import Neighbors, Wanted
from reid.clustering.neighbor_candidates import ALL, OTHER, SAME
from reid.clustering.search import search
from tests.reid.clustering.references import squared
from tests.reid.clustering.strategies import features, one_pool, tables, two_pools

pytestmark = pytest.mark.usefixtures("small_blocks")

# So many equal rows are more candidates than a short list holds.
crowds = tables(min_rows=50, max_rows=64, max_features=2, kinds=2)


def brute(rows: np.ndarray, wanted: Wanted, camid: np.ndarray) -> Neighbors:
    """Return the list by sorting all distances, ties by index, the row itself first."""
    distance = squared(rows)
    same = camid[:, None] == camid
    if wanted.cameras != ALL:
        distance[same if wanted.cameras == OTHER else ~same] = np.inf
    if wanted.cameras != OTHER:
        np.fill_diagonal(distance, -1)
    indices = np.argsort(distance, axis=1, kind="stable")[:, : wanted.k]
    found = np.take_along_axis(distance, indices, axis=1)
    return Neighbors(
        distances=np.maximum(found, 0).astype(np.float32),
        indices=np.where(np.isinf(found), -1, indices),
    )


def assert_same(ours: Neighbors, expected: Neighbors) -> None:
    np.testing.assert_array_equal(ours.indices, expected.indices)
    np.testing.assert_array_equal(ours.distances, expected.distances)


@settings(max_examples=50)
@given(rows=st.one_of(tables(), crowds), shards=one_pool, data=st.data())
def test_neighbours_are_those_of_brute_force(
    rows: np.ndarray, shards: tuple[int], data: st.DataObject
) -> None:
    size = len(rows)
    k = data.draw(st.one_of(st.integers(1, min(6, size)), st.integers(1, size)))
    ours = nearest_neighbors(split(rows, *shards), k)
    assert_same(ours, brute(rows, Wanted(k=k), np.zeros(size)))


@settings(max_examples=60)
@given(rows=tables(), shards=one_pool, data=st.data())
def test_lists_by_camera_and_farthest_rows_are_those_of_brute_force(
    rows: np.ndarray, shards: tuple[int], data: st.DataObject
) -> None:
    size = len(rows)
    camid = data.draw(arrays(np.int64, size, elements=st.sampled_from([-5, 0, 3, 10**12])))
    one = st.builds(Wanted, k=st.integers(1, size), cameras=st.sampled_from([ALL, SAME, OTHER]))
    wanted = data.draw(st.lists(one, min_size=1, max_size=3))
    found = search(split(rows, *shards), wanted, camid=camid, farthest=True)
    for ours, asked in zip(found.lists, wanted, strict=True):
        assert_same(ours, brute(rows, asked, camid))
    np.testing.assert_array_equal(found.farthest, squared(rows).max(axis=1).astype(np.float32))


@settings(max_examples=40)
@given(rows=st.one_of(features(), tables()), shards=two_pools, data=st.data())
def test_another_order_of_rows_has_the_same_distances(
    rows: np.ndarray, shards: tuple[int, int], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(rows)))
    order = np.array(data.draw(st.permutations(range(len(rows)))))
    ours = nearest_neighbors(split(rows, shards[0]), k)
    permuted = nearest_neighbors(split(rows[order], shards[1]), k)
    np.testing.assert_array_equal(permuted.distances, ours.distances[order])
    ties = np.sort(squared(rows), axis=1)[:, 1:]  # the row itself left out
    if (np.diff(ties, axis=1) > 0).all():
        np.testing.assert_array_equal(order[permuted.indices], ours.indices[order])


@settings(max_examples=40)
@given(
    rows=tables(min_rows=2),
    shards=one_pool,
    k=st.integers(1, 30),
    num_parts=st.integers(1, 3),
    data=st.data(),
)
def test_cross_agreement_is_that_of_sets(
    rows: np.ndarray, shards: tuple[int], k: int, num_parts: int, data: st.DataObject
) -> None:
    change = data.draw(arrays(np.int8, (*rows.shape, num_parts), elements=st.integers(-1, 1)))
    parts = rows[:, :, None] + change * np.abs(rows).max()

    def nearest(table: np.ndarray, row: int) -> set[int]:
        distance = squared(table)[row]
        distance[row] = np.inf
        return set(np.argsort(distance, kind="stable")[: min(k, len(table) - 1)].tolist())

    pools = [split(parts[:, :, part], *shards) for part in range(num_parts)]
    ours = cross_agreement(split(rows, *shards), pools, k=k)
    assert ours.shape == (len(rows), num_parts)
    for row in range(len(rows)):
        whole = nearest(rows, row)
        for part in range(num_parts):
            other = nearest(parts[:, :, part], row)
            expected = len(whole & other) / len(whole | other)
            assert ours[row, part] == pytest.approx(expected, rel=1e-15)

"""Batches as functions of (labels, seed, round, step, rank, world)."""

import numpy as np
import pytest

from reid.data.samplers import list_rows, pk_index, pk_rows, random_rows

P, K = 6, 4
BATCH = {"num_identities": P, "num_instances": K, "seed": 3, "round": 1}


def table(num_identities=20, seed=0):
    """Return (labels, camid), shuffled: identities of 1-12 images on 1-4 cameras, 15 outliers."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 13, num_identities)
    labels = np.concatenate([np.repeat(np.arange(num_identities), sizes), np.full(15, -1)])
    camid = rng.integers(0, 1 + labels % 4)
    order = rng.permutation(len(labels))
    return labels[order].astype(np.int64), camid[order].astype(np.int64)


def test_each_identity_gives_exactly_k_images_of_its_own():
    labels, camid = table()
    index = pk_index(labels, camid)
    for step in range(30):
        drawn = labels[pk_rows(index, step=step, **BATCH)].reshape(P, K)
        assert (drawn >= 0).all()
        assert (drawn == drawn[:, :1]).all()
        assert len(set(drawn[:, 0])) == P


def test_a_pass_names_every_identity_at_most_once():
    labels, camid = table(num_identities=20)
    index = pk_index(labels, camid)
    orders = []
    for first in (0, 3, 6):  # 20 // 6 batches make a pass
        steps = [labels[pk_rows(index, step=first + i, **BATCH)][::K] for i in range(3)]
        orders.append(np.concatenate(steps))
        assert len(set(orders[-1])) == 18
    assert not np.array_equal(orders[0], orders[1])


def test_all_identities_and_images_are_reached():
    labels, camid = table()
    index = pk_index(labels, camid)
    seen = {row for step in range(800) for row in pk_rows(index, step=step, **BATCH)}
    assert seen == set(np.flatnonzero(labels >= 0))


def test_companions_follow_the_rule_of_the_multiple_gallery_sampler():
    labels, camid = table(num_identities=40, seed=1)
    index = pk_index(labels, camid)
    cases = set()
    for step in range(100):
        for rows in pk_rows(index, step=step, **BATCH).reshape(P, K):
            anchor, companions = rows[0], rows[1:]
            own = labels == labels[anchor]
            elsewhere = own & (camid != camid[anchor])
            beside = own & (np.arange(len(labels)) != anchor)
            allowed = elsewhere if elsewhere.any() else beside if beside.any() else own
            assert allowed[companions].all()
            if allowed.sum() >= K - 1:
                assert len(set(companions)) == K - 1
            cases.add((bool(elsewhere.any()), bool(beside.any()), bool(allowed.sum() >= K - 1)))
    assert cases == {
        (True, True, True),
        (True, True, False),
        (False, True, True),
        (False, True, False),
        (False, False, False),
    }


def test_anchors_and_companions_are_uniform():
    labels = np.repeat(np.arange(2), 7)
    camid = np.tile([0, 0, 1, 1, 1, 1, 1], 2)
    index = pk_index(labels, camid)
    draws = np.stack(
        [
            pk_rows(index, num_identities=2, num_instances=4, seed=0, round=0, step=step)
            for step in range(3500)
        ]
    ).reshape(-1, 4)
    draws = draws[draws[:, 0] < 7]
    anchors = np.bincount(draws[:, 0], minlength=7)
    np.testing.assert_allclose(anchors, 500, atol=5 * np.sqrt(500))
    triples = draws[draws[:, 0] < 2][:, 1:]  # 3 of the 5 images of the other camera: 10 subsets
    _, counts = np.unique(np.sort(triples, axis=1), axis=0, return_counts=True)
    assert len(counts) == 10
    np.testing.assert_allclose(counts, counts.mean(), atol=5 * np.sqrt(counts.mean()))


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_ranks_take_whole_identities_of_the_same_batch(world):
    labels, camid = table()
    index = pk_index(labels, camid)
    for step in (0, 1, 50):
        alone = pk_rows(index, step=step, **BATCH)
        parts = [pk_rows(index, step=step, rank=r, world=world, **BATCH) for r in range(world)]
        np.testing.assert_array_equal(np.concatenate(parts), alone)
        sets = [set(labels[part]) for part in parts]
        assert sum(map(len, sets)) == len(set.union(*sets))


def test_fewer_identities_than_the_batch_repeat_in_turn():
    labels = np.repeat(np.arange(4), 5)
    index = pk_index(labels, np.zeros(20, dtype=np.int64))
    rows = pk_rows(index, num_identities=10, num_instances=3, seed=0, round=0, step=9)
    counts = np.bincount(labels[rows])
    assert sorted(counts) == [6, 6, 9, 9]


def test_a_lone_image_repeats():
    labels = np.array([0, 1, -1], dtype=np.int64)
    index = pk_index(labels, np.zeros(3, dtype=np.int64))
    rows = pk_rows(index, num_identities=2, num_instances=4, seed=0, round=0, step=0)
    assert sorted(rows) == [0, 0, 0, 0, 1, 1, 1, 1]


def test_one_instance_per_identity():
    labels, camid = table()
    rows = pk_rows(
        pk_index(labels, camid), num_identities=P, num_instances=1, seed=0, round=0, step=2
    )
    assert len(set(labels[rows])) == P


def test_step_round_seed_and_stream_each_change_the_batch():
    labels, camid = table()
    index = pk_index(labels, camid)
    base = {**BATCH, "step": 1, "stream": 0}
    first = pk_rows(index, **base)
    np.testing.assert_array_equal(pk_rows(pk_index(labels, camid), **base), first)
    for name in ("seed", "round", "step", "stream"):
        assert not np.array_equal(pk_rows(index, **{**base, name: 2}), first), name


def test_impossible_requests_say_why():
    labels, camid = table()
    with pytest.raises(ValueError, match="6 identities cannot be divided among 4 ranks"):
        pk_rows(pk_index(labels, camid), step=0, world=4, **BATCH)
    for usable, few in enumerate(([-1, -1], [-1, 5])):
        with pytest.raises(ValueError, match=f"{usable} usable identities"):
            pk_index(np.array(few, dtype=np.int64), np.zeros(2, dtype=np.int64))
    with pytest.raises(ValueError, match="cannot be divided among 3 ranks"):
        random_rows(100, batch_size=8, seed=0, round=0, step=0, world=3)


def test_random_rows_cover_a_pass_without_repetition():
    settings = {"batch_size": 8, "seed": 1, "round": 0}
    passes = [
        np.concatenate([random_rows(50, step=first + i, **settings) for i in range(6)])
        for first in (0, 6)
    ]
    for rows in passes:
        assert len(set(rows)) == 48
        assert rows.min() >= 0
        assert rows.max() < 50
    assert not np.array_equal(*passes)


def test_random_rows_of_ranks_make_one_batch_and_small_tables_repeat():
    settings = {"batch_size": 8, "seed": 1, "round": 0, "step": 5}
    parts = [random_rows(50, rank=rank, world=4, **settings) for rank in range(4)]
    np.testing.assert_array_equal(np.concatenate(parts), random_rows(50, **settings))
    small = random_rows(3, **settings)
    assert sorted(np.bincount(small)) == [2, 3, 3]


def _pass(labels, camid, passing=0):
    """Return the list of a pass as consecutive batches show it, without its remainder."""
    index = pk_index(labels, camid)
    images = np.bincount(labels[labels >= 0])
    steps = int(np.where(images == 1, 1, K).sum()) // (P * K)
    first = passing * steps
    return np.concatenate([list_rows(index, step=first + i, **BATCH) for i in range(steps)])


def test_a_list_names_each_identity_once_and_lone_images_once():
    labels, camid = table(num_identities=60, seed=2)
    images = np.bincount(labels[labels >= 0])
    assert (images == 1).sum() == 2
    rows = _pass(labels, camid)
    starts = np.flatnonzero(np.r_[True, np.diff(labels[rows]) != 0])
    runs = np.diff(np.r_[starts, len(rows)])
    named = labels[rows[starts]]
    assert len(set(named)) == len(named) > 40  # whole runs: no identity comes back in a pass
    expected = np.where(images[named] == 1, 1, K)
    np.testing.assert_array_equal(runs[:-1], expected[:-1])  # the last may be cut
    assert not np.array_equal(rows, _pass(labels, camid, passing=1))


def test_without_lone_images_a_list_is_of_whole_groups():
    labels, camid = np.repeat(np.arange(30), 5), np.tile(np.arange(5), 30)
    groups = labels[_pass(labels, camid)].reshape(-1, K)
    assert (groups == groups[:, :1]).all()
    assert len(set(groups[:, 0])) == len(groups)


def test_ranks_share_a_list_and_few_rows_repeat_in_turn():
    labels, camid = table(num_identities=30, seed=4)
    index = pk_index(labels, camid)
    whole = list_rows(index, step=1, **BATCH)
    parts = [list_rows(index, step=1, rank=r, world=3, **BATCH) for r in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    alone = pk_index(np.arange(5), np.zeros(5, np.int64))
    rows = list_rows(alone, step=0, **BATCH)
    assert len(rows) == P * K
    np.testing.assert_array_equal(rows[5:], rows[:-5])
    assert set(rows) == set(range(5))
    with pytest.raises(ValueError, match="6 identities cannot be divided among 4"):
        list_rows(index, step=0, world=4, **BATCH)

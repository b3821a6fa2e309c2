"""Greedy k-means++: its exact distribution, scikit-learn's potential, and sameness."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import kmeans_plusplus

from reid.clustering import codes, greedy_kmeans_plusplus, split
from reid.clustering.codes import coded_rows
from reid.clustering.seeding import _Block, greedy_seeds
from reid.clustering.shards import LocalShardPool

Make = Callable[..., np.ndarray]
SHARDS = [2, 3, 8, 16]


def potential(rows: np.ndarray, centers: np.ndarray) -> float:
    x, c = rows.astype(np.float64), centers.astype(np.float64)
    dist_sq = (x**2).sum(1)[:, None] - 2 * x @ c.T + (c**2).sum(1)
    return float(dist_sq.min(axis=1).sum())


def chances(
    dist_sq: np.ndarray, num_clusters: int, num_trials: int
) -> Iterator[tuple[tuple[int, ...], float]]:
    """Yield every sequence of seeds with its probability, by the definition of greedy k-means++."""
    size = len(dist_sq)

    def extend(chosen: tuple[int, ...], chance: float) -> Iterator[tuple[tuple[int, ...], float]]:
        if len(chosen) == num_clusters:
            yield chosen, chance
            return
        closest = dist_sq[list(chosen)].min(axis=0)
        share = closest / closest.sum()
        after = np.minimum(closest, dist_sq).sum(axis=1)
        best: Counter[int] = Counter()
        for tried in product(range(size), repeat=num_trials):
            winner = min(tried, key=lambda row: after[row])  # the first of equals
            best[winner] += np.prod(share[list(tried)])  # type: ignore[assignment]
        for winner, part in best.items():
            if part > 0:
                yield from extend((*chosen, winner), chance * part)

    for first in range(size):
        yield from extend((first,), 1 / size)


@pytest.mark.parametrize(("num_clusters", "num_trials"), [(4, 1), (3, 2)])
def test_seeds_have_the_distribution_of_the_definition(num_clusters: int, num_trials: int) -> None:
    # All but the first centre come from one block or two: the later ones by rejection.
    rows = np.array([[0, 0], [1, 0], [3, 1], [3, -2], [6, 2]], dtype=np.float32)
    dist_sq = ((rows[:, None] - rows) ** 2).sum(axis=2).astype(np.float64)
    expected = dict(chances(dist_sq, num_clusters, num_trials))
    assert sum(expected.values()) == pytest.approx(1)
    num_draws = 800
    pool = split(rows, 1)
    drawn = Counter(
        tuple(greedy_kmeans_plusplus(pool, num_clusters, seed=seed, num_trials=num_trials).tolist())
        for seed in range(num_draws)
    )
    assert drawn.keys() <= expected.keys()
    for part in (slice(1, 2), slice(-1, None), slice(-2, None)):  # of a sequence
        observed: Counter[Any] = Counter()
        wanted: Counter[Any] = Counter()
        for seeds, chance in expected.items():
            observed[seeds[part]] += drawn[seeds]
            wanted[seeds[part]] += chance * num_draws  # type: ignore[assignment]
        chi_sq = sum((observed[key] - wanted[key]) ** 2 / wanted[key] for key in wanted)
        freedom = len(wanted) - 1
        assert chi_sq < freedom + 3.5 * np.sqrt(2 * freedom)


def test_acceptance_turns_old_shares_into_new_ones() -> None:
    generator = np.random.Generator(np.random.Philox(0))
    then, now = np.array([4.0, 3, 2, 1]), np.array([4.0, 1.5, 0, 1])
    draws = generator.choice(4, p=then / then.sum(), size=30_000)
    block = _Block(
        rows=draws,
        features=np.zeros((len(draws), 1), np.float32),
        drawn=then[draws],
        now=now[draws],
        between=np.broadcast_to(np.inf, (len(draws), len(draws))),
        uniform=generator.random(len(draws)),
    )
    parts = []
    while (places := block.accept(100)) is not None:
        parts.append(places)
    found = np.concatenate(parts)
    assert (np.diff(found) > 0).all()  # each candidate once, in the order of drawing
    shares = np.bincount(draws[found], minlength=4) / len(found)
    np.testing.assert_allclose(shares, now / now.sum(), atol=0.012)
    assert block.accept(100) is None
    assert len(found) > 0.64 * len(draws)  # 6.5 / 10, less what was left over


def test_potential_is_within_half_a_percent_of_scikit_learn(identities: Make) -> None:
    features = identities(3000, 64, 120, seed=2)
    pool = split(features, 3)
    ours = [
        potential(features, features[greedy_kmeans_plusplus(pool, 60, seed=seed)])
        for seed in range(15)
    ]
    theirs = [
        potential(features, kmeans_plusplus(features, 60, random_state=seed)[0])
        for seed in range(15)
    ]
    assert np.median(ours) < 1.005 * np.median(theirs)
    assert np.median(theirs) < 1.005 * np.median(ours)
    plain = [
        potential(features, features[greedy_kmeans_plusplus(pool, 60, seed=seed, num_trials=1)])
        for seed in range(3)
    ]
    assert min(plain) > max(ours)  # the greedy choice earns its candidates


@pytest.mark.parametrize(
    ("num_rows", "num_features"),
    [(1023, 3), (1025, 64), (5000, 33), (17_000, 4)],
)
def test_the_same_seeds_for_any_number_of_shards(
    num_rows: int, num_features: int, identities: Make
) -> None:
    features = identities(num_rows, num_features, 30, seed=num_rows)
    expected = greedy_kmeans_plusplus(split(features, 1), 90, seed=4)
    for num_shards in SHARDS:
        # Rows somewhere else in memory, at another alignment
        moved = np.concatenate([np.zeros(num_shards, np.float32), features.ravel()])[num_shards:]
        pool = split(moved.reshape(features.shape), num_shards)
        seeds = greedy_kmeans_plusplus(pool, 90, seed=4)
        np.testing.assert_array_equal(seeds, expected)


def test_last_bits_of_features_move_few_seeds(identities: Make) -> None:
    features = identities(1500, 40, 30, seed=1)
    signs = np.random.Generator(np.random.Philox(2)).choice([-1, 1], size=features.shape)
    nearby = np.nextafter(features, (features + signs).astype(np.float32))
    assert (nearby != features).all()
    pools = split(features, 1), split(nearby, 1)
    same = 0.0
    for seed in range(20):
        first, second = (greedy_kmeans_plusplus(pool, 60, seed=seed) for pool in pools)
        same += np.mean(first == second) / 20
    assert same > 0.95


def test_the_same_seeds_on_another_kind_of_processor(
    identities: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = identities(1500, 40, 30, seed=0)
    expected = greedy_kmeans_plusplus(split(features, 2), 60, seed=1)
    pool = split(features, 2)
    monkeypatch.setattr(codes, "has_int8_products", lambda: False)
    seeds = greedy_kmeans_plusplus(pool, 60, seed=1)
    assert all(coded_rows(shard).form == "float32" for shard in pool.shards)
    np.testing.assert_array_equal(seeds, expected)


def test_a_centre_costs_little_more_than_one_call(identities: Make) -> None:
    class CountingPool(LocalShardPool):
        num_calls = 0

        def map(self, fn: Any, *args: Any, **kwargs: Any) -> list[Any]:
            self.num_calls += 1
            return super().map(fn, *args, **kwargs)

    shards = split(identities(3000, 8, 300, seed=0), 2).shards
    pool = CountingPool(shards, 3000, 8)
    greedy_seeds(pool, 400, seed=0)
    assert 400 < pool.num_calls < 1.25 * 400


def test_seeds_are_distinct_rows_and_depend_on_the_seed(identities: Make) -> None:
    pool = split(identities(2000, 16, 40, seed=1), 2)
    draws = [greedy_kmeans_plusplus(pool, 50, seed=seed) for seed in (0, 0, 1)]
    assert draws[0].dtype == np.int64
    assert len(np.unique(draws[0])) == 50
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


def test_equal_gains_go_to_the_first_drawn() -> None:
    # Four corners and a centre row chosen or not: all further corners gain the same.
    corners = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], dtype=np.float32)
    second = Counter(
        int(greedy_kmeans_plusplus(split(corners, 1), 2, seed=seed, num_trials=3)[1])
        for seed in range(60)
    )
    assert set(second) == {0, 1, 2, 3}  # not always the lowest row


@pytest.mark.parametrize("gap", [1e3, 1e6])
def test_groups_far_apart_all_get_a_seed(gap: float, identities: Make) -> None:
    # After the last group the squared distances fall by twelve orders of magnitude within a block.
    generator = np.random.Generator(np.random.Philox(3))
    rows = gap * np.repeat(np.eye(8)[:6], 50, axis=0) + generator.normal(size=(300, 8))
    for seed in range(5):
        seeds = greedy_kmeans_plusplus(split(rows, 1), 20, seed=seed)
        assert sorted(seeds[:6] // 50) == [0, 1, 2, 3, 4, 5]
        assert len(np.unique(seeds)) == 20


def test_distances_survive_a_large_common_offset() -> None:
    generator = np.random.Generator(np.random.Philox(3))
    corners = 4 * np.eye(8)[:6]
    features = 1000 + np.repeat(corners, 50, axis=0) + 0.1 * generator.normal(size=(300, 8))
    rows = greedy_kmeans_plusplus(split(features, 1), 6, seed=0)
    assert sorted(rows // 50) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_all_distinct_rows_are_found_and_no_more(scale: float, identities: Make) -> None:
    distinct = np.float32(scale) * (identities(37, 50, 7, seed=10) + 3)
    features = np.tile(distinct, (30, 1))
    for num_shards in (1, 2):
        seeds = greedy_kmeans_plusplus(split(features, num_shards), 37, seed=0)
        assert len(np.unique(seeds % 37)) == 37
        with pytest.raises(ValueError, match="the 1110 rows hold only 37 distinct ones"):
            greedy_kmeans_plusplus(split(features, num_shards), 38, seed=0)


def test_impossible_numbers_are_refused(identities: Make) -> None:
    pool = split(identities(1500, 6, 10, seed=9), 2)
    with pytest.raises(ValueError, match="num_clusters is 1501 and there are 1500 rows"):
        greedy_kmeans_plusplus(pool, 1501, seed=0)
    with pytest.raises(ValueError, match="num_clusters is 0 and"):
        greedy_kmeans_plusplus(pool, 0, seed=0)
    with pytest.raises(ValueError, match="num_trials is 0"):
        greedy_kmeans_plusplus(pool, 2, seed=0, num_trials=0)
    with pytest.raises(ValueError, match="num_clusters is 1 and there are 0 rows"):
        greedy_kmeans_plusplus(split(np.zeros((0, 4)), 1), 1, seed=0)

"""Warm starts: which centres stay, which are drawn again."""

from collections.abc import Callable

import numpy as np
import pytest

from reid.clustering import kmeans, split, warm_centers

Make = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def groups() -> tuple[np.ndarray, np.ndarray]:
    """Return 3000 rows in 30 clear groups, and the groups' numbers."""
    generator = np.random.Generator(np.random.Philox(0))
    means = generator.normal(size=(30, 16))
    truth = generator.integers(30, size=3000)
    rows = means[truth] + 0.3 * generator.normal(size=(3000, 16))
    return rows.astype(np.float32), truth


def means_of(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.stack([rows[labels == label].mean(axis=0) for label in range(labels.max() + 1)])


def test_good_centres_stay(groups: tuple[np.ndarray, np.ndarray]) -> None:
    rows, truth = groups
    centers = means_of(rows, truth)
    np.testing.assert_array_equal(warm_centers(split(rows, 2), centers, seed=0), centers)
    result = kmeans(split(rows, 2), 30, seed=0, init=centers)
    assert result.iterations <= 3


def test_empty_centres_are_drawn_again(groups: tuple[np.ndarray, np.ndarray]) -> None:
    rows, truth = groups
    good = means_of(rows, truth)
    centers = good.copy()
    centers[4] = 100  # nobody is near
    centers[9] = centers[2]  # equal to a lower one, which gets all rows
    cold = kmeans(split(rows, 1), 30, seed=0, init=good)
    results = [warm_centers(split(rows, shards), centers, seed=1) for shards in (1, 2, 3, 8)]
    for warm in results[1:]:
        np.testing.assert_array_equal(warm, results[0])
    stay = np.delete(np.arange(30), [4, 9])
    np.testing.assert_array_equal(results[0][stay], centers[stay])
    assert not np.isclose(results[0][[4, 9]], centers[[4, 9]]).any()
    drawn = results[0][[4, 9], None]
    assert ((drawn - rows) == 0).all(axis=2).any(axis=1).all()  # rows
    result = kmeans(split(rows, 2), 30, seed=0, init=results[0])
    assert result.inertia == pytest.approx(cold.inertia, rel=1e-3)  # the two lost groups are found


def test_merged_centres_are_drawn_again(groups: tuple[np.ndarray, np.ndarray]) -> None:
    # The last round split group 0 in two by chance and took groups 1 and 2 for one.
    rows, truth = groups
    generator = np.random.Generator(np.random.Philox(1))
    labels = truth.copy()
    labels[truth == 2] = 1
    labels[(truth == 0) & (generator.random(3000) < 0.5)] = 2
    centers = means_of(rows, labels)
    warm = warm_centers(split(rows, 2), centers, seed=0)
    changed = np.flatnonzero((warm != centers).any(axis=1))
    assert len(changed) == 1
    assert changed[0] in (0, 2)
    result = kmeans(split(rows, 2), 30, seed=0, init=warm)
    best = kmeans(split(rows, 1), 30, seed=0, init=means_of(rows, truth))
    assert result.inertia == pytest.approx(best.inertia, rel=1e-3)
    stuck = kmeans(split(rows, 2), 30, seed=0, init=centers)
    assert stuck.inertia > 1.05 * best.inertia


def test_of_merged_centres_the_one_with_more_rows_stays() -> None:
    generator = np.random.Generator(np.random.Philox(2))
    one, other = generator.normal(size=(400, 40)), 9 + generator.normal(size=(100, 40))
    rows = np.concatenate([one, other]).astype(np.float32)
    centers = np.stack([rows[:60].mean(axis=0), rows[60:400].mean(axis=0), other.mean(axis=0)])
    nearest = ((rows[:, None] - centers) ** 2).sum(axis=2).argmin(axis=1)
    sizes = np.bincount(nearest)
    warm = warm_centers(split(rows, 1), centers, seed=0)
    changed = np.flatnonzero((warm != centers.astype(np.float32)).any(axis=1))
    assert changed.tolist() == [int(sizes[:2].argmin())]


def test_a_warm_start_after_drift_saves_iterations(identities: Make) -> None:
    before = identities(4000, 24, 60, seed=3)
    generator = np.random.Generator(np.random.Philox(4))
    after = before + 0.03 * generator.normal(size=before.shape).astype(np.float32)
    last = kmeans(split(before, 1), 60, seed=0)
    pool = split(after, 2)
    centers = means_of(after, last.labels)
    warm = kmeans(pool, 60, seed=0, init=warm_centers(pool, centers, seed=0))
    cold = kmeans(pool, 60, seed=0)
    assert warm.iterations < cold.iterations
    assert warm.inertia < 1.01 * cold.inertia


def test_centres_that_do_not_fit_are_refused(identities: Make) -> None:
    pool = split(identities(100, 6, 10, seed=11), 1)
    for centers in (np.zeros((3, 5)), np.full((4, 6), np.nan)):
        with pytest.raises(ValueError, match="expected finite numbers in 6 columns"):
            warm_centers(pool, centers, seed=0)
    with pytest.raises(ValueError, match="num_clusters is 101"):
        warm_centers(pool, np.zeros((101, 6)), seed=0)
    equal = split(np.ones((50, 6)), 1)
    with pytest.raises(ValueError, match="the 50 rows hold only 1 distinct ones"):
        warm_centers(equal, np.ones((3, 6)), seed=0)

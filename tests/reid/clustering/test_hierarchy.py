"""Two-level k-means: against one level, by hand, and sameness over shards."""

from collections.abc import Callable

import numpy as np
import pytest

from reid.clustering import hierarchical_kmeans, kmeans, nearest_centers, split
from reid.clustering.hierarchy import shares_of

Make = Callable[..., np.ndarray]


def test_the_same_bits_for_any_number_of_shards(identities: Make) -> None:
    features = identities(4200, 10, 60, seed=0)
    options = {"seed": 3, "flat_clusters": 10, "max_iterations": 10}
    expected = hierarchical_kmeans(split(features, 1), 60, **options)
    assert expected.centers.shape == (60, 10)
    np.testing.assert_array_equal(np.unique(expected.labels), np.arange(60))
    for num_shards in (2, 3, 8):
        result = hierarchical_kmeans(split(features, num_shards), 60, **options)
        np.testing.assert_array_equal(result.centers, expected.centers)
        np.testing.assert_array_equal(result.labels, expected.labels)
        assert result.inertia == expected.inertia


def test_nearly_as_good_as_one_level(identities: Make) -> None:
    features = identities(4000, 24, 120, seed=2)
    flat = kmeans(split(features, 1), 100, seed=0)
    options = {"seed": 0, "flat_clusters": 99}
    cut = hierarchical_kmeans(split(features, 2), 100, **options, flat_iterations=0)
    mended = hierarchical_kmeans(split(features, 2), 100, **options, flat_iterations=2)
    assert mended.inertia < 1.04 * flat.inertia
    assert mended.inertia < cut.inertia
    assert mended.iterations == cut.iterations + 2
    np.testing.assert_array_equal(mended.labels, nearest_centers(features, mended.centers))


def test_few_clusters_are_made_on_one_level(identities: Make) -> None:
    features = identities(1500, 8, 20, seed=3)
    expected = kmeans(split(features, 1), 20, seed=5, max_iterations=4)
    result = hierarchical_kmeans(split(features, 1), 20, seed=5, max_iterations=4, flat_clusters=20)
    np.testing.assert_array_equal(result.labels, expected.labels)


def test_shares_written_down() -> None:
    assert shares_of(np.array([60, 30, 10]), 10).tolist() == [6, 3, 1]
    assert shares_of(np.array([998, 1, 1]), 5).tolist() == [3, 1, 1]
    assert shares_of(np.array([5, 5, 5]), 7).tolist() == [3, 2, 2]


def test_equal_rows_in_a_cell_pass_their_clusters_on() -> None:
    # 900 equal rows would get most clusters; the 100 others are distinct.
    generator = np.random.Generator(np.random.Philox(1))
    rows = np.concatenate([np.zeros((900, 5)), 50 + generator.normal(size=(100, 5))])
    features = rows.astype(np.float32)
    with pytest.raises(ValueError, match="choose fewer clusters or fewer cells"):
        hierarchical_kmeans(split(features, 1), 60, seed=0, flat_clusters=0, num_cells=2)
    features[900:] = 0
    features[:900] = 50 + generator.normal(size=(900, 5))
    result = hierarchical_kmeans(split(features, 1), 60, seed=0, flat_clusters=0, num_cells=2)
    sizes = np.bincount(result.labels)
    assert len(sizes) == 60
    assert sizes.max() == 100  # the equal rows are one cluster


def test_numbers_of_cells_that_cannot_be_are_refused(identities: Make) -> None:
    pool = split(identities(100, 6, 10, seed=11), 1)
    for cells in (0, 11):
        with pytest.raises(ValueError, match=f"num_cells is {cells}"):
            hierarchical_kmeans(pool, 10, seed=0, num_cells=cells, flat_clusters=0)
    with pytest.raises(ValueError, match="num_clusters is 101"):
        hierarchical_kmeans(pool, 101, seed=0)

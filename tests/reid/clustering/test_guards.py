"""Guard rails: each names its value and a way on; what is fine passes without a word."""

import logging
from collections.abc import Sequence

import numpy as np
import pytest

from reid.clustering import BLOCK, LocalShardPool, Shard, shard_bounds, split
from reid.clustering.guards import GIANT_SHARE, check_distinct, check_features, check_labels
from reid.types import OUTLIER

Log = pytest.LogCaptureFixture


def unchecked(features: np.ndarray, num_shards: int) -> LocalShardPool:
    """Return a pool whose rows nobody looked at, as one over files."""
    bounds = shard_bounds(len(features), num_shards)
    return LocalShardPool([Shard(a, features[a:b]) for a, b in bounds], *features.shape)


def rows(num_rows: int, num_features: int = 5) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((num_rows, num_features)).astype(np.float32)


@pytest.mark.parametrize("num_shards", [1, 3, 8])
@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e30, 1.2e18])
def test_features_that_are_not_finite_are_counted(num_shards: int, value: float) -> None:
    features = rows(3 * BLOCK)
    features[[BLOCK + 7, 2 * BLOCK, 2 * BLOCK + 1], 2] = value
    message = f"^x: features of 3 of {3 * BLOCK} rows .*, row {BLOCK + 7} the first: .*checkpoint"
    with pytest.raises(ValueError, match=message):
        check_features(unchecked(features, num_shards), name="x")


@pytest.mark.parametrize("num_shards", [1, 3, 8])
def test_zero_features_are_counted(num_shards: int, caplog: Log) -> None:
    features = rows(3 * BLOCK)
    features[[BLOCK - 1, 2 * BLOCK + 5]] = 0
    check_features(split(features, num_shards), name="round 3")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    wanted = f"round 3: 2 of {3 * BLOCK} features are zero, row {BLOCK - 1} the first"
    assert record.getMessage().startswith(wanted)
    assert "leave out the empty ones" in record.getMessage()


def test_features_that_are_all_zero_are_refused() -> None:
    with pytest.raises(ValueError, match=r"all 9 features are zero: .*checkpoint"):
        check_features(split(np.zeros((9, 4)), 2), name="x")


@pytest.mark.parametrize("num_rows", [1, 100, 2 * BLOCK + 3])
def test_sound_features_pass_in_silence(num_rows: int, caplog: Log) -> None:
    check_features(split(rows(num_rows), 3), name="x")
    assert not caplog.records


@pytest.mark.parametrize("num_shards", [1, 2, 5])
def test_distinct_rows_are_counted_over_shards(num_shards: int) -> None:
    features = np.tile(rows(7), (600, 1))
    pool = split(features, num_shards)
    check_distinct(pool, 7)
    message = f"num_clusters is 8 but the {len(features)} rows hold only 7 distinct ones: .*at most"
    with pytest.raises(ValueError, match=message):
        check_distinct(pool, 8)


def test_both_zeros_are_one() -> None:
    pool = split(np.array([[0.0, 1.0], [-0.0, 1.0]]), 1)
    check_distinct(pool, 1)
    with pytest.raises(ValueError, match="only 1 distinct"):
        check_distinct(pool, 2)


def test_no_more_rows_are_read_than_it_takes() -> None:
    features = rows(2 * BLOCK)
    features[BLOCK:] = features[0]
    check_distinct(split(features, 1), BLOCK)
    with pytest.raises(ValueError, match=f"only {BLOCK} distinct"):
        check_distinct(split(features, 1), BLOCK + 1)


def check(sizes: Sequence[int], *, outliers: int = 0, num_identities: int = 2) -> None:
    """Check labels with clusters of these sizes."""
    labels = np.append(np.repeat(np.arange(len(sizes)), sizes), [OUTLIER] * outliers)
    shuffled = np.random.default_rng(0).permutation(labels).astype(np.int64)
    check_labels(shuffled, name="round 0", num_identities=num_identities)


def test_nothing_but_outliers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^round 0: all 6 images are outliers.*larger eps"):
        check([], outliers=6)


def test_one_cluster_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^round 0: one cluster holds all 6 .*more clusters"):
        check([0, 6], outliers=2)


def test_a_giant_cluster_is_a_warning(caplog: Log) -> None:
    check([60, 30, 9], outliers=500)
    (record,) = caplog.records
    message = record.getMessage()
    assert "the largest cluster holds 60 of 99 labelled images (61 %, above 50 %)" in message
    assert "cluster more finely" in message
    caplog.clear()
    check([50, 30, 20])
    assert not caplog.records, f"{GIANT_SHARE} itself is no giant"


def test_fewer_identities_than_a_batch_is_a_warning(caplog: Log) -> None:
    check([2, 2, 2, 1, 1], num_identities=4)
    (record,) = caplog.records
    message = record.getMessage()
    assert "3 of 5 clusters have two images or more and a batch draws 4 identities" in message
    assert "--num-identities" in message
    caplog.clear()
    check([2, 2, 2, 2, 1], num_identities=4)
    assert not caplog.records


def test_clusters_of_one_image_are_a_warning(caplog: Log) -> None:
    check([1] * 50)
    assert "0 of 50 clusters have two images or more" in caplog.text

"""The messaging benchmark, tiny, over real actors."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from jobs.benchmark import main
from jobs.benchmarks import messaging, timed_pool
from reid.clustering import Shard, kmeans, split


def slow(shard: Shard) -> int:
    time.sleep(0.02 if shard.start else 0.05)
    return shard.start


def test_an_exchange_is_counted_with_its_slowest_shard() -> None:
    timed = timed_pool.Timed(split(np.ones((1500, 2), np.float32), 2))
    assert timed.map(slow) == [0, 1024]
    assert timed.num_exchanges == 1
    assert 0.05 <= timed.slowest_s < timed.exchange_s
    assert timed.exchange_s >= 0.07  # here one after another


def test_a_timed_clustering_is_the_clustering() -> None:
    features = messaging.made_features(1500, 16, seed=1)
    found = timed_pool.timed_kmeans(split(features, 2), 20, seed=3)
    np.testing.assert_array_equal(found.labels, kmeans(split(features, 1), 20, seed=3).labels)
    assert found.num_exchanges > 20


@pytest.mark.ray
def test_each_number_of_actors_has_a_row(ray_cluster: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    sizes = ["--num-images", "2100", "--num-features", "16", "--num-clusters", "12"]
    main(["messaging", *sizes, "--actors", "1", "2", "--json", str(file)])
    result = json.loads(file.read_text())
    assert result["what"] == "messaging"
    rows = result["rows"]
    assert [row["actors"] for row in rows] == [1, 2]
    for row in rows:
        assert {"case", "ours_cpu_s", "peer", "peer_cpu_s", "ratio", "parity"} < set(row)
        assert row["exchanges"] > 3 * 12
        assert 0 < row["peer_messaging_s"] < row["peer_wall_s"]
        assert row["ours_cpu_s"] > 0
        assert row["parity"] == "labels equal those of one process"
    assert rows[0]["exchanges"] == rows[1]["exchanges"]
    assert 0 < rows[1]["ours_messaging_us_a_map"] < rows[1]["peer_messaging_us_a_map"]
    console = Console(width=200)
    with console.capture() as capture:
        console.print(messaging.table_of(rows))
    assert "actors: 2" in capture.get()
    assert "N=2100, d=16" in capture.get()


def test_other_labels_void_the_figures() -> None:
    pool = split(messaging.made_features(200, 8), 1)
    other = {"global": np.full(200, 7)}
    with pytest.raises(ArithmeticError, match="view global has other labels"):
        messaging._round(timed_pool.timed_kmeans, {"global": pool}, other, 4)  # type: ignore[dict-item]

"""Where a run goes."""

from pathlib import Path

import pytest

from cluster.config import ClusterConfig, named_values


def test_local_paths_are_made_absolute_for_workers_with_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    where = ClusterConfig(storage="runs", data_root="s3://bucket/data", cache=None).resolved()

    assert where.storage == str(tmp_path / "runs")
    assert where.data_root == "s3://bucket/data"
    assert where.cache is None
    assert ClusterConfig(cache="pixels").resolved().cache == str(tmp_path / "pixels")


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_workers", -1), ("num_shards", 0), ("threads_per_worker", 0), ("cache_gb", -1.0)],
)
def test_impossible_values_are_refused_by_name(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        ClusterConfig(**{field: value})


@pytest.mark.parametrize("option", ["train_labels", "pool_labels"])
def test_labels_are_name_and_value(option: str) -> None:
    values = ("role=train", "ray.io/market-type=spot")
    where = ClusterConfig(**{option: values})
    labels = named_values(getattr(where, option), option=option)
    assert labels == {"role": "train", "ray.io/market-type": "spot"}
    with pytest.raises(ValueError, match=f"{option} is 'train'; give NAME=VALUE"):
        ClusterConfig(**{option: ("role=train", "train")})

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
    [
        ("num_workers", -1),
        ("num_shards", 0),
        ("threads_per_worker", 0),
        ("cache_gb", -1.0),
        ("max_workers", 0),
        ("resize_every_s", 0.0),
        ("node_metrics_s", -1.0),
    ],
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


def test_fewer_workers_than_the_most_and_never_none_where_they_come_and_go() -> None:
    assert ClusterConfig(num_workers=2, max_workers=4).world_sizes == range(2, 5)
    assert ClusterConfig(num_workers=2).world_sizes == range(2, 3)
    for fewest, most in ((3, 2), (0, 2)):
        with pytest.raises(ValueError, match=f"max_workers is {most} and num_workers {fewest}"):
            ClusterConfig(num_workers=fewest, max_workers=most)


@pytest.mark.parametrize(
    "uri",
    [
        "http://me:planted@mlflow:5000",
        "postgresql://mlflow@db/x?password=planted",
        "https://mlflow:5000/?access_token=planted",
    ],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        ClusterConfig(tracking_uri=uri)
    assert "planted" not in str(refused.value)
    ClusterConfig(tracking_uri="http://me@mlflow:5000")

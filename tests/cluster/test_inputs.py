"""Whatever cannot be trained is refused in words, before any training."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster import checkpoints, pipeline
from cluster.config import ClusterConfig
from cluster.inputs import Inputs, cache_folder, open_inputs
from cluster.storage import Folder
from cluster.worker import start_weights
from reid.data.datasets import market1501
from reid.data.datasets.reading import CountWarning
from reid.data.datasets.table import write_table
from reid.data.encoded_store import EncodedStore
from reid.data.miniature import write_miniature
from reid.recipes import RUNS

Config = Callable[..., Any]


def silent(*_: object) -> None:
    """Show nothing."""


@pytest.fixture
def config(tiny_config: Config, tiny_runs: Any) -> Any:
    return tiny_config("core_reid_v2-demo", initial=tiny_runs.source)


@pytest.fixture
def own_worlds(tiny_worlds: Path, tmp_path: Path, place: ClusterConfig) -> ClusterConfig:
    """Return a place whose data sets a test may spoil."""
    shutil.copytree(tiny_worlds, tmp_path / "data")
    return replace(place, data_root=str(tmp_path / "data"), cache=str(tmp_path / "cache"))


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return `refused(config, where)`: the words of a run that is refused and leaves no trace."""

    def launch(*_: object, **__: object) -> None:
        raise AssertionError("training began")

    def refusal(config: Any, where: ClusterConfig) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, "launch", launch)
            with pytest.raises(ValueError, match=r".") as error:
                pipeline.run("new", config, where, show=silent)
        assert not Path(where.storage, "new").exists(), "the corrected command would be refused"
        return str(error.value)

    return refusal


def open_silently(config: Any, where: ClusterConfig) -> Inputs:
    return open_inputs(config, where, show=silent)


def test_source_inputs(tiny_config: Config, place: ClusterConfig) -> None:
    inputs = open_silently(tiny_config("source-demo"), place)
    assert set(inputs.tables) == {"source", "target"}
    assert inputs.sizes.num_identities == 8
    labels = inputs.tables["source"].labels["identity"]
    np.testing.assert_array_equal(np.bincount(labels), np.full(8, 8))
    assert not inputs.tables["target"].labels
    assert len(inputs.truth) == 64
    assert inputs.truth.min() > 5000, "the truth is the target's"
    assert inputs.manifest["data.source"].startswith("synthetic_a: train 8 ids, 64 images")


def test_adaptation_inputs_hold_no_labels(config: Any, place: ClusterConfig) -> None:
    inputs = open_silently(config, place)
    assert set(inputs.tables) == {"target"}
    assert not inputs.tables["target"].labels
    test = inputs.test
    assert len(test.query_pixels) == len(test.query) == 4 * 2
    assert len(test.gallery_pixels) == len(test.gallery) == 4 * 4 + 4 + 2
    assert (test.query_pixels.height, test.query_pixels.width) == (32, 16)


def test_supervised_inputs_are_one_data_set(tiny_config: Config, place: ClusterConfig) -> None:
    inputs = open_silently(tiny_config("supervised-demo"), place)
    np.testing.assert_array_equal(
        np.unique(inputs.truth, return_inverse=True)[1], inputs.tables["source"].labels["identity"]
    )
    assert inputs.tables["source"].store.file == inputs.tables["target"].store.file


def test_images_are_decoded_once(config: Any, own_worlds: ClusterConfig) -> None:
    shown: list[str] = []

    def show(what: str, *_: object) -> None:
        shown.append(what)

    open_inputs(config, own_worlds, show=show)
    assert {"decode synthetic_b train", "decode synthetic_b query"} < set(shown)
    shown.clear()
    open_inputs(config, own_worlds, show=show)
    assert shown == []


def test_cache_is_beside_local_runs_and_local_for_remote_ones() -> None:
    assert cache_folder(ClusterConfig(storage="runs")) == "runs/cache"
    assert cache_folder(ClusterConfig(storage="runs", cache="/fast")) == "/fast"
    assert "://" not in cache_folder(ClusterConfig(storage="s3://bucket/runs"))


def test_missing_folder(config: Any, place: ClusterConfig, refused: Any, tmp_path: Path) -> None:
    words = refused(config, replace(place, data_root=str(tmp_path / "nowhere")))
    assert f"{tmp_path}/nowhere/synthetic_b" in words
    assert "expected bounding_box_train in it" in words


def test_unknown_data_set(config: Any, place: ClusterConfig, refused: Any) -> None:
    words = refused(replace(config, target="synthetic_bb"), place)
    assert "no data set 'synthetic_bb'; did you mean synthetic_b" in words


@pytest.mark.parametrize("split", ["bounding_box_train", "query", "bounding_box_test"])
def test_empty_split(config: Any, own_worlds: ClusterConfig, refused: Any, split: str) -> None:
    folder = Path(own_worlds.data_root, "synthetic_b", split)
    for image in folder.iterdir():
        image.unlink()
    assert f"{folder} is empty" in refused(config, own_worlds)


def test_one_identity(tiny_config: Config, own_worlds: ClusterConfig, refused: Any) -> None:
    folder = Path(own_worlds.data_root, "synthetic_a", "bounding_box_train")
    for image in folder.iterdir():
        if not image.name.startswith("0001_"):
            image.unlink()
    words = refused(tiny_config("source-demo"), own_worlds)
    assert f"{folder} shows 1 identity; training needs 2" in words


@pytest.mark.parametrize(
    ("split", "num_images"), [("bounding_box_train", 64), ("bounding_box_test", 22)]
)
def test_images_that_do_not_decode(
    config: Any, own_worlds: ClusterConfig, refused: Any, split: str, num_images: int
) -> None:
    images = sorted(Path(own_worlds.data_root, "synthetic_b", split).iterdir())
    for image in images[:12]:
        image.write_bytes(image.read_bytes()[:50])
    words = refused(config, own_worlds)
    assert f"12 of {num_images} images do not decode" in words
    assert all(str(image) in words for image in images[:10])
    assert str(images[10]) not in words
    assert "and 2 more" in words


def test_images_that_do_not_decode_may_be_left_out(
    config: Any, own_worlds: ClusterConfig, caplog: pytest.LogCaptureFixture
) -> None:
    root = Path(own_worlds.data_root, "synthetic_b")
    whole = market1501.read(root)
    bad = {"bounding_box_train": (0, 5, 63), "query": (), "bounding_box_test": (21,)}
    for split, rows in bad.items():
        images = sorted((root / split).iterdir())
        for row in rows:
            images[row].write_bytes(b"")
    inputs = open_silently(config, replace(own_worlds, on_undecodable="skip"))
    kept = np.delete(np.arange(64), bad["bounding_box_train"])
    np.testing.assert_array_equal(inputs.truth, whole.train.pid[kept])
    np.testing.assert_array_equal(inputs.tables["target"].camid, whole.train.camid[kept])
    expected = EncodedStore(whole.train.path[kept], height=32, width=16).read(np.arange(61))
    np.testing.assert_array_equal(inputs.tables["target"].store.read(np.arange(61)), expected)
    test = inputs.test
    assert (len(test.query_pixels), len(test.gallery_pixels), len(test.gallery)) == (8, 21, 21)
    train, gallery = caplog.messages
    assert "3 of 64 images of synthetic_b train do not decode and are left out: /" in train
    assert "(zero bytes)" in train
    assert "1 of 22 images of synthetic_b gallery" in gallery


@pytest.mark.parametrize(
    ("split", "spared", "words"),
    [
        ("query", "", "no query image of {root} decodes"),
        (
            "bounding_box_train",
            None,
            "{root} without 56 training images that do not decode shows 1 ",
        ),
    ],
)
def test_leaving_out_too_many_images_is_refused(
    config: Any, own_worlds: ClusterConfig, refused: Any, split: str, spared: Any, words: str
) -> None:
    root = Path(own_worlds.data_root, "synthetic_b")
    images = sorted((root / split).iterdir())
    spared = images[0].name.split("_")[0] if spared is None else "none"
    for image in images:
        if not image.name.startswith(spared):
            image.write_bytes(b"")
    assert words.format(root=root) in refused(config, replace(own_worlds, on_undecodable="skip"))


def test_large_tables_stay_encoded(config: Any, own_worlds: ClusterConfig) -> None:
    decoded = open_silently(config, own_worlds).tables["target"].store
    encoded = open_silently(config, replace(own_worlds, cache_gb=50e-6)).tables["target"].store
    assert isinstance(encoded, EncodedStore)
    np.testing.assert_array_equal(encoded.read(np.arange(64)), decoded.read(np.arange(64)))


def test_more_clusters_than_images(config: Any, place: ClusterConfig, refused: Any) -> None:
    words = refused(replace(config, num_clusters=65), place)
    assert "num_clusters is 65" in words
    assert "only 64 training images" in words
    assert "--num-clusters" in words
    open_silently(replace(config, num_clusters=64), place)


def test_checkpoint_of_another_backbone(
    config: Any, place: ClusterConfig, refused: Any, tiny_runs: Any, tmp_path: Path
) -> None:
    state = checkpoints.read(tiny_runs.source)
    other = Folder(str(tmp_path / "other"))
    small: dict[str, Any] = {
        "networks": {},
        "optimizer": {},
        "config": {**state.config, "backbone": "resnet50"},
    }
    checkpoints.save(other, replace(state, **small))
    words = refused(replace(config, initial=other.uri), place)
    assert f"{other.uri} holds a resnet50, but the run asks for resnet18" in words
    assert "--initial" in words


def test_initial_that_is_not_there(config: Any, place: ClusterConfig, refused: Any) -> None:
    words = refused(replace(config, initial="sauce-demo"), place)
    assert "there is no checkpoint in " in words
    assert words.endswith("/sauce-demo/checkpoints; did you mean --initial source-demo?")
    words = refused(replace(config, initial="/nowhere/x"), place)
    assert words == "there is no checkpoint in /nowhere/x/checkpoints; give a run or a checkpoint"


def test_start_weights_are_the_checkpoints_students(tiny_runs: Any) -> None:
    state = checkpoints.read(tiny_runs.source)
    found = start_weights(tiny_runs.source, "resnet18", option="initial")
    assert {f"student.{name}" for name in found} == set(state.networks)
    assert {name.split(".")[0] for name in found} == {"backbone", "neck", "classifier"}
    assert all(value.equal(state.networks[f"student.{name}"]) for name, value in found.items())


def test_two_tables_have_folders_of_their_own(
    config: Any, place: ClusterConfig, tiny_worlds: Path, tmp_path: Path
) -> None:
    for domain, folder in (("a", "north"), ("b", "south")):
        data = market1501.read(tiny_worlds / f"synthetic_{domain}")
        write_table(data, tmp_path / "data" / folder / "index.parquet")
    where = replace(place, data_root=str(tmp_path / "data"))
    both = open_silently(replace(config, source="table:north", target="table:south"), where)
    alone = open_silently(replace(config, target="synthetic_b"), replace(place))
    np.testing.assert_array_equal(both.truth, alone.truth)
    source = RUNS["source-demo"]
    source = replace(source, **{name: getattr(config, name) for name in ("height", "width")})
    found = open_silently(replace(source, source="table:north", target="table:south"), where)
    assert found.tables.keys() == {"source", "target"}
    assert found.manifest["data.source"].startswith("table: ")


def test_a_target_without_a_test_split_is_refused(
    config: Any, place: ClusterConfig, refused: Any, tmp_path: Path
) -> None:
    write_miniature("vehiclex", tmp_path / "data" / "vehiclex")
    where = replace(place, data_root=str(tmp_path / "data"))
    with pytest.warns(CountWarning):
        words = refused(replace(config, target="vehiclex"), where)
    assert "vehiclex has no query and gallery images to test on: it can be a --source" in words

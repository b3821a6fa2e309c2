"""The Market-1501 reader against folders of empty files: it opens no image."""

from pathlib import Path

import numpy as np
import pytest

from reid.data import datasets
from reid.data.datasets import market1501

TRAIN = ("0002_c1s1_000451_03.jpg", "0002_c2s1_000776_01.jpg", "0007_c6s3_077419_04.jpg")
QUERY = ("0001_c1s1_001051_00.jpg", "0003_c3s3_064744_00.jpg")
pytestmark = pytest.mark.filterwarnings("ignore::reid.data.datasets.reading.CountWarning")

GALLERY = ("0001_c2s1_000301_00.jpg", "0000_c4s6_000810_02.jpg", "-1_c3s1_000401_03.jpg")


def make(root: Path, *, train=TRAIN, query=QUERY, gallery=GALLERY) -> Path:
    for folder, names in zip(market1501.FOLDERS.values(), (train, query, gallery), strict=True):
        (root / folder).mkdir(parents=True)
        for name in names:
            (root / folder / name).touch()
    return root


def test_reads_pid_and_camera_from_the_names(tmp_path):
    dataset = datasets.load("market1501", make(tmp_path))
    assert (dataset.name, dataset.root) == ("market1501", str(tmp_path))
    assert dataset.train.path.tolist() == [f"{tmp_path}/bounding_box_train/{n}" for n in TRAIN]
    assert dataset.train.pid.tolist() == [2, 2, 7]
    assert dataset.train.camid.tolist() == [0, 1, 5]
    assert dataset.query.pid.tolist() == [1, 3]
    assert dataset.query.camid.tolist() == [0, 2]
    assert dataset.train.pid.dtype == dataset.train.camid.dtype == np.int64


def test_gallery_keeps_junk_and_distractors_in_path_order(tmp_path):
    gallery = datasets.load("market1501", make(tmp_path)).gallery
    assert gallery.path.tolist() == sorted(f"{tmp_path}/bounding_box_test/{n}" for n in GALLERY)
    assert gallery.pid.tolist() == [-1, 0, 1]
    assert gallery.camid.tolist() == [2, 3, 1]


def test_train_drops_junk_and_other_file_types_are_ignored(tmp_path):
    make(tmp_path, train=(*TRAIN, "-1_c3s1_000401_03.jpg", "Thumbs.db", "readme.txt"))
    assert datasets.load("market1501", tmp_path).train.pid.tolist() == [2, 2, 7]


@pytest.mark.parametrize("name", market1501.ARCHIVE_NAMES)
def test_root_may_hold_the_archive_folder(tmp_path, name):
    make(tmp_path / name)
    assert datasets.load("market1501", tmp_path).root == str(tmp_path / name)


def test_a_relative_root_gives_absolute_paths(tmp_path, monkeypatch):
    make(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    query = datasets.load("market1501", "data").query
    assert query.path[0] == f"{tmp_path}/data/query/{QUERY[0]}"


@pytest.mark.parametrize(
    "name",
    [
        "0002.jpg",
        "0002_c0s1_000451_03.jpg",
        "-2_c1s1_000451_03.jpg",
        "0002_c1_000451_03.jpg",
        "0002_c1s1_000451_03.jpg.jpg",
        "a0002_c1s1_000451_03.jpg",
    ],
)
def test_names_outside_the_grammar_are_refused(tmp_path, name):
    make(tmp_path, query=(*QUERY, name))
    with pytest.raises(ValueError, match=r"1 of 3 names in .*query do not read PID_c") as error:
        datasets.load("market1501", tmp_path)
    assert name in str(error.value)


def test_only_the_first_strange_names_are_shown(tmp_path):
    make(tmp_path, query=(*QUERY, *(f"x{i}.jpg" for i in range(5))))
    with pytest.raises(ValueError, match=r"5 of 7 names .*: x0\.jpg, x1\.jpg, x2\.jpg, \.\.\.$"):
        datasets.load("market1501", tmp_path)


def test_errors_name_the_folder_and_what_was_expected(tmp_path):
    with pytest.raises(
        ValueError, match=r"nowhere is no Market-1501: expected .*bounding_box_train"
    ):
        datasets.load("market1501", tmp_path / "nowhere")
    make(tmp_path / "empty", query=())
    with pytest.raises(ValueError, match=r"empty/query is empty: expected files such as 0002_"):
        datasets.load("market1501", tmp_path / "empty")
    make(tmp_path / "one", train=TRAIN[:2])
    with pytest.raises(ValueError, match="bounding_box_train shows 1 identity; training needs 2"):
        datasets.load("market1501", tmp_path / "one")
    (tmp_path / "half" / "bounding_box_train").mkdir(parents=True)
    for name in TRAIN:
        (tmp_path / "half" / "bounding_box_train" / name).touch()
    with pytest.raises(
        ValueError, match="half/query is missing: expected bounding_box_train, query"
    ):
        datasets.load("market1501", tmp_path / "half")


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="no data set 'market'; did you mean market1501"):
        datasets.load("market", ".")
    with pytest.raises(ValueError, match="no data set 'zzz'; known are market1501"):
        datasets.load("zzz", ".")

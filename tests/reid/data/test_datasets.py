"""Every reader against its miniature, and each thing a reader must refuse."""

import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid.data import datasets
from reid.data.datasets import msmt17, vehicleid
from reid.data.datasets.reading import CountWarning
from reid.data.miniature import MINIATURES, write_miniature

Miniature = Callable[[str], Path]
quiet = pytest.mark.filterwarnings("ignore::reid.data.datasets.reading.CountWarning")

NUM_IMAGES = {
    "market1501": (12, 4, 6),
    "dukemtmc": (12, 4, 5),
    "cuhk03_np": (12, 4, 4),
    "cuhk03_np_labeled": (12, 4, 4),
    "msmt17": (12, 4, 4),
    "personx": (12, 4, 4),
    "veri776": (12, 4, 4),
    "vehicleid_800": (9, 4, 2),
    "vehicleid_1600": (9, 6, 3),
    "vehicleid_2400": (9, 8, 4),
    "veriwild_3000": (6, 2, 4),
    "veriwild_5000": (6, 3, 6),
    "veriwild_10000": (6, 4, 8),
    "vehiclex": (12, 0, 0),
    "vric": (6, 2, 2),
}
# One image of each layout, with the identity and the camera (from 0) that its name or list says.
KNOWN = {
    "market1501": ("bounding_box_train/0007_c6s1_000007_01.jpg", 7, 5),
    "dukemtmc": ("bounding_box_train/0007_c8_f0000007.jpg", 7, 7),
    "cuhk03_np": ("detected/bounding_box_train/0007_c2_7.png", 7, 1),
    "cuhk03_np_labeled": ("labeled/bounding_box_train/0007_c2_7.png", 7, 1),
    "msmt17": ("train/0001/0001_007_15_0303morning_0007_0.jpg", 1, 14),
    "personx": ("bounding_box_train/0007_c12_7.jpg", 7, 5),
    "veri776": ("image_train/0007_c020_00000007_0.jpg", 7, 19),
    "vehicleid_800": ("image/0000004.jpg", 7, 0),
    "veriwild_3000": ("images/00007/000004.jpg", 7, 1),
    "vehiclex": ("image_train/0007_c036_7.jpg", 7, 30),
    "vric": ("train_images/0000004.jpg", 7, 1),
}
GALLERY_PIDS = {"market1501": {-1, 0, 1, 3}, "dukemtmc": {1, 3, 99}, "msmt17": {0, 1}}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Miniature:
    """Return a function that gives the folder of a miniature, written once."""
    folders: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            write_miniature(name, folders[name])
        return folders[name]

    return folder


@pytest.fixture
def copied(written, tmp_path) -> Miniature:
    """Return a function that gives a copy of a miniature, to be spoilt."""
    return lambda name: Path(shutil.copytree(written(name), tmp_path / name))


@quiet
@pytest.mark.parametrize("name", NUM_IMAGES)
def test_reads_its_miniature(written, name):
    root = written(name)
    data = datasets.load(name, root)
    splits = (data.train, data.query, data.gallery)
    assert data.name == name
    assert tuple(len(split) for split in splits) == NUM_IMAGES[name]
    for split in splits:
        assert split.path.tolist() == sorted(set(split.path.tolist()))
        assert all(path.startswith(f"{root}/") and Path(path).is_file() for path in split.path)
        assert split.pid.dtype == split.camid.dtype == np.int64
        assert split.pid.shape == split.camid.shape == split.path.shape
    assert len(np.unique(data.train.pid)) == 3
    assert not set(data.query.path) & set(data.gallery.path)
    assert set(data.query.pid) <= set(data.gallery.pid)
    assert set(data.gallery.pid.tolist()) == GALLERY_PIDS.get(name, set(data.query.pid.tolist()))


@quiet
@pytest.mark.parametrize("name", KNOWN)
def test_pid_and_camid_are_what_the_layout_says(written, name):
    root = written(name)
    inside, pid, camid = KNOWN[name]
    train = datasets.load(name, root).train
    row = train.path.tolist().index(f"{root}/{inside}")
    assert (train.pid[row], train.camid[row]) == (pid, camid)
    with Image.open(train.path[row]) as image:
        image.load()
        vehicles = name.startswith(("ve", "vric"))
        size = (64, 64) if vehicles else (32, 64)
        assert (image.format, image.size) == ("PNG" if "cuhk03" in name else "JPEG", size)


@quiet
def test_msmt17_trains_on_both_lists_and_reads_both_spellings(copied):
    root = copied("msmt17")
    listed = [(root / f"list_{part}.txt").read_text().splitlines() for part in ("train", "val")]
    assert [len(lines) for lines in listed] == [8, 4]
    first = datasets.load("msmt17", root)
    for version_1, version_2 in zip(
        *(folders for folders in zip(msmt17.TRAIN_FOLDERS, msmt17.TEST_FOLDERS, strict=True)),
        strict=True,
    ):
        (root / version_1).rename(root / version_2)
    second = datasets.load("msmt17", root)
    assert second.train.pid.tolist() == first.train.pid.tolist()
    assert all("/mask_train_v2/" in path for path in second.train.path)
    assert all("/mask_test_v2/" in path for path in second.gallery.path)


@quiet
@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("cuhk03_np", "CUHK03-NP"),
        ("msmt17", "MSMT17_V1"),
        ("personx", "PersonX/subset1"),
        ("veri776", "VeRi"),
        ("vehicleid_800", "VehicleID_V1.0"),
        ("veriwild_3000", "VERI-Wild"),
        ("vehiclex", "AIC20_ReID_Simulation"),
        ("vric", "VRIC"),
    ],
)
def test_root_may_hold_the_archive_folder(written, tmp_path, name, inside):
    (tmp_path / inside).parent.mkdir(exist_ok=True)
    (tmp_path / inside).symlink_to(written(name))
    train = datasets.load(name, tmp_path).train
    assert train.path[0].startswith(f"{tmp_path}/{inside}/")
    assert len(train) == NUM_IMAGES[name][0]


def test_vehicleid_draws_one_gallery_image_of_each_vehicle():
    pid = np.repeat(np.array([9, 4, 6]), 50)
    draws = np.stack([vehicleid.gallery_rows(pid, seed=seed) for seed in range(20)])
    for drawn in draws:
        assert sorted(pid[drawn].tolist()) == [4, 6, 9]
    assert np.array_equal(draws[3], vehicleid.gallery_rows(pid, seed=3))
    # 20 draws from 50 images of a vehicle: the same image each time is not by chance.
    assert all(draws[:, pid == vehicle].any(axis=0).sum() > 5 for vehicle in (4, 6, 9))


def test_cameras_of_veriwild_count_from_0_in_the_order_of_their_numbers(written):
    root = written("veriwild_3000")
    with pytest.warns(CountWarning):
        train = datasets.load("veriwild_3000", root).train
    info = (root / "train_test_split" / "vehicle_info.txt").read_text().splitlines()[1:]
    cameras = {line.split(";")[0]: int(line.split(";")[1]) for line in info}
    images = ["/".join(Path(path).with_suffix("").parts[-2:]) for path in train.path]
    assert train.camid.tolist() == [{5: 0, 174: 1}[cameras[image]] for image in images]


# ---- refusals ----


@pytest.mark.parametrize("name", NUM_IMAGES)
def test_a_folder_that_holds_something_else_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=rf"^{tmp_path} is no .*: expected .* in it or in "):
        datasets.load(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "inside"),
    [("dukemtmc", "query"), ("cuhk03_np", "detected/query"), ("veri776", "image_query")],
)
def test_a_missing_split_is_refused(copied, name, inside):
    root = copied(name)
    shutil.rmtree(root / inside)
    with pytest.raises(ValueError, match=rf"{inside} is missing: expected .*, "):
        datasets.load(name, root)


def test_missing_image_folders_are_refused(copied):
    root = copied("msmt17")
    shutil.rmtree(root / "test")
    with pytest.raises(ValueError, match=r"msmt17 holds no images: .* test or mask_test_v2"):
        datasets.load("msmt17", root)


LISTS = [
    ("msmt17", "list_val.txt"),
    ("vehicleid_800", "train_test_split/test_list_800.txt"),
    ("veriwild_5000", "train_test_split/test_5000_id_query.txt"),
    ("vric", "vric_probe.txt"),
]


@pytest.mark.parametrize(("name", "inside"), LISTS)
def test_a_missing_list_is_refused(copied, name, inside):
    root = copied(name)
    (root / inside).unlink()
    with pytest.raises(ValueError, match=rf"the list .*{inside} is missing: expected lines such"):
        datasets.load(name, root)


@pytest.mark.parametrize(("name", "inside"), LISTS)
def test_a_strange_line_is_refused_by_its_number(copied, name, inside):
    file = copied(name) / inside
    file.write_text(f"\n{file.read_text()}what is this\n")
    number = len(file.read_text().splitlines())
    with pytest.raises(ValueError, match=rf"{inside} line {number} is 'what is this': expected"):
        datasets.load(name, file.parents[len(Path(inside).parts) - 1])


@pytest.mark.parametrize(("name", "inside"), LISTS)
def test_a_list_without_lines_is_refused(copied, name, inside):
    root = copied(name)
    (root / inside).write_text("\n")
    with pytest.raises(ValueError, match=rf"{inside} is empty: expected lines such as"):
        datasets.load(name, root)


@quiet
@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("msmt17", "train"),
        ("vehicleid_800", "query"),
        ("veriwild_3000", "train"),
        ("vric", "query"),
    ],
)
def test_listed_images_that_are_not_there_are_counted_and_named(copied, name, split):
    root = copied(name)
    gone = [Path(path) for path in getattr(datasets.load(name, root), split).path[:2]]
    for path in gone:
        path.unlink()
    with pytest.raises(ValueError, match=r"2 of the \d+ images that .* lists are not in") as error:
        datasets.load(name, root)
    assert all(path.name in str(error.value) for path in gone)


def test_an_image_without_a_camera_is_refused(copied):
    root = copied("veriwild_3000")
    info = root / "train_test_split" / "vehicle_info.txt"
    lines = info.read_text().splitlines()
    info.write_text("\n".join(line for line in lines if not line.startswith("00007/000004;")))
    with pytest.raises(
        ValueError, match=r"1 of the 6 .* no line in vehicle_info.txt.*00007/000004"
    ):
        datasets.load("veriwild_3000", root)


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("dukemtmc", "query/0001_c9_f0000101.jpg"),
        ("cuhk03_np", "detected/query/0001_c3_1.png"),
        ("personx", "query/0001_c5_1.jpg"),
        ("veri776", "image_query/0001_c021_00000001_0.jpg"),
        ("vehiclex", "image_train/0001_c005_1.jpg"),
        ("vehiclex", "image_train/0001_c037_1.jpg"),
    ],
)
def test_names_outside_the_grammar_are_refused(copied, name, inside):
    root = copied(name)
    (root / inside).touch()
    with pytest.raises(ValueError, match=r"1 of \d+ names in .* do not read PID_cCAMERA") as error:
        datasets.load(name, root)
    assert Path(inside).name in str(error.value)


@pytest.mark.parametrize(
    ("name", "inside"),
    [("personx", "query"), ("veri776", "image_test"), ("vehiclex", "image_train")],
)
def test_a_folder_without_images_is_refused(copied, name, inside):
    root = copied(name)
    for file in (root / inside).iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=rf"{inside} is empty: expected files such as 000"):
        datasets.load(name, root)


@pytest.mark.parametrize("name", ["dukemtmc", "vehiclex", "vehicleid_800", "veriwild_3000", "vric"])
def test_one_training_identity_is_refused(copied, name):
    root = copied(name)
    for folder in root.glob("*_train"):
        for file in folder.iterdir():
            if not file.name.startswith("0002"):
                file.unlink()
    for file in root.rglob("*train*.txt"):
        place = {"vehicleid_800": 1, "vric": 1, "veriwild_3000": 0}[name]
        lines = file.read_text().splitlines()
        kept = [line for line in lines if int(re.split(r"[ /]", line)[place]) == 2]
        file.write_text("\n".join(kept))
    with pytest.raises(ValueError, match="shows 1 identity; training needs 2 or more"):
        datasets.load(name, root)


def test_a_test_set_of_another_size_is_refused(written):
    with pytest.raises(ValueError, match=r"no test set of 3200 vehicles; it has .*800, 1600, 2400"):
        vehicleid.load(written("vehicleid_800"), size=3200)


# ---- counts ----


@pytest.mark.parametrize("name", NUM_IMAGES)
def test_counts_other_than_published_warn_once_or_are_refused(written, name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        datasets.load(name, written(name))
    assert [warning.category for warning in caught] == [CountWarning]
    message = str(caught[0].message)
    assert message.startswith(f"{name} is not as published: ")
    assert "\n" not in message
    with pytest.raises(ValueError, match=f"^{name} is not as published: ") as error:
        datasets.load(name, written(name), strict=True)
    assert str(error.value) == message


def test_every_difference_is_named(written):
    with pytest.raises(ValueError, match="is not as published") as error:
        datasets.load("veri776", written("veri776"), strict=True)
    assert str(error.value).split(": ", 1)[1] == (
        "12 train images (published: 37778), 3 train identities (published: 576), "
        "4 query images (published: 1678), 2 query identities (published: 200), "
        "4 gallery images (published: 11579), 2 gallery identities (published: 200)"
    )


def test_counts_as_published_are_quiet(written, monkeypatch):
    numbers = {"train images": 6, "train identities": 3, "query images": 2, "gallery images": 2}
    monkeypatch.setattr("reid.data.datasets.vric.PUBLISHED", numbers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(datasets.load("vric", written("vric"), strict=True).train) == 6


# ---- miniatures ----


def test_every_data_set_but_the_built_in_worlds_has_a_miniature():
    worlds = {name for name in datasets.DATASETS if name.startswith("synthetic_")}
    assert len(worlds) == 6
    assert set(MINIATURES) == set(datasets.DATASETS) - worlds


def test_a_miniature_is_a_function_of_its_seed(written, tmp_path):
    for name, seed in (("again", 0), ("other", 1)):
        write_miniature("vric", tmp_path / name, seed=seed)
    files = [path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*.*")]
    assert len(files) == 13
    for file in files:
        first = (written("vric") / file).read_bytes()
        assert first == (tmp_path / "again" / file).read_bytes()
        assert (first == (tmp_path / "other" / file).read_bytes()) == (file.suffix == ".txt")


def test_miniatures_refuse_unknown_names_and_folders_in_use(tmp_path):
    with pytest.raises(ValueError, match="no miniature of 'nobody'; there are market1501, "):
        write_miniature("nobody", tmp_path)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ValueError, match=f"{tmp_path} is not empty"):
        write_miniature("vric", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

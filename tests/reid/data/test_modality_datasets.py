"""The visible-infrared readers against hand-made folders, and the drawn miniatures."""

import itertools
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid.data import miniature_modality
from reid.data.datasets import regdb, sysu_mm01
from reid.data.datasets.reading import CountWarning

pytestmark = pytest.mark.filterwarnings("ignore::reid.data.datasets.reading.CountWarning")

# (identity, camera) -> images; 7 is never before camera 3, 12 never before 2 and 5
SEEN = {
    **{(1, camera): 2 for camera in (1, 2, 3, 6)},
    **{(4, camera): 1 for camera in range(1, 7)},
    **{(9, camera): 2 for camera in (3, 4)},
    **{(7, camera): 12 + camera for camera in (1, 2, 4, 5, 6)},
    **{(12, camera): 15 for camera in (1, 3, 4, 6)},
}
IDS = {"train": "4,1", "val": "9\n", "test": "12, 7,\n"}


def make_sysu(root: Path, *, ids=IDS, seen=SEEN) -> Path:
    for camera in range(1, 7):
        (root / f"cam{camera}").mkdir(parents=True)
    for (identity, camera), number in seen.items():
        folder = root / f"cam{camera}" / f"{identity:04d}"
        folder.mkdir()
        for name in range(1, number + 1):
            (folder / f"{name:04d}.jpg").touch()
        (folder / "Thumbs.db").touch()
    (root / "exp").mkdir()
    for name, line in ids.items():
        (root / "exp" / f"{name}_id.txt").write_text(line)
    return root


def names(root: Path, split) -> list[str]:
    return [Path(path).relative_to(root).as_posix() for path in split.path]


def test_sysu_training_joins_train_and_val_over_all_cameras(tmp_path):
    train = sysu_mm01.load(make_sysu(tmp_path)).train
    wanted = [
        (f"cam{camera}/{identity:04d}/{name:04d}.jpg", identity, camera - 1, camera in (3, 6))
        for (identity, camera), number in SEEN.items()
        if identity in (1, 4, 9)
        for name in range(1, number + 1)
    ]
    found = zip(names(tmp_path, train), train.pid, train.camid, train.modality, strict=True)
    assert list(found) == sorted(wanted)
    assert train.path.tolist() == sorted(train.path.tolist())
    assert train.modality.dtype == train.camid.dtype == train.pid.dtype == np.int64


@pytest.mark.parametrize("mode", ["all", "indoor"])
def test_sysu_queries_are_all_infrared_test_images(tmp_path, mode):
    query = sysu_mm01.load(make_sysu(tmp_path), mode=mode).query
    assert {*zip(query.pid.tolist(), query.camid.tolist(), strict=True)} == {
        (7, 5), (12, 2), (12, 5),
    }  # fmt: skip
    assert len(query) == (12 + 6) + 15 + 15
    assert set(query.modality.tolist()) == {1}


def published_choice(root: Path, cameras, trial: int) -> list[str]:
    """One image of each identity and camera, as the published evaluation code draws it."""
    generator = random.Random(trial)
    files = []
    for identity in ("0007", "0012"):
        for camera in cameras:
            folder = root / f"cam{camera}" / identity
            if folder.is_dir():
                files.append(generator.choice(sorted(folder.glob("*.jpg"))))
    return sorted(file.relative_to(root).as_posix() for file in files)


@pytest.mark.parametrize(("mode", "cameras"), [("all", (1, 2, 4, 5)), ("indoor", (1, 2))])
def test_sysu_single_shot_galleries_are_the_published_ones(tmp_path, mode, cameras):
    make_sysu(tmp_path)
    galleries = [sysu_mm01.load(tmp_path, mode=mode, trial=trial).gallery for trial in range(10)]
    for trial, gallery in enumerate(galleries):
        assert names(tmp_path, gallery) == published_choice(tmp_path, cameras, trial)
        assert set(gallery.modality.tolist()) == {0}
    assert len({tuple(gallery.path) for gallery in galleries}) > 1


def test_sysu_multi_shot_draws_ten_without_repeating_any(tmp_path):
    make_sysu(tmp_path, seen={**SEEN, (7, 1): 6})
    first, again, other = (
        sysu_mm01.load(tmp_path, shots=10, trial=trial).gallery for trial in (3, 3, 4)
    )
    drawn = [tuple(Path(path).parts[-3:-1]) for path in first.path]
    assert {pair: drawn.count(pair) for pair in drawn} == {
        ("cam1", "0007"): 6,
        **{(f"cam{camera}", "0007"): 10 for camera in (2, 4, 5)},
        **{(f"cam{camera}", "0012"): 10 for camera in (1, 4)},
    }
    assert len(set(first.path)) == len(first)
    assert first.path.tolist() == again.path.tolist()
    assert first.path.tolist() != other.path.tolist()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "outdoor"}, "mode is 'outdoor'; SYSU-MM01 has 'all', 'indoor'"),
        ({"shots": 5}, "shots is 5; SYSU-MM01 has 1, 10"),
        ({"trial": 10}, "trial is 10; SYSU-MM01 has 0, 1, "),
    ],
)
def test_sysu_refuses_other_options(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        sysu_mm01.load(make_sysu(tmp_path), **options)


def test_sysu_errors_name_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere is no SYSU-MM01: expected exp/train_id.txt"):
        sysu_mm01.load(tmp_path / "nowhere")
    make_sysu(tmp_path / "ids", ids={**IDS, "val": "9,21,22"})
    with pytest.raises(ValueError, match=r"2 of the 3 identities .*val_id.txt lists .*: 21, 22$"):
        sysu_mm01.load(tmp_path / "ids")
    make_sysu(tmp_path / "line", ids={**IDS, "test": "7;12"})
    with pytest.raises(ValueError, match=r"test_id.txt line 1 is '7;12': expected identities"):
        sysu_mm01.load(tmp_path / "line")
    make_sysu(tmp_path / "camera", seen={k: n for k, n in SEEN.items() if k[1] != 5})
    (tmp_path / "camera" / "cam5").rmdir()
    with pytest.raises(ValueError, match=r"camera/cam5 is missing: expected cam1 \.\.\. cam6"):
        sysu_mm01.load(tmp_path / "camera")
    make_sysu(tmp_path / "visible", seen={k: n for k, n in SEEN.items() if k[1] not in (3, 6)})
    with pytest.raises(ValueError, match="visible gives a split without images"):
        sysu_mm01.load(tmp_path / "visible")


def test_sysu_counts_are_compared_with_the_published(tmp_path):
    make_sysu(tmp_path)
    wanted = (
        r"3 train identities \(published: 395\), "
        r"10 train visible images \(published: 22258\), "
        r"8 train infrared images \(published: 11909\)"
    )
    with pytest.raises(ValueError, match=wanted):
        sysu_mm01.load(tmp_path, strict=True)
    with pytest.warns(CountWarning, match=wanted):
        sysu_mm01.load(tmp_path)


def make_regdb(root: Path) -> Path:
    """Two identities in each half, two images of each modality; trial 2 exchanges the halves."""
    (root / "idx").mkdir(parents=True)
    halves = {1: {"train": (3, 8), "test": (5, 10)}, 2: {"train": (5, 10), "test": (3, 8)}}
    for kind, identity, number in itertools.product(("Visible", "Thermal"), (3, 5, 8, 10), (1, 2)):
        (root / kind / str(identity)).mkdir(parents=True, exist_ok=True)
        (root / kind / str(identity) / f"x_{number}.bmp").touch()
    for trial, half in itertools.product(halves, ("train", "test")):
        for kind in ("Visible", "Thermal"):
            text = "".join(
                f"{kind}/{identity}/x_{number}.bmp {label}\n"
                for label, identity in enumerate(halves[trial][half])
                for number in (1, 2)
            )
            (root / "idx" / f"{half}_{kind.lower()}_{trial}.txt").write_text(text)
    return root


def test_regdb_reads_both_modalities_of_a_trial(tmp_path):
    dataset = regdb.load(make_regdb(tmp_path))
    train = dataset.train
    assert names(tmp_path, train) == sorted(
        f"{kind}/{identity}/x_{number}.bmp"
        for kind in ("Visible", "Thermal")
        for identity in (3, 8)
        for number in (1, 2)
    )
    assert train.pid.tolist() == [0, 0, 1, 1] * 2
    assert train.modality.tolist() == train.camid.tolist() == [1] * 4 + [0] * 4
    assert {Path(path).parts[-2] for path in regdb.load(tmp_path, trial=2).train.path} == {
        "5",
        "10",
    }


def test_regdb_searches_in_either_direction(tmp_path):
    make_regdb(tmp_path)
    visible, thermal = (regdb.load(tmp_path, query=kind) for kind in ("visible", "thermal"))
    assert names(tmp_path, visible.query) == [
        f"Visible/{identity}/x_{number}.bmp" for identity in (10, 5) for number in (1, 2)
    ]
    assert visible.query.pid.tolist() == [1, 1, 0, 0]
    for one, other in ((visible, thermal), (thermal, visible)):
        assert one.query.path.tolist() == other.gallery.path.tolist()
    assert set(visible.query.modality.tolist()) == set(thermal.gallery.modality.tolist()) == {0}
    assert set(visible.gallery.camid.tolist()) == {1}


def test_regdb_errors_name_what_is_wrong(tmp_path):
    make_regdb(tmp_path)
    for trial in (0, 11):
        with pytest.raises(ValueError, match=f"trial is {trial}; RegDB has 1 to 10"):
            regdb.load(tmp_path, trial=trial)
    with pytest.raises(ValueError, match="query is 'infrared'; RegDB has visible and thermal"):
        regdb.load(tmp_path, query="infrared")
    with pytest.raises(ValueError, match=r"no RegDB: expected idx/train_visible_3\.txt"):
        regdb.load(tmp_path, trial=3)
    (tmp_path / "Thermal" / "8" / "x_2.bmp").unlink()
    with pytest.raises(ValueError, match=r"1 of the 4 images .*train_thermal_1\.txt.*8/x_2\.bmp"):
        regdb.load(tmp_path)
    (tmp_path / "idx" / "train_visible_1.txt").write_text("Visible/3/x_1.bmp\n")
    with pytest.raises(ValueError, match=r"train_visible_1\.txt line 1 .*expected IMAGE LABEL"):
        regdb.load(tmp_path)


def test_regdb_counts_are_compared_with_the_published(tmp_path):
    with pytest.raises(ValueError, match=r"8 train images \(published: 4120\)"):
        regdb.load(make_regdb(tmp_path), strict=True)


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("miniatures")
    miniature_modality.write_sysu_mm01(root / "sysu_mm01")
    miniature_modality.write_regdb(root / "regdb")
    return root


def test_miniatures_are_read_and_every_query_has_a_match(miniatures):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CountWarning)
        datasets = [
            *(sysu_mm01.load(miniatures / "sysu_mm01", mode=mode) for mode in ("all", "indoor")),
            *(regdb.load(miniatures / "regdb", trial=trial) for trial in range(1, 11)),
        ]
    for dataset in datasets:
        assert set(dataset.query.pid) <= set(dataset.gallery.pid)
        assert set(dataset.train.modality) == {0, 1}
        assert set(dataset.query.modality).isdisjoint(dataset.gallery.modality)


def test_infrared_miniatures_are_grey_and_others_are_not(miniatures):
    dataset = sysu_mm01.load(miniatures / "sysu_mm01")
    for path, modality in zip(dataset.train.path[::7], dataset.train.modality[::7], strict=True):
        pixels = np.asarray(Image.open(path)).astype(int)
        assert pixels.shape[2] == 3
        assert bool((pixels[..., 0] == pixels[..., 2]).all()) == bool(modality)


def test_miniatures_follow_from_the_seed(tmp_path, miniatures):
    miniature_modality.write_regdb(tmp_path / "same")
    miniature_modality.write_regdb(tmp_path / "other", seed=1)
    image = "Visible/1/person_v_00001_1.bmp"
    first = (miniatures / "regdb" / image).read_bytes()
    assert (tmp_path / "same" / image).read_bytes() == first
    assert (tmp_path / "other" / image).read_bytes() != first

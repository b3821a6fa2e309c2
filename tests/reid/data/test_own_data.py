"""Own data: folders by split and identity, and tables; against hand-made ones of empty files."""

import itertools
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from reid.data import miniature_modality
from reid.data.datasets import folder, table
from reid.data.datasets.table import to_arrow, write_arrow, write_table
from reid.types import Dataset, Split

TREE = {
    "train": ("zoe/a_c7_1.jpg", "zoe/b_c2.PNG", "ben/x.c2.webp", "ben-2/c10.jpeg"),
    "query": ("anna/q_c2_1.jpg",),
    "gallery": ("anna/g-c7-9.bmp", "zoe/g_c2_1.jpg"),
}


def make(root: Path, tree=TREE) -> Path:
    for split, names in tree.items():
        (root / split).mkdir(parents=True)
        for name in names:
            (root / split / name).parent.mkdir(exist_ok=True)
            (root / split / name).touch()
    return root


def without_cameras(tree):
    return {split: [f"{n[: n.rindex('/')]}/{i}.jpg" for i, n in enumerate(names)]
            for split, names in tree.items()}  # fmt: skip


def named(root: Path, split: Split) -> list[str]:
    return [Path(path).relative_to(root).as_posix() for path in split.path]


def test_folder_ranks_names_and_cameras_over_all_splits(tmp_path):
    dataset = folder.load(make(tmp_path))
    assert (dataset.name, dataset.root) == ("folder", str(tmp_path))
    # Sorted names: anna, ben, ben-2, zoe; sorted cameras: 2, 7, 10.
    pid = {"anna": 0, "ben": 1, "ben-2": 2, "zoe": 3}
    camid = {"a_c7_1": 1, "b_c2": 0, "x.c2": 0, "c10": 2, "q_c2_1": 0, "g-c7-9": 1, "g_c2_1": 0}
    for name, wanted in TREE.items():
        split: Split = getattr(dataset, name)
        assert split.path.tolist() == sorted(f"{tmp_path}/{name}/{image}" for image in wanted)
        assert split.pid.tolist() == [pid[Path(path).parent.name] for path in split.path]
        assert split.camid.tolist() == [camid[Path(path).stem] for path in split.path]
        assert split.pid.dtype == split.camid.dtype == np.int64
        assert split.modality is None


def test_folder_without_cameras_has_one(tmp_path):
    dataset = folder.load(make(tmp_path, without_cameras(TREE)))
    assert {*dataset.train.camid, *dataset.query.camid, *dataset.gallery.camid} == {0}
    assert dataset.gallery.pid.tolist() == [0, 3]


@pytest.mark.parametrize("stem", ["0002_c1s1_000451", "abc1", "c_1", "C1", "c1é", "1c2"])
def test_only_a_number_on_its_own_is_a_camera(tmp_path, stem):
    make(tmp_path, {**without_cameras(TREE), "query": (f"anna/{stem}.jpg",)})
    assert folder.load(tmp_path).query.camid.tolist() == [0]


@pytest.mark.parametrize("name", ["anna/17.jpg", "anna/a_c1_c2.jpg"])
def test_camera_is_in_all_names_or_none(tmp_path, name):
    make(tmp_path, {**TREE, "query": (*TREE["query"], name)})
    with pytest.raises(ValueError, match=f"1 of the 8 names .*0001_c3_17.*: query/{name}$"):
        folder.load(tmp_path)


def test_hidden_and_other_files_are_no_part_of_it(tmp_path):
    make(tmp_path, {**TREE, "query": (*TREE["query"], "anna/Thumbs.db", "anna/._q_c2_1.jpg",
                                      ".cache/x.jpg")})  # fmt: skip
    (tmp_path / "query" / "readme.txt").touch()
    assert named(tmp_path, folder.load(tmp_path).query) == ["query/anna/q_c2_1.jpg"]


def test_test_folder_is_divided_by_first_image_of_identity_and_camera(tmp_path):
    test = ("a/1_c2.jpg", "a/0_c2.jpg", "a/5_c1.jpg", "b/9_c1.jpg", "b/10_c1.jpg", "b/2_c2.jpg")
    dataset = folder.load(make(tmp_path, {"train": TREE["train"], "test": test}))
    assert named(tmp_path, dataset.query) == [
        "test/a/0_c2.jpg",
        "test/a/5_c1.jpg",
        "test/b/10_c1.jpg",
        "test/b/2_c2.jpg",
    ]
    assert named(tmp_path, dataset.gallery) == ["test/a/1_c2.jpg", "test/b/9_c1.jpg"]
    assert dataset.gallery.camid.tolist() == [1, 0]  # the cameras are 1, 2, 7, 10


def test_test_folder_without_cameras_gives_one_query_an_identity(tmp_path):
    test = ("a/2.jpg", "a/1.jpg", "a/3.jpg", "b/1.jpg")
    make(tmp_path, {"train": ("a/1.jpg", "b/1.jpg"), "test": test})
    dataset = folder.load(tmp_path)
    assert named(tmp_path, dataset.query) == ["test/a/1.jpg", "test/b/1.jpg"]
    assert named(tmp_path, dataset.gallery) == ["test/a/2.jpg", "test/a/3.jpg"]


def test_folder_errors_say_what_to_add(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere is no folder .*: expected train in it"):
        folder.load(tmp_path / "nowhere")
    one = TREE["train"]
    cases = {
        "alone": ({"train": one}, "add query/IDENTITY/ and gallery/IDENTITY/, or test/IDENTITY/"),
        "half": ({"train": one, "query": one}, "has query but no gallery: add gallery/IDENTITY/"),
        "other": ({"train": one, "gallery": one, "test": one}, "has gallery but no query"),
        "empty": ({**TREE, "query": ("anna/x.txt",)}, "empty/query has no images: expected query"),
        "single": ({"train": one, "test": one}, "single/test leaves no gallery"),
        "lone": ({**TREE, "train": one[:2]}, "train shows 1 identity; training needs 2"),
    }
    for name, (tree, words) in cases.items():
        make(tmp_path / name, tree)
        with pytest.raises(ValueError, match=words):
            folder.load(tmp_path / name)


def test_images_outside_identity_folders_are_refused(tmp_path):
    (make(tmp_path) / "query" / "x.jpg").touch()
    with pytest.raises(ValueError, match=r"query holds 1 images outside .*: x\.jpg; move each"):
        folder.load(tmp_path)


ROWS = """path,split,pid,camid
b.jpg,train,7,1
sub/a.jpg,train,-1,0
a.jpg,train,3,2
a.jpg,query,3,2
c.jpg,gallery,0,0
"""


def make_table(root: Path, text=ROWS, *, name="index.csv") -> Path:
    (root / "sub").mkdir(parents=True)
    for image in ("a.jpg", "b.jpg", "c.jpg", "sub/a.jpg"):
        (root / image).touch()
    (root / name).write_text(text)
    return root / name


def test_table_rows_become_splits_sorted_by_path(tmp_path):
    file = make_table(tmp_path)
    dataset = table.load(file)
    assert (dataset.name, dataset.root) == ("table", str(tmp_path))
    assert named(tmp_path, dataset.train) == ["a.jpg", "b.jpg", "sub/a.jpg"]
    assert dataset.train.pid.tolist() == [3, 7, -1]
    assert dataset.train.camid.tolist() == [2, 1, 0]
    assert dataset.gallery.pid.tolist() == [0]
    assert dataset.train.pid.dtype == dataset.train.camid.dtype == np.int64
    assert table.load(tmp_path).train.path.tolist() == dataset.train.path.tolist()


def test_table_without_cameras_has_one_and_takes_absolute_paths(tmp_path):
    make_table(tmp_path)
    elsewhere = tmp_path / "tables" / "mine.csv"
    elsewhere.parent.mkdir()
    rows = [f"{tmp_path}/a.jpg,1,train", "../b.jpg,2,train", f"{tmp_path}/c.jpg,3,query",
            f"{tmp_path}/c.jpg,3,gallery"]  # fmt: skip
    elsewhere.write_text("\n".join(("path,pid,split", *rows)))
    dataset = table.load(elsewhere)
    assert dataset.train.path.tolist() == [f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg"]
    assert dataset.train.camid.tolist() == [0, 0]


def test_table_maps_names_to_their_rank(tmp_path):
    text = ROWS.replace(",7,", ",zoe,").replace(",-1,", ",ben,")
    dataset = table.load(make_table(tmp_path, text))
    # Sorted names: "0", "3", "ben", "zoe".
    assert dataset.train.pid.tolist() == [1, 3, 2]
    assert dataset.gallery.pid.tolist() == [0]


def test_parquet_categories_are_names(tmp_path):
    make_table(tmp_path)
    columns = {
        "path": ["a.jpg", "b.jpg", "c.jpg", "c.jpg"],
        "pid": pa.array(["y", "x", "y", "y"]).dictionary_encode(),
        "split": pa.array(["train", "train", "query", "gallery"]).dictionary_encode(),
    }
    pa_parquet.write_table(pa.table(columns), tmp_path / "index.parquet")
    assert table.load(tmp_path).train.pid.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("path,split", "file,split", "no column path; its columns are file, split, pid, camid"),
        (",query,", ",probe,", "has the split 'probe': expected train, query, gallery"),
        (",7,", ",7.5,", r"pid .* double \(7.5, -1.0, 3.0\): expected whole numbers or names"),
        (",7,1", ",7,x", "camid .* string .*: expected whole numbers$"),
        (",7,", ",,", "has 1 rows without pid"),
        ("c.jpg", "d.jpg", r"1 of the 5 images .* lists are not in .*d\.jpg"),
        ("b.jpg", "./a.jpg", r"1 images more than once in the split train: .*/a\.jpg"),
        ("c.jpg,gallery,0,0\n", "", "has no rows of the split gallery; .* and gallery or neither"),
        (",train,", ",query,", "has no rows of the split train"),
        ("train,7", "train,3", None),
    ],
)
def test_table_errors_name_the_value(tmp_path, old, new, words):
    file = make_table(tmp_path, ROWS.replace(old, new))
    if words is None:  # -1 is an identity as any other here
        assert len(np.unique(table.load(file).train.pid)) == 2
        return
    with pytest.raises(ValueError, match=words):
        table.load(file)


def test_table_needs_a_readable_file(tmp_path):
    with pytest.raises(ValueError, match=r"holds no table: expected index\.parquet or index\.csv"):
        table.load(tmp_path)
    with pytest.raises(ValueError, match=r"x\.csv is missing: expected a \.csv or \.parquet file"):
        table.load(tmp_path / "x.csv")
    (tmp_path / "x.txt").touch()
    with pytest.raises(ValueError, match=r"x\.txt is no table: its name must end in \.parquet or"):
        table.load(tmp_path / "x.txt")
    (tmp_path / "x.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match=r"x\.parquet does not read as a table"):
        table.load(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    ("values", "words"),
    [((0, 1, None, 0, 0), "1 of 3 train rows without modality"), ((0, 1, 2, 0, 0), "holds 2: exp")],
)
def test_modality_is_whole_and_known(tmp_path, values, words):
    make_table(tmp_path)
    rows = table.load(tmp_path)
    column = pa.array(values, pa.int64())
    write_arrow(to_arrow(rows, folder=tmp_path).append_column("modality", column),
                tmp_path / "index.parquet")  # fmt: skip
    with pytest.raises(ValueError, match=words):
        table.load(tmp_path)


def check_equal(found: Dataset, wanted: Dataset) -> None:
    for name, field in itertools.product(("train", "query", "gallery"), fields(Split)):
        mine, theirs = (getattr(getattr(d, name), field.name) for d in (found, wanted))
        if theirs is None:
            assert mine is None
        else:
            np.testing.assert_array_equal(mine, theirs)
            assert mine.dtype == theirs.dtype


@pytest.mark.parametrize("modalities", [(), ("query",), ("train", "query", "gallery")])
@pytest.mark.parametrize("place", ["index.csv", "index.parquet", "else/where.csv"])
def test_any_data_set_survives_being_written(tmp_path, place, modalities):
    dataset = folder.load(make(tmp_path, {**TREE, "query": ('anna/"odd", name_c2.jpg',)}))
    for name in modalities:
        split: Split = getattr(dataset, name)
        modality = np.arange(len(split), dtype=np.int64) % 2
        dataset = replace(dataset, **{name: replace(split, modality=modality)})
    write_table(dataset, tmp_path / place)
    check_equal(table.load(tmp_path / place), dataset)


def test_written_table_moves_with_its_images(tmp_path):
    make(tmp_path / "here")
    write_table(folder.load(tmp_path / "here"), tmp_path / "here" / "index.csv")
    (tmp_path / "here").rename(tmp_path / "there")
    moved = table.load(tmp_path / "there")
    assert named(tmp_path / "there", moved.query) == ["query/anna/q_c2_1.jpg"]


def test_a_table_is_written_as_csv_or_parquet_only(tmp_path):
    dataset = folder.load(make(tmp_path))
    with pytest.raises(ValueError, match=r"x\.json is no table: its name must end in"):
        write_table(dataset, tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()


def test_miniatures_of_own_data_are_read(tmp_path):
    miniature_modality.write_table(tmp_path)
    dataset = folder.load(tmp_path)
    check_equal(table.load(tmp_path), dataset)
    assert set(dataset.query.pid) <= set(dataset.gallery.pid)
    assert set(dataset.train.pid).isdisjoint(dataset.query.pid)
    assert set(dataset.query.camid) == {0, 1, 2}

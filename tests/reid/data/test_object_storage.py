"""Images in object storage: the pixels are those on disk, through faults; words for failures."""

import os
import pickle
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from reid.data import AugmentConfig, Draw, Table, files, open_pixels, torch_loader
from reid.data.datasets import load, table
from reid.data.decoding import UndecodableImages
from reid.data.encoded_store import EncodedStore
from reid.data.index import build_index
from reid.data.pack import pack
from reid.data.staging import Staging, stage
from reid.types import Dataset, Split

H, W = 8, 4
SPLITS = ("train", "query", "gallery")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Forty noisy images in three folders, with a table."""
    rng = np.random.default_rng(0)
    splits = {}
    for name, count in zip(SPLITS, (30, 4, 6), strict=True):
        folder = tmp_path / "data" / "images" / name
        folder.mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (20, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i:02}.png")
        splits[name] = Split(
            path=np.array([str(folder / f"{i:02}.png") for i in range(count)]),
            pid=np.arange(count) % 5,
            camid=np.arange(count) % 3,
        )
    made = Dataset(name="made", root=str(tmp_path / "data"), **splits)
    table.write_table(made, tmp_path / "data" / "index.parquet")
    return made


def upload(dataset: Dataset, folder: str) -> None:
    for file in sorted(Path(dataset.root).rglob("*.*")):
        files.write(f"{folder}/{file.relative_to(dataset.root).as_posix()}", file.read_bytes())


def pixels(split: Split, cache: Path) -> np.ndarray:
    store = open_pixels(split.path, height=H, width=W, cache_dir=cache)
    return store.read(np.arange(len(split)))


def check_same(found: Dataset, wanted: Dataset, cache: Path) -> None:
    for name in SPLITS:
        mine, theirs = getattr(found, name), getattr(wanted, name)
        np.testing.assert_array_equal(mine.pid, theirs.pid)
        np.testing.assert_array_equal(mine.camid, theirs.camid)
        np.testing.assert_array_equal(pixels(mine, cache), pixels(theirs, cache))


def test_a_table_of_objects_is_the_table_on_disk(dataset, tmp_path, s3):
    upload(dataset, f"{s3.bucket}/my data")
    for root in (
        f"{s3.bucket}/my data",
        f"{s3.bucket}/my data/",
        f"{s3.bucket}/my data/index.parquet",
    ):
        found = load("table", root)
        assert found.root == f"{s3.bucket}/my data"
    assert found.query.path[1] == f"{s3.bucket}/my data/images/query/01.png"
    check_same(found, dataset, tmp_path / "cache")
    before = s3.num_requests()
    pixels(found.train, tmp_path / "cache")
    assert s3.num_requests() - before == 1  # the folder is listed, no image is read again


def test_packed_images_are_those_on_disk(dataset, tmp_path, s3, monkeypatch):
    monkeypatch.setattr("reid.data.pack._GROUP_BYTES", 3000)  # a few images a group
    sizes = []
    index = build_index(dataset)
    for folder in (f"{s3.bucket}/packed", str(tmp_path / "packed")):
        pack(index, folder, shard_bytes=10_000, progress=lambda *call: sizes.append(call))
        check_same(load("table", folder), dataset, tmp_path / "cache")
        assert len([name for name in files.names_in(folder) if name.startswith("pack-")]) > 1
    assert sizes[-1] == (40, 40)
    again = str(tmp_path / "again")
    pack(build_index(load("table", f"{s3.bucket}/packed")), again)
    assert load("table", again).train.path[3].endswith(".parquet#train/03.png")
    check_same(load("table", again), dataset, tmp_path / "cache")


def test_a_changed_object_is_decoded_anew(dataset, tmp_path, s3):
    upload(dataset, s3.bucket)
    split = load("table", s3.bucket).query
    before = pixels(split, tmp_path / "cache")
    files.write(str(split.path[1]), Path(dataset.gallery.path[0]).read_bytes())
    time.sleep(1.1)  # objects are dated in seconds
    files.write(str(split.path[1]), Path(dataset.gallery.path[1]).read_bytes())
    after = pixels(split, tmp_path / "cache")
    np.testing.assert_array_equal(after[[0, 2, 3]], before[[0, 2, 3]])
    np.testing.assert_array_equal(after[1], pixels(dataset.gallery, tmp_path / "cache")[1])


def over_budget(split: Split, cache: Path, room: int) -> EncodedStore:
    """Open images that are to stay encoded, with room for copies of some bytes."""
    store = open_pixels(split.path, height=H, width=W, cache_dir=cache, budget_bytes=room)
    assert isinstance(store, EncodedStore)
    return store


def test_objects_that_stay_encoded_are_read_once_from_the_server(dataset, tmp_path, s3):
    upload(dataset, s3.bucket)
    split = load("table", s3.bucket).train
    rows, cache = np.arange(len(split)), tmp_path / "cache"
    sizes = [Path(path).stat().st_size for path in dataset.train.path]
    room = sum(sizes[:20])  # of thirty
    expected = pixels(dataset.train, cache)
    copies = stage(split.path.tolist(), folder=cache / "copies", room_bytes=room).copies
    assert list(copies) == split.path[:20].tolist()
    store = EncodedStore(split.path, height=H, width=W, staging=Staging(copies=copies))
    np.testing.assert_array_equal(store.read(rows), expected)
    before = s3.num_requests()
    np.testing.assert_array_equal(store.read(rows[:20]), expected[:20])
    assert s3.num_requests() == before
    np.testing.assert_array_equal(store.read(rows), expected)
    assert s3.num_requests() - before == 2 * 10  # a size and the bytes
    again = pickle.loads(pickle.dumps(store))
    before = s3.num_requests()
    assert [part.tobytes() for part in again.encoded(rows[:2])] == [
        Path(path).read_bytes() for path in dataset.train.path[:2]
    ]
    assert s3.num_requests() == before


def test_copies_of_shards_of_changed_objects_and_of_old_tables(dataset, tmp_path, s3):
    pack(build_index(dataset), f"{s3.bucket}/packed")
    split, cache = load("table", f"{s3.bucket}/packed").train, tmp_path / "cache"
    store = over_budget(split, cache, len(split) * H * W * 3 - 1)
    shard = files.divide(str(split.path[0]))[0]
    assert not store.staging.copies  # the shard is larger than that room
    room = 10**6
    staging = stage(split.path.tolist(), folder=cache / "copies", room_bytes=room)
    assert list(staging.copies) == [shard]
    store = EncodedStore(split.path, height=H, width=W, staging=staging)
    np.testing.assert_array_equal(
        store.read(np.array([7, 0])), pixels(dataset.train, cache)[[7, 0]]
    )
    files.write(shard, files.read(shard) + b" ")
    changed = stage(split.path.tolist(), folder=cache / "copies", room_bytes=room)
    assert changed.copies[shard] != staging.copies[shard]
    for number in range(12):
        files.write(f"{s3.bucket}/{number}.png", b"x")
        stage([f"{s3.bucket}/{number}.png"], folder=cache / "copies", room_bytes=room)
    assert len(list((cache / "copies").iterdir())) == 8
    assert not staging.copies[shard].exists()


def test_threads_that_want_a_copy_at_once_make_one(dataset, tmp_path, s3):
    upload(dataset, s3.bucket)
    name = str(load("table", s3.bucket).query.path[0])
    staging = stage([name], folder=tmp_path, room_bytes=10**6)
    before = s3.num_requests()
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(staging.nearest, [name] * 8))
    assert found == [str(staging.copies[name])] * 8
    assert s3.num_requests() - before == 2
    assert Path(found[0]).read_bytes() == Path(dataset.query.path[0]).read_bytes()
    assert [file.name for file in Path(found[0]).parent.iterdir()] == [Path(found[0]).name]


def test_copies_that_another_run_let_go_are_made_again(dataset, tmp_path, s3, monkeypatch):
    upload(dataset, s3.bucket)
    name = str(load("table", s3.bucket).query.path[0])
    staging = stage([name], folder=tmp_path / "copies", room_bytes=10**6)
    copy = staging.nearest(name)
    shutil.rmtree(tmp_path / "copies")
    assert staging.nearest(name) == copy
    assert Path(copy).exists()
    os.unlink(copy)
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError("No space left on device")))
    assert staging.nearest(name) == name


def test_a_missing_object_is_said_by_its_own_name(dataset, tmp_path, s3):
    upload(dataset, s3.bucket)
    split = load("table", s3.bucket).query
    store = over_budget(split, tmp_path / "cache", 100)
    staging = stage(split.path.tolist(), folder=tmp_path / "copies", room_bytes=10**6)
    system, path = files.open_system(str(split.path[2]))
    system.delete_file(path)
    for holds in (store, EncodedStore(split.path, height=H, width=W, staging=staging)):
        with pytest.raises(UndecodableImages, match=r"s3://bucket/images/query/02\.png \(no"):
            holds.read(np.arange(4))


def batches(split: Split) -> list[torch.Tensor]:
    """Return the images of three steps, read from where they are at each."""
    store = EncodedStore(split.path, height=H, width=W)
    tables = {"all": Table(store=store, camid=split.camid, labels={"pid": split.pid})}
    draws = [Draw(name="all", table="all", labels="pid", num_identities=4, num_instances=3)]
    at = {"augment": AugmentConfig(pad=2), "seed": 1, "round": 0, "device": "cpu"}
    return [step["all"].images for step in torch_loader(tables, draws, steps=range(3), **at)]


def test_batches_of_objects_are_bit_equal_to_those_of_files(dataset, tmp_path, s3):
    expected = batches(load("table", dataset.root).train)
    upload(dataset, f"{s3.bucket}/files")
    pack(build_index(dataset), f"{s3.bucket}/packed")
    for folder in ("files", "packed"):
        found = batches(load("table", f"{s3.bucket}/{folder}").train)
        assert len(found) == 3
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("kind", ["slow_down", "broken"])
def test_throttled_and_broken_transfers_are_repeated(dataset, tmp_path, s3, kind):
    upload(dataset, s3.bucket)
    s3.fail(kind, 3)
    found = load("table", s3.bucket)
    s3.fail(kind, 3)
    check_same(found, dataset, tmp_path / "cache")
    stay = EncodedStore(found.train.path, height=H, width=W)
    s3.fail(kind, 3)
    rows = np.array([7, 3, 3])
    np.testing.assert_array_equal(stay.read(rows), pixels(dataset.train, tmp_path / "cache")[rows])
    s3.fail(kind, 2)
    raw = stay.encoded(rows)
    assert [part.tobytes() for part in raw] == [
        Path(dataset.train.path[row]).read_bytes() for row in rows
    ]


def test_a_server_that_never_answers_well_is_no_fault_of_the_images(
    dataset, tmp_path, s3, monkeypatch
):
    upload(dataset, s3.bucket)
    split = load("table", s3.bucket).query
    monkeypatch.setattr(files, "ATTEMPTS", 1)
    s3.fail("slow_down", 10**6)
    with pytest.raises(ConnectionError, match=r"failed in 1 attempts, the last with: .*SLOW_DOWN"):
        pixels(split, tmp_path / "cache")
    assert list(tmp_path.glob("cache/*")) == []


def test_pauses_between_attempts_double(monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    busy = OSError("When reading: AWS Error SLOW_DOWN during GetObject operation: slow down")

    def action():
        if len(pauses) < 3:
            raise busy
        return "done"

    assert files.attempt("s3://bucket/a", action) == "done"
    assert pauses[1] / pauses[0] == pauses[2] / pauses[1] == 2
    assert files.PAUSE_S / 2 <= pauses[0] < files.PAUSE_S * 3 / 2


def test_attempts_end(monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)

    def action():
        raise OSError("AWS Error NETWORK_CONNECTION during GetObject operation: gone")

    with pytest.raises(ConnectionError, match=r"^s3://bucket/a failed in 4 attempts.*gone$"):
        files.attempt("s3://bucket/a", action)
    assert len(pauses) == 3


def test_missing_objects_are_named(dataset, tmp_path, s3):
    with pytest.raises(ValueError, match=r"^s3://bucket/no holds no table: expected index"):
        load("table", f"{s3.bucket}/no")
    with pytest.raises(ValueError, match=r"^the table s3://bucket/x\.csv is missing"):
        load("table", f"{s3.bucket}/x.csv")
    with pytest.raises(ValueError, match=r"^s3://bucket/a/b\.png: no such object$"):
        files.read(f"{s3.bucket}/a/b.png")
    with pytest.raises(ValueError, match=r"^s3://lost/b\.png: no such bucket \(s3://lost\)$"):
        files.read("s3://lost/b.png")
    upload(dataset, s3.bucket)
    split = load("table", s3.bucket).query
    system, path = files.open_system(str(split.path[2]))
    system.delete_file(path)
    with pytest.raises(
        UndecodableImages, match=r"1 of 4 .*: s3://bucket/images/query/02\.png \(no"
    ):
        pixels(split, tmp_path / "cache")
    with pytest.raises(ValueError, match=r"1 of the 40 images .* are not in s3://bucket: s3://buc"):
        load("table", s3.bucket)


def test_missing_packed_images_and_shards_are_named(dataset, tmp_path):
    pack(build_index(dataset), str(tmp_path / "packed"))
    path = str(load("table", tmp_path / "packed").query.path[0])
    with pytest.raises(ValueError, match=r"pack-00000-\w{8}\.parquet#x\.png: no such image in the"):
        files.read(f"{files.divide(path)[0]}#x.png")
    os.unlink(files.divide(path)[0])
    with pytest.raises(ValueError, match=r"40 of the 40 images .* lists are not in"):
        load("table", tmp_path / "packed")


def test_refused_credentials_are_said_once_and_at_once(dataset, tmp_path, s3):
    upload(dataset, s3.bucket)
    found = load("table", s3.bucket)
    s3.fail("denied", 10**6)
    before = s3.num_requests()
    for action in (lambda: load("table", s3.bucket), lambda: pixels(found.train, tmp_path / "c")):
        with pytest.raises(ValueError, match=r"is refused \(ACCESS_DENIED\): give credentials"):
            action()
    assert s3.num_requests() - before < 5


def test_a_packed_data_set_keeps_its_name(dataset, s3):
    place = f"{s3.bucket}/market1501"
    with pytest.raises(ValueError, match=f"^{place} holds no table: .* --pack {place}` writes it$"):
        load("market1501", place)
    pack(build_index(dataset), place)
    found, same = load("market1501", place), load("table", place)
    assert found.name == "market1501"
    np.testing.assert_array_equal(found.train.path, same.train.path)
    np.testing.assert_array_equal(found.train.pid, dataset.train.pid)


@pytest.mark.parametrize(
    ("folder", "name", "joined"),
    [
        ("/a/b", "c/d.png", "/a/b/c/d.png"),
        ("/a/b", "../d.png", "/a/d.png"),
        ("/a/b", "/d.png", "/d.png"),
        ("/a/b", "s3://x/d.png", "s3://x/d.png"),
        ("s3://x/b", "./c/../d.png", "s3://x/b/d.png"),
        ("s3://x/b", "s3://y/d.png", "s3://y/d.png"),
        ("s3://x", "d.png", "s3://x/d.png"),
    ],
)
def test_names_are_joined(folder, name, joined):
    assert files.join(folder, name) == joined

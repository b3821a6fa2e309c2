"""What checking a data set finds, on files made to be found."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pa_parquet
import pytest
from PIL import Image

from reid.data.datasets import table
from reid.data.index import build_index, inspect, shared_images, summarise, write_index
from reid.types import Dataset, Split


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(file: Path, image: Image.Image, **options) -> str:
    image.save(file, **options)
    return str(file)


def picture(seed: int = 0, mode: str = "RGB") -> Image.Image:
    return Image.fromarray(noise(seed, 12, 8, 3)).convert(mode)


def test_an_ordinary_image_has_facts_and_no_note(tmp_path):
    path = save(tmp_path / "a.png", picture())
    facts = inspect(path)
    content = Path(path).read_bytes()
    assert (facts.height, facts.width, facts.num_bytes) == (12, 8, len(content))
    assert facts.sha256 == hashlib.sha256(content).hexdigest()
    assert facts.note == ""
    assert facts.is_readable


@pytest.mark.parametrize(
    ("name", "image", "note"),
    [
        ("a.jpg", picture(mode="L"), "grayscale"),
        ("a.png", picture(mode="1"), "grayscale"),
        ("a.png", picture(mode="LA"), "grayscale"),
        ("a.jpg", picture(mode="CMYK"), "CMYK"),
        ("a.png", picture(mode="P"), "palette"),
        ("a.png", picture(mode="RGBA"), "mode RGBA"),
        ("a.png", Image.fromarray(noise(0, 12, 8).astype(np.uint16) * 257), "16-bit"),
        ("a.png", picture().crop((0, 0, 1, 1)), "1x1"),
        ("a.bmp", picture(mode="L").crop((0, 0, 1, 1)), "grayscale; 1x1"),
    ],
)
def test_odd_images_are_named_and_readable(tmp_path, name, image, note):
    facts = inspect(save(tmp_path / name, image))
    assert facts.note == note
    assert facts.is_readable


@pytest.mark.parametrize(
    ("orientation", "size", "note"),
    [(1, (12, 8), ""), (3, (12, 8), "EXIF-rotated"), (6, (8, 12), "EXIF-rotated")],
)
def test_size_is_that_of_the_upright_image(tmp_path, orientation, size, note):
    exif = Image.Exif()
    exif[0x0112] = orientation
    facts = inspect(save(tmp_path / "a.jpg", picture(), exif=exif))
    assert ((facts.height, facts.width), facts.note) == (size, note)


def test_an_image_over_the_limit_is_not_decoded(tmp_path):
    facts = inspect(save(tmp_path / "a.png", Image.new("1", (2**13, 2**12 + 1))))
    assert (facts.height, facts.width) == (2**12 + 1, 2**13)
    assert facts.note == f"unreadable: over {2**25} pixels (8192 x 4097)"
    assert not facts.is_readable


def test_what_does_not_decode_says_why(tmp_path):
    empty, text, cut = (tmp_path / f"{name}.jpg" for name in ("empty", "text", "cut"))
    empty.touch()
    text.write_text("no image")
    save(cut, Image.fromarray(noise(0, 120, 80, 3)))
    cut.write_bytes(cut.read_bytes()[:3000])
    found = {path.stem: inspect(str(path)) for path in (empty, text, cut, tmp_path / "absent.jpg")}
    assert not any(facts.is_readable for facts in found.values())
    for name, reason in (
        ("empty", "zero bytes"),
        ("text", "no image format"),
        ("cut", "truncated"),
        ("absent", "No such file"),
    ):
        assert found[name].note.startswith("unreadable: ")
        assert reason in found[name].note
    assert (found["cut"].height, found["cut"].width, found["cut"].num_bytes) == (120, 80, 3000)


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    """Images by number of their content; equal numbers are equal bytes."""

    def split(name: str, rows: list[tuple[int, int, int]]) -> Split:
        (tmp_path / name).mkdir()
        paths = [
            save(tmp_path / name / f"{row}.png", picture(content))
            for row, (content, _, _) in enumerate(rows)
        ]
        pid, camid = np.array(rows, dtype=np.int64)[:, 1:].T.copy()
        return Split(path=np.array(paths), pid=pid, camid=camid)

    return Dataset(
        name="made",
        root=str(tmp_path),
        # (content, pid, camid)
        train=split("train", [(0, 1, 0), (1, 1, 1), (1, 2, 0), (1, 2, 0), (2, 3, 2)]),
        query=split("query", [(3, 5, 0), (4, 6, 0)]),
        gallery=split("gallery", [(3, 5, 1), (0, -1, 0), (6, 6, 1), (7, 6, 1), (8, 0, 3)]),
    )


def test_counts_follow_their_definitions(dataset):
    counts = summarise(build_index(dataset))
    train, gallery = counts["train"], counts["gallery"]
    assert (train.images, train.identities, train.cameras) == (5, 3, 3)
    assert train.identities_with_one_image == 1  # 3
    assert train.identities_with_one_camera == 2  # 2 and 3
    assert train.repeated_images == 2  # two more of content 1
    assert (gallery.images, gallery.identities) == (5, 3)  # junk is no identity
    assert gallery.identities_with_one_image == 2  # 5 and 0
    assert gallery.identities_with_one_camera == 3
    assert gallery.repeated_images == 0


def test_same_bytes_across_splits_are_counted_once(dataset):
    shared = shared_images(build_index(dataset))
    assert shared == {
        ("train", "query"): 0,
        ("train", "gallery"): 1,
        ("query", "gallery"): 1,
    }


def test_unreadable_files_are_counted_apart_from_odd_and_equal_ones(dataset):
    for row in (0, 1):
        Path(dataset.gallery.path[row]).write_bytes(b"")
    save(Path(dataset.gallery.path[2]), picture(mode="L"))
    index = build_index(dataset)
    counts = summarise(index)["gallery"]
    assert (counts.unreadable_images, counts.repeated_images) == (2, 0)
    assert counts.odd == {"grayscale": 1}
    assert index.unreadable() == dict.fromkeys(dataset.gallery.path[:2].tolist(), "zero bytes")
    assert not summarise(index)["train"].odd


def test_a_file_in_two_splits_is_read_once_and_reported_in_both(dataset):
    both = Dataset(**{**vars(dataset), "query": dataset.train})
    calls = []
    index = build_index(both, progress=lambda done, total: calls.append((done, total)))
    assert index.files["query"] == index.files["train"]
    assert calls == [(10, 10)]


def test_written_index_has_a_row_an_image_and_is_a_data_set(dataset, tmp_path):
    Path(dataset.query.path[1]).write_bytes(b"")
    write_index(build_index(dataset), tmp_path / "index.parquet")
    rows = pa_parquet.read_table(tmp_path / "index.parquet").to_pylist()
    assert len(rows) == 5 + 2 + 5
    assert set(rows[0]) == {
        "path", "split", "pid", "camid", "height", "width", "bytes", "sha256", "note",
    }  # fmt: skip
    content = (tmp_path / "train" / "4.png").read_bytes()
    assert rows[4] == {
        "path": "train/4.png",
        "split": "train",
        "pid": 3,
        "camid": 2,
        "height": 12,
        "width": 8,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "note": "",
    }
    assert rows[6]["note"] == "unreadable: zero bytes"
    read = table.load(tmp_path)
    for name in ("train", "query", "gallery"):
        for column in ("path", "pid", "camid"):
            found, wanted = (getattr(getattr(data, name), column) for data in (read, dataset))
            np.testing.assert_array_equal(found, wanted)

"""Files to pixels: what is decoded, that it happens once, and that nothing half-made is left."""

import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reid.data.decoding import UndecodableImages, decode
from reid.data.encoded_store import EncodedStore
from reid.data.pixel_store import DamagedStore, PixelStore, open_pixels
from reid.data.usable import undecodable

H, W = 16, 8


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return str(path)


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    sizes = [(30, 20), (16, 8), (9, 40), (64, 33)]
    return np.array(
        [
            save(tmp_path / f"{i}.png", rng.integers(0, 256, (*size, 3), dtype=np.uint8))
            for i, size in enumerate(sizes)
        ]
    )


def expected(path):
    image = Image.open(path).convert("RGB").resize((W, H), Image.Resampling.BICUBIC)
    return np.asarray(image)


def opened(paths, tmp_path, **options):
    return open_pixels(paths, height=H, width=W, cache_dir=tmp_path / "cache", **options)


def test_holds_each_image_resized(paths, tmp_path):
    store = opened(paths, tmp_path)
    assert len(store) == 4
    assert (store.height, store.width) == (H, W)
    rows = np.array([3, 0, 0, 2])
    read = store.read(rows)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, np.stack([expected(paths[row]) for row in rows]))
    read[:] = 0  # a copy: the store does not change
    np.testing.assert_array_equal(store.read(rows[:1])[0], expected(paths[3]))


def test_decodes_once(paths, tmp_path, monkeypatch):
    calls = []
    first = opened(paths, tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(4, 4)]

    def refuse(path):
        raise AssertionError(f"{path} decoded again")

    monkeypatch.setattr(Image, "open", refuse)
    again = opened(paths, tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(4, 4)]
    rows = np.arange(4)
    np.testing.assert_array_equal(again.read(rows), first.read(rows))


def test_a_changed_file_shape_or_order_is_another_store(paths, tmp_path):
    files = {opened(paths, tmp_path).file, opened(paths[::-1].copy(), tmp_path).file}
    files.add(open_pixels(paths, height=W, width=H, cache_dir=tmp_path / "cache").file)
    status = os.stat(paths[0])
    os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    files.add(opened(paths, tmp_path).file)
    save(paths[0], np.zeros((50, 50, 3), dtype=np.uint8))
    store = opened(paths, tmp_path)
    files.add(store.file)
    assert len(files) == 5
    assert not store.read(np.array([0])).any()


def test_exif_orientation_is_applied(tmp_path):
    array = np.zeros((W, H, 3), dtype=np.uint8)
    array[:, : H // 2] = 255  # white left half
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying: turn by 90 degrees clockwise to stand
    path = save(tmp_path / "turned.png", array, exif=exif)
    pixels = opened(np.array([path]), tmp_path).read(np.array([0]))[0]
    np.testing.assert_array_equal(pixels, np.rot90(array, -1))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_any_mode_becomes_rgb(tmp_path, mode):
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 256, (H, W, 3), dtype=np.uint8)).convert(mode)
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    image.save(path)
    pixels = opened(np.array([str(path)]), tmp_path).read(np.array([0]))[0]
    np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))


def test_all_bad_images_are_named_and_nothing_is_kept(paths, tmp_path):
    bad = []
    for i in range(13):
        path = tmp_path / f"bad{i:02}.jpg"
        if i != 12:  # the last one is missing
            path.write_bytes(b"not an image")
        bad.append(str(path))
    whole = tmp_path / "whole.png"
    save(whole, np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8))
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole.read_bytes()[:2000])
    mixed = np.array([paths[0], *bad, paths[1], str(cut)])
    with pytest.raises(UndecodableImages, match="14 of 16 images") as caught:
        opened(mixed, tmp_path)
    assert caught.value.paths == (*bad, str(cut))
    assert bad[9] in str(caught.value)
    assert "and 4 more" in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_interrupted_build_goes_on_where_it_stopped(paths, tmp_path, monkeypatch):
    monkeypatch.setattr("reid.data.pixel_file._BLOCK", 1)
    calls = []

    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(paths, tmp_path, progress=interrupt)
    assert not list((tmp_path / "cache").glob("*.npy"))
    monkeypatch.setattr("reid.data.pixel_store.decode", counted(calls))
    store = opened(paths, tmp_path)
    assert calls == [paths[3]]
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [store.file.name]
    for row, image in enumerate(store.read(np.arange(4))):
        np.testing.assert_array_equal(image, expected(paths[row]))


def counted(calls):
    """Return `decode` that notes the names it is given."""

    def one(name, **size):
        calls.append(name)
        return decode(name, **size)

    return one


BUILDER = """
import sys, time
import numpy as np
from reid.data import pixel_file, pixel_store

calls, decode = [], pixel_store.decode

def slowly(name, **size):
    calls.append(name)
    time.sleep(0.02)
    return decode(name, **size)

pixel_store.decode, pixel_file._BLOCK = slowly, 2
shown = []
sys.stdin.readline()
store = pixel_store.open_pixels(
    np.array(sys.argv[2:]), height=16, width=8, cache_dir=sys.argv[1],
    progress=lambda done, total: (shown.append(done), print(done, flush=True)),
)
print("decoded", len(calls), store.file, flush=True)
"""


@pytest.fixture
def many(tmp_path):
    rng = np.random.default_rng(0)
    return [
        save(tmp_path / f"{i:02}.png", rng.integers(0, 256, (16, 8, 3), dtype=np.uint8))
        for i in range(60)
    ]


def start_builder(many, tmp_path):
    """Start a process that waits for a line, then builds the store two images at a time."""
    command = [sys.executable, "-c", BUILDER, str(tmp_path / "cache"), *many]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_processes_divide_the_images_among_them(many, tmp_path):
    builders = [start_builder(many, tmp_path) for _ in range(3)]
    for builder in builders:
        builder.stdin.write("go\n")
        builder.stdin.flush()
    last = [builder.communicate(timeout=60)[0].splitlines()[-1].split() for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0, 0]
    counts = [int(words[1]) for words in last]
    assert sum(counts) == len(many)
    assert len({words[2] for words in last}) == 1
    assert [str(file) for file in (tmp_path / "cache").iterdir()] == [last[0][2]]
    pixels = PixelStore(Path(last[0][2])).read(np.arange(len(many)))
    np.testing.assert_array_equal(pixels, [expected(name) for name in many])


def test_a_killed_builders_blocks_are_taken_over(many, tmp_path):
    first, second = start_builder(many, tmp_path), start_builder(many, tmp_path)
    with first, second:
        first.stdin.write("go\n")
        first.stdin.flush()
        while int(first.stdout.readline()) < 20:
            pass
        first.kill()
        last = second.communicate("go\n", timeout=60)[0].splitlines()[-1].split()
    assert second.returncode == 0
    assert 2 <= int(last[1]) <= len(many) - 20
    pixels = PixelStore(Path(last[2])).read(np.arange(len(many)))
    np.testing.assert_array_equal(pixels, [expected(name) for name in many])


def test_builders_of_one_process_agree(paths, tmp_path):
    stores = [None] * 4

    def build(position):
        stores[position] = opened(paths, tmp_path)

    threads = [threading.Thread(target=build, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = np.arange(4)
    for store in stores:
        np.testing.assert_array_equal(store.read(rows), stores[0].read(rows))
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [stores[0].file.name]


def test_more_images_than_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr("reid.data.pixel_file._BLOCK", 3)
    paths = [
        save(tmp_path / f"{i}.png", np.full((H, W, 3), 10 * i, dtype=np.uint8)) for i in range(8)
    ]
    calls = []
    store = opened(np.array(paths), tmp_path, progress=lambda *call: calls.append(call))
    assert calls == [(3, 8), (6, 8), (8, 8)]
    np.testing.assert_array_equal(store.read(np.arange(8))[:, 0, 0, 0], 10 * np.arange(8))


def test_pickles_as_a_name(paths, tmp_path):
    store = opened(paths, tmp_path)
    data = pickle.dumps(store)
    assert len(data) < 1000
    np.testing.assert_array_equal(pickle.loads(data).read(np.arange(4)), store.read(np.arange(4)))


@pytest.mark.parametrize("keep", [0, 50, 500, -1, "longer", "header", "sums"])
def test_a_file_that_is_not_what_was_written_is_made_anew(paths, tmp_path, keep, caplog):
    store = opened(paths, tmp_path)
    whole = store.file.read_bytes()
    changed = {
        "longer": whole[:-60] + b"x" + whole[-60:],
        "header": b"x" + whole[1:],
        "sums": whole[: -len(b"]") - 40] + b"x" + whole[-40:],
    }
    store.file.write_bytes(changed[keep] if isinstance(keep, str) else whole[:keep])
    again = opened(paths, tmp_path)
    assert "the images are decoded again" in caplog.text
    assert again.file.read_bytes() == whole


def test_a_damaged_record_is_never_given_out(paths, tmp_path, caplog):
    store = opened(paths, tmp_path)
    right, whole = store.read(np.arange(4)), store.file.read_bytes()
    at = whole.index(right[2].tobytes()) + 7

    def damage():
        content = bytearray(whole)
        content[at] ^= 1
        store.file.write_bytes(content)
        return opened(paths, tmp_path)

    damaged = damage()
    for _ in range(2):
        np.testing.assert_array_equal(damaged.read(np.array([2, 1, 2])), right[[2, 1, 2]])
    assert "image 2 of" in caplog.text
    assert not store.file.exists()
    assert opened(paths, tmp_path).file.read_bytes() == whole

    damaged = damage()
    os.unlink(paths[2])
    np.testing.assert_array_equal(damaged.read(np.array([3, 0])), right[[3, 0]])
    with pytest.raises(DamagedStore, match=r"2\.png no longer gives image 2 of it"):
        damaged.read(np.array([2]))


def test_the_file_is_an_array_for_numpy(paths, tmp_path):
    store = opened(paths, tmp_path)
    np.testing.assert_array_equal(np.load(store.file), store.read(np.arange(4)))


def test_pixels_over_the_budget_stay_encoded(paths, tmp_path, caplog):
    needed = 4 * H * W * 3
    store = opened(paths, tmp_path, budget_bytes=needed - 1)
    assert isinstance(store, EncodedStore)
    assert not (tmp_path / "cache").exists()
    (line,) = caplog.messages
    assert "they stay encoded" in line
    rows = np.array([2, 0])
    decoded = opened(paths, tmp_path, budget_bytes=needed)
    assert isinstance(decoded, PixelStore)
    np.testing.assert_array_equal(store.read(rows), decoded.read(rows))


def test_what_does_not_decode_is_found_once(paths, tmp_path):
    with open(paths[2], "wb") as file:
        file.write(b"no image")
    os.unlink(paths[0])
    calls = []

    def find():
        return undecodable(
            paths, cache_dir=tmp_path / "cache", progress=lambda *call: calls.append(call)
        )

    for _ in range(2):
        assert find() == {0: "No such file or directory", 2: "no image format is recognised"}
        assert calls == [(4, 4)]
    save(paths[2], np.zeros((3, 3, 3), dtype=np.uint8))
    assert find() == {0: "No such file or directory"}
    assert calls == [(4, 4)] * 2


def test_an_empty_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one image"):
        opened(np.array([], dtype=str), tmp_path)

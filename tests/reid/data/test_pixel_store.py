"""Files to pixels: what is decoded, that it happens once, and that nothing half-made is left."""

import os
import pickle
import threading

import numpy as np
import pytest
from PIL import Image

from reid.data.pixel_store import UndecodableImages, open_pixels

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


def test_an_interrupted_build_leaves_nothing(paths, tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(paths, tmp_path, progress=interrupt)
    assert list((tmp_path / "cache").iterdir()) == []
    assert len(opened(paths, tmp_path)) == 4


def test_builders_at_once_agree(paths, tmp_path):
    meet = threading.Barrier(4)
    stores = [None] * 4

    def build(position):
        stores[position] = opened(paths, tmp_path, progress=lambda *_: meet.wait(timeout=10))

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
    monkeypatch.setattr("reid.data.pixel_store._BLOCK", 3)
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


def test_an_empty_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one image"):
        opened(np.array([], dtype=str), tmp_path)

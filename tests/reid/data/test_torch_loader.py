"""Steps to batches: contents, resuming, ranks, and a thread that ends with its iterator."""

import dataclasses
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from reid.data.augment import AugmentConfig, normalise
from reid.data.pixel_store import open_pixels
from reid.data.steps import AugmentedDraw, Draw, Table, planner
from reid.data.torch_loader import read_batches, torch_loader

H, W, N = 12, 6, 40
PLAIN = AugmentConfig(flip=0.0, pad=0, local_grayscale=0.0, global_grayscale=0.0, erasing=0.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths = []
    for i in range(N):
        path = folder / f"{i:02}.png"
        Image.fromarray(rng.integers(0, 256, (H, W, 3), dtype=np.uint8)).save(path)
        paths.append(str(path))
    return open_pixels(np.array(paths), height=H, width=W, cache_dir=folder / "cache")


@pytest.fixture(scope="module")
def tables(store):
    rng = np.random.default_rng(1)
    labels = {"global": rng.integers(-1, 8, N), "top": rng.integers(0, 5, N)}
    return {"target": Table(store=store, camid=rng.integers(0, 3, N), labels=labels)}


DRAWS = (
    Draw(name="global", table="target", labels="global", num_identities=4, num_instances=2),
    Draw(name="top", table="target", labels="top", num_identities=4, num_instances=3),
    Draw(name="random", table="target", labels=None, num_identities=4, num_instances=4),
)


def loader(tables, draws=DRAWS, **changes):
    options = {"augment": AugmentConfig(pad=2), "seed": 1, "round": 0, "steps": range(8)}
    return torch_loader(tables, draws, **{**options, "device": "cpu", **changes})


def assert_equal(first, second):
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.index, second.index)
    assert torch.equal(first.camid, second.camid)
    assert first.labels.keys() == second.labels.keys()
    assert all(torch.equal(first.labels[view], second.labels[view]) for view in first.labels)


def alive():
    return [t for t in threading.enumerate() if t.name.startswith("reid-prefetch")]


def test_batches_hold_the_rows_they_name(tables, store):
    table = tables["target"]
    steps = list(loader(tables, augment=PLAIN))
    assert len(steps) == 8
    for step in steps:
        assert list(step) == ["global", "top", "random"]
        for batch in step.values():
            rows = batch.index.numpy()
            assert torch.equal(batch.images, normalise(torch.from_numpy(store.read(rows))))
            np.testing.assert_array_equal(batch.camid, table.camid[rows])
        for name in ("global", "top"):
            batch = step[name]
            assert set(batch.labels) == {"global", "top"}
            for view, labels in batch.labels.items():
                np.testing.assert_array_equal(labels, table.labels[view][batch.index.numpy()])
            assert len(batch.labels[name].unique()) == 4
        assert step["random"].labels == {}
        assert len(step["random"].index.unique()) == 16


def test_resumes_at_any_step_bit_for_bit(tables):
    whole = list(loader(tables))
    tail = list(loader(tables, steps=range(5, 8)))
    assert len(tail) == 3
    for first, second in zip(whole[5:], tail, strict=True):
        for name in first:
            assert_equal(first[name], second[name])


def test_ranks_share_the_batch_of_one(tables):
    alone = list(loader(tables))
    ranks = [list(loader(tables, rank=rank, world=2)) for rank in range(2)]
    for step, left, right in zip(alone, *ranks, strict=True):
        for name, batch in step.items():
            images = torch.cat([left[name].images, right[name].images])
            assert torch.equal(images, batch.images)
            index = torch.cat([left[name].index, right[name].index])
            assert torch.equal(index, batch.index)


def test_a_draw_does_not_depend_on_the_others(tables):
    together, apart = next(loader(tables)), next(loader(tables, draws=DRAWS[1:2]))
    assert_equal(together["top"], apart["top"])
    twin = dataclasses.replace(DRAWS[0], name="twin")
    step = next(loader(tables, draws=[DRAWS[0], twin]))
    assert not torch.equal(step["global"].index, step["twin"].index)


def test_a_second_view_leaves_the_first_as_it_was(tables, monkeypatch, store):
    draws = [dataclasses.replace(spec, views=2) for spec in DRAWS]
    config = AugmentConfig(pad=2, colour_jitter=0.5, channel_exchange=0.5)
    once = list(loader(tables, augment=config))
    read, reads = type(store).read, []

    def count(self, rows):
        reads.append(rows)
        return read(self, rows)

    monkeypatch.setattr(type(store), "read", count)
    twice = list(loader(tables, draws=draws, augment=config))
    assert len(reads) == len(twice) * len(draws)
    for single, double in zip(once, twice, strict=True):
        for name, batch in single.items():
            assert_equal(batch, double[name])
            assert batch.second is None
            assert not torch.equal(double[name].second, batch.images)
            assert double[name].second.shape == batch.images.shape
    ranks = [list(loader(tables, draws=draws, augment=config, rank=r, world=2)) for r in range(2)]
    for double, left, right in zip(twice, *ranks, strict=True):
        for name, batch in double.items():
            assert torch.equal(torch.cat([left[name].second, right[name].second]), batch.second)


def test_each_view_has_its_own_augmentation(tables, store):
    exchange = dataclasses.replace(PLAIN, channel_exchange=1.0)
    pair = AugmentedDraw(**vars(DRAWS[0]) | {"views": 2}, augment=(PLAIN, exchange))
    instead = AugmentedDraw(**vars(DRAWS[1]), augment=(PLAIN,))
    step = next(loader(tables, draws=[pair, instead]))
    for batch in step.values():
        plain = normalise(torch.from_numpy(store.read(batch.index.numpy())))
        assert torch.equal(batch.images, plain)
    second, images = step["global"].second, step["global"].images
    assert torch.equal(second, second[:, :1].expand_as(second))
    copied = (second == images).all(dim=(2, 3))
    assert (copied.sum(dim=1) == 1).all()


def test_views_are_drawn_independently(tables):
    many = Draw(
        name="many", table="target", labels=None, num_identities=50, num_instances=40, views=2
    )
    options = {"augment": AugmentConfig(colour_jitter=0.5), "seed": 1, "round": 0}
    (plan,) = planner(tables, [many], **options)(0)
    first, second = plan.params
    for left, right in (
        (first.flip, second.flip),
        (first.offset[:, 0], second.offset[:, 0]),
        (first.erase_box[:, 2] > 0, second.erase_box[:, 2] > 0),
        (first.jitter[:, 0], second.jitter[:, 0]),
    ):
        assert abs(np.corrcoef(left, right)[0, 1]) < 4 / np.sqrt(2000)


def test_round_and_seed_change_the_batches(tables):
    first = next(loader(tables))["global"]
    for change in ({"round": 1}, {"seed": 2}):
        assert not torch.equal(next(loader(tables, **change))["global"].images, first.images)


def test_the_thread_ends_with_the_iterator(tables):
    assert alive() == []
    batches = loader(tables, steps=range(10**9))
    next(batches)
    assert len(alive()) == 1
    batches.close()
    assert alive() == []
    for _ in loader(tables):
        pass
    assert alive() == []


def test_errors_of_the_thread_are_raised_at_their_step(tables, monkeypatch, store):
    reads = []
    read = type(store).read

    def fail_third(self, rows):
        reads.append(len(rows))
        if len(reads) == 3:
            raise OSError("disk gone")
        return read(self, rows)

    monkeypatch.setattr(type(store), "read", fail_third)
    batches = loader(tables, draws=DRAWS[:1])
    next(batches)
    next(batches)
    with pytest.raises(OSError, match="disk gone"):
        next(batches)
    assert alive() == []
    with pytest.raises(StopIteration):
        next(batches)


def test_prefetches_two_batches_and_no_more(tables, monkeypatch, store):
    third, fourth = threading.Event(), threading.Event()
    read, reads = type(store).read, []

    def count(self, rows):
        reads.append(len(rows))
        {3: third, 4: fourth}.get(len(reads), threading.Event()).set()
        return read(self, rows)

    monkeypatch.setattr(type(store), "read", count)
    batches = loader(tables, draws=DRAWS[:1], steps=range(100))
    next(batches)
    assert third.wait(timeout=10)  # one in use, two ahead
    assert not fourth.wait(timeout=0.3)
    next(batches)
    assert fourth.wait(timeout=10)
    batches.close()


def test_read_batches_keeps_order_and_one_shape(store):
    rows = np.array([7, 3, 3, 30, 11, 0, 25])
    batches = list(read_batches(store, rows=rows, batch_size=3, device="cpu"))
    assert [len(batch) for batch in batches] == [3, 3, 3]
    padded = np.array([7, 3, 3, 30, 11, 0, 25, 25, 25])
    assert torch.equal(torch.cat(batches), normalise(torch.from_numpy(store.read(padded))))
    assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch in batches)


def test_read_batches_of_ranges(store):
    (batch,) = read_batches(store, rows=range(35, N), batch_size=8, device="cpu")
    assert torch.equal(batch[:5], normalise(torch.from_numpy(store.read(np.arange(35, N)))))
    assert list(read_batches(store, rows=range(0), batch_size=8, device="cpu")) == []


def test_impossible_draws_are_refused_before_the_first_step(tables, store):
    replace = dataclasses.replace
    with pytest.raises(ValueError, match="no table 'source'"):
        loader(tables, draws=[replace(DRAWS[0], table="source")])
    with pytest.raises(ValueError, match=r"\['global', 'top'\], not 'bottom'"):
        loader(tables, draws=[replace(DRAWS[0], labels="bottom")])
    with pytest.raises(ValueError, match="its own name"):
        loader(tables, draws=[DRAWS[0], DRAWS[0]])
    with pytest.raises(ValueError, match="views=3, give 1 or 2"):
        loader(tables, draws=[replace(DRAWS[0], views=3)])
    with pytest.raises(ValueError, match="1 augmentations for views=2"):
        loader(tables, draws=[AugmentedDraw(**vars(DRAWS[0]) | {"views": 2}, augment=(PLAIN,))])
    short = Table(store=store, camid=np.zeros(3, dtype=np.int64), labels={})
    with pytest.raises(ValueError, match="40 images"):
        loader({"target": short}, draws=DRAWS[2:])
    with pytest.raises(ValueError, match="divided among 3 ranks"):
        next(loader(tables, world=3))


@pytest.mark.gpu
def test_batches_arrive_on_the_gpu(tables):
    ours, reference = next(loader(tables, device="cuda")), next(loader(tables))
    for name, batch in ours.items():
        assert batch.images.is_cuda
        torch.testing.assert_close(batch.images.cpu(), reference[name].images, atol=1e-6, rtol=0)
        assert torch.equal(batch.index.cpu(), reference[name].index)

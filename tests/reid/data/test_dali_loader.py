"""The DALI loader against the reference loader: same rows, boxes and mirrors, same numbers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reid.data import AugmentConfig, AugmentedDraw, Draw, Table, apply, open_pixels, torch_loader
from reid.data.dali_loader import dali_loader
from reid.data.encoded_store import EncodedStore
from reid.data.steps import planner

N, HEIGHT, WIDTH = 24, 32, 16
DRAWS = (
    Draw(name="first", table="target", labels="global", num_identities=4, num_instances=2),
    Draw(name="second", table="target", labels=None, num_identities=4, num_instances=2),
)
PIXELS = AugmentConfig(
    flip=0.0, pad=0, local_grayscale=0.0, global_grayscale=0.0, erasing=0.0,
    mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255),
)  # fmt: skip
COLOURS = AugmentConfig(pad=3, colour_jitter=0.7, channel_exchange=0.5, channel_grey=0.2)
EXCHANGE = replace(COLOURS, colour_jitter=0.0)
AT = {"seed": 3, "round": 1, "device": "cpu"}


def in_pairs(pair: tuple[AugmentConfig, AugmentConfig]) -> AugmentedDraw:
    size = {"num_identities": 4, "num_instances": 2, "views": 2}
    return AugmentedDraw(name="first", table="target", labels="global", augment=pair, **size)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Smooth pictures of twice the size, so that resizing is no matter of single pixels."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    names = [str(folder / f"{row:02d}.jpg") for row in range(N)]
    for name in names:
        small = Image.fromarray(rng.integers(0, 256, (4, 2, 3), dtype=np.uint8))
        small.resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.BICUBIC).save(name, quality=95)
    return np.array(names)


def tables(store: object) -> dict[str, Table]:
    labels = {"global": np.arange(N) // 4, "top": np.arange(N) % 5}
    table = Table(store=store, camid=np.arange(N) % 3, labels=labels)  # type: ignore[arg-type]
    return {"target": table}


@pytest.fixture(scope="module")
def decoded(paths: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Table]:
    cache = tmp_path_factory.mktemp("cache")
    return tables(open_pixels(paths, height=HEIGHT, width=WIDTH, cache_dir=cache))


@pytest.mark.parametrize("pad_mode", ["edge", "zero"])
def test_batches_are_the_reference_loaders(decoded: dict[str, Table], pad_mode: str) -> None:
    always = {"local_grayscale": 0.7, "erasing": 0.7, "global_grayscale": 0.2}
    augment = AugmentConfig(pad=3, pad_mode=pad_mode, **always)  # type: ignore[arg-type]
    found = list(dali_loader(decoded, DRAWS, augment=augment, steps=range(4), **AT))
    wanted = list(torch_loader(decoded, DRAWS, augment=augment, steps=range(4), **AT))
    assert len(found) == len(wanted) == 4
    for mine, reference in zip(found, wanted, strict=True):
        assert mine.keys() == reference.keys() == {"first", "second"}
        for name, batch in reference.items():
            torch.testing.assert_close(mine[name].images, batch.images, rtol=0, atol=2e-6)
            assert mine[name].images.is_contiguous(memory_format=torch.channels_last)
            assert mine[name].index.equal(batch.index)
            assert mine[name].camid.equal(batch.camid)
            assert mine[name].labels.keys() == batch.labels.keys()
            for view, labels in batch.labels.items():
                assert mine[name].labels[view].equal(labels)


@pytest.mark.parametrize("pair", [(EXCHANGE, COLOURS), (COLOURS, COLOURS)])
def test_colours_and_second_views_are_the_reference_loaders(
    decoded: dict[str, Table], pair: tuple[AugmentConfig, AugmentConfig]
) -> None:
    draws = [in_pairs(pair), DRAWS[1]]
    at = {**AT, "augment": EXCHANGE, "steps": range(3)}
    for mine, wanted in zip(
        dali_loader(decoded, draws, **at), torch_loader(decoded, draws, **at), strict=True
    ):
        assert mine["second"].second is None
        for found, reference in (
            (mine["second"].images, wanted["second"].images),
            (mine["first"].images, wanted["first"].images),
            (mine["first"].second, wanted["first"].second),
        ):
            assert found is not None
            assert found.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(found, reference, rtol=0, atol=2e-6)


def test_decoded_images_are_jittered_too(paths: np.ndarray) -> None:
    encoded = tables(EncodedStore(paths, height=HEIGHT, width=WIDTH))
    draws = [in_pairs((PIXELS, COLOURS))]
    (batch,) = [
        step["first"] for step in dali_loader(encoded, draws, augment=PIXELS, steps=range(1), **AT)
    ]
    (plan,) = planner(encoded, draws, augment=PIXELS, seed=AT["seed"], round=AT["round"])(0)
    pixels = batch.images.round().byte().permute(0, 2, 3, 1)
    assert batch.second is not None
    assert torch.equal(batch.second, apply(pixels, plan.params[1], COLOURS))


def test_other_labels_of_the_next_round_are_those_of_the_reference(
    decoded: dict[str, Table],
) -> None:
    table = decoded["target"]
    fresh = {"target": replace(table, labels={"global": np.arange(N) % 6})}
    for given, round in ((decoded, 0), (fresh, 1)):
        at = {**AT, "round": round, "augment": AugmentConfig(pad=2), "steps": range(2)}
        for mine, wanted in zip(
            dali_loader(given, DRAWS[:1], **at), torch_loader(given, DRAWS[:1], **at), strict=True
        ):
            assert mine["first"].index.equal(wanted["first"].index)
            torch.testing.assert_close(
                mine["first"].images, wanted["first"].images, rtol=0, atol=2e-6
            )


def test_a_closed_loader_leaves_nothing_to_the_next(decoded: dict[str, Table]) -> None:
    at = {**AT, "augment": AugmentConfig()}
    (whole, *_) = torch_loader(decoded, DRAWS, steps=range(7, 8), **at)
    first = dali_loader(decoded, DRAWS, steps=range(5), **at)
    next(first)
    first.close()
    (mine,) = dali_loader(decoded, DRAWS, steps=range(7, 8), **at)
    torch.testing.assert_close(mine["first"].images, whole["first"].images, rtol=0, atol=2e-6)


def test_decoding_and_resizing_are_within_a_few_grey_levels(
    paths: np.ndarray, decoded: dict[str, Table]
) -> None:
    encoded = tables(EncodedStore(paths, height=HEIGHT, width=WIDTH))
    at = {**AT, "augment": PIXELS, "steps": range(3)}
    for mine, wanted in zip(
        dali_loader(encoded, DRAWS, **at), torch_loader(decoded, DRAWS, **at), strict=True
    ):
        for name, batch in wanted.items():
            difference = (mine[name].images - batch.images).abs()
            assert mine[name].index.equal(batch.index)
            assert difference.mean() < 1
            assert difference.max() <= 6
            assert difference.max() > 0, "DALI did not decode"


def test_the_encoded_store_reads_the_pixels_of_the_decoded_one(
    paths: np.ndarray, decoded: dict[str, Table]
) -> None:
    rows = np.array([5, 0, 23, 5])
    store = EncodedStore(paths, height=HEIGHT, width=WIDTH)
    assert len(store) == N
    np.testing.assert_array_equal(store.read(rows), decoded["target"].store.read(rows))
    for row, data in zip(rows, store.encoded(rows), strict=True):
        assert data.tobytes() == Path(paths[row]).read_bytes()


def test_the_encoded_store_names_what_does_not_decode(paths: np.ndarray, tmp_path: Path) -> None:
    bad = str(tmp_path / "bad.jpg")
    Path(bad).write_bytes(b"no picture")
    store = EncodedStore(np.array([paths[0], bad]), height=HEIGHT, width=WIDTH)
    with pytest.raises(ValueError, match=r"1 of 2 images do not decode.*bad\.jpg"):
        store.read(np.array([0, 1]))
    with pytest.raises(ValueError, match="paths is empty"):
        EncodedStore(np.array([], dtype=str), height=HEIGHT, width=WIDTH)

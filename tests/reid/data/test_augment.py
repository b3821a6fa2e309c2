"""Each transform against loops over pixels with the same parameters; rates; determinism."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from reid.data import augment
from reid.data.augment import AugmentConfig, AugmentParams, apply, draw, normalise
from reid.data.samplers import AUGMENTATION, counter_rng

H, W, B = 20, 10, 12
NOTHING = AugmentConfig(flip=0.0, pad=0, local_grayscale=0.0, global_grayscale=0.0, erasing=0.0)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
AT = {"seed": 5, "round": 2, "step": 7}


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (B, H, W, 3), dtype=np.uint8))


def luma(pixel):
    return Image.fromarray(pixel.reshape(1, 1, 3)).convert("L").getpixel((0, 0))


def in_box(y, x, box):
    top, left, height, width = box
    return top <= y < top + height and left <= x < left + width


def by_loops(images, params, config):
    """Flip, pad, crop, grey, normalise, erase and exchange channels, one pixel at a time."""
    result = np.empty((B, 3, H, W))
    for b in range(B):
        image = images[b].numpy()
        if params.flip[b]:
            image = image[:, ::-1]
        mode = {"mode": "edge"} if config.pad_mode == "edge" else {"mode": "constant"}
        padded = np.pad(image, ((config.pad, config.pad), (config.pad, config.pad), (0, 0)), **mode)
        for y in range(H):
            for x in range(W):
                pixel = padded[y + params.offset[b, 0], x + params.offset[b, 1]]
                if in_box(y, x, params.grey_box[b]):
                    pixel = np.full(3, luma(pixel))
                result[b, :, y, x] = (pixel / 255 - MEAN) / STD
                if in_box(y, x, params.erase_box[b]):
                    result[b, :, y, x] = config.erasing_fill
                if params.channel[b] == 3:
                    result[b, :, y, x] = np.dot((0.2989, 0.587, 0.114), result[b, :, y, x])
                elif params.channel[b] >= 0:
                    result[b, :, y, x] = result[b, params.channel[b], y, x]
    return result


CASES = {
    "nothing": NOTHING,
    "flip": dataclasses.replace(NOTHING, flip=0.5),
    "pad and crop": dataclasses.replace(NOTHING, pad=4),
    "pad zero": dataclasses.replace(NOTHING, pad=3, pad_mode="zero"),
    "more padding than image": dataclasses.replace(NOTHING, pad=2 * W, flip=0.5),
    "local grey": dataclasses.replace(NOTHING, local_grayscale=0.7),
    "global grey": dataclasses.replace(NOTHING, global_grayscale=0.5),
    "erase": dataclasses.replace(NOTHING, erasing=0.7),
    "exchange": dataclasses.replace(NOTHING, channel_exchange=0.6, channel_grey=0.3),
    "exchange after erasing": AugmentConfig(erasing=1.0, channel_exchange=0.5, channel_grey=0.5),
    "released": AugmentConfig(),
    "all, zero": AugmentConfig(pad_mode="zero", pad=3, global_grayscale=0.3),
}


@pytest.mark.parametrize("code", ["compiled", "tensors of a GPU"])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_loops(images, name, code, monkeypatch):
    config = CASES[name]
    if code != "compiled":
        monkeypatch.setattr(augment, "_in_one_pass", augment._by_tensors)
    before = images.clone()
    params = draw(config, B, H, W, **AT)
    result = apply(images, params, config)
    np.testing.assert_allclose(result, by_loops(images, params, config), atol=2e-6)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


def test_the_compiled_loop_is_bit_equal_to_the_tensor_operations(images):
    config = AugmentConfig()
    params = draw(config, B, H, W, **AT)
    result = augment._in_one_pass(images, params, config)
    assert torch.equal(result, augment._by_tensors(images, params, config))


def test_nothing_drawn_is_normalise(images):
    params = draw(NOTHING, B, H, W, **AT)
    plain = normalise(images)
    assert torch.equal(apply(images, params, NOTHING), plain)
    pixels = images.permute(0, 3, 1, 2).numpy() / 255
    expected = (pixels - MEAN[:, None, None]) / STD[:, None, None]
    np.testing.assert_allclose(plain, expected, atol=1e-6)


def test_grey_is_pillows_for_every_pixel_value():
    rng = np.random.default_rng(1)
    colours = rng.integers(0, 256, (4, 128, 128, 3), dtype=np.uint8)
    config = dataclasses.replace(
        NOTHING, global_grayscale=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    result = apply(torch.from_numpy(colours), draw(config, 4, 128, 128, **AT), config)
    grey = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in colours])
    for channel in range(3):
        np.testing.assert_array_equal(np.rint(result[:, channel].numpy() * 255), grey)


def test_rates_are_the_probabilities():
    count, config = 20_000, AugmentConfig()
    params = draw(config, count, 256, 128, **AT)
    grey_area = params.grey_box[:, 2] * params.grey_box[:, 3]
    whole = grey_area == 256 * 128
    rates = {
        "flip": (params.flip.mean(), config.flip),
        "global": (whole.mean(), config.global_grayscale),
        "local": ((grey_area[~whole] > 0).mean(), config.local_grayscale),
        "erasing": ((params.erase_box[:, 2] > 0).mean(), config.erasing),
    }
    for name, (rate, probability) in rates.items():
        deviation = np.sqrt(probability * (1 - probability) / count)
        assert abs(rate - probability) < 5 * deviation, name
    for axis in (0, 1):
        counts = np.bincount(params.offset[:, axis], minlength=21)
        assert len(counts) == 21
        np.testing.assert_allclose(counts, count / 21, atol=5 * np.sqrt(count / 21))


@pytest.mark.parametrize(("height", "width"), [(256, 128), (256, 256), (64, 32)])
def test_boxes_lie_inside_and_keep_area_and_aspect(height, width):
    config = AugmentConfig(erasing=1.0)
    params = draw(config, 5000, height, width, **AT)
    top, left, box_height, box_width = params.erase_box.T
    assert (box_height > 0).all()
    assert (np.minimum(top, left) >= 0).all()
    assert (top + box_height <= height).all()
    assert (left + box_width <= width).all()
    # Sides are rounded to whole pixels: compare with the least and greatest the rounding allows.
    low = (box_height - 0.5) * (box_width - 0.5) / (height * width)
    high = (box_height + 0.5) * (box_width + 0.5) / (height * width)
    assert (high >= 0.02).all()
    assert (low <= 0.4).all()
    assert ((box_height + 0.5) / (box_width - 0.5) >= 0.3).all()
    assert ((box_height - 0.5) / (box_width + 0.5) <= 1 / 0.3).all()
    # Both corners are reached: the extents are not swapped.
    assert (top + box_height == height).any()
    assert (left + box_width == width).any()


def test_ranks_draw_their_part_of_one_batch():
    config = AugmentConfig(colour_jitter=0.5, channel_exchange=0.5)
    whole = draw(config, B, H, W, **AT)
    parts = [draw(config, B, H, W, rank=rank, world=3, **AT) for rank in range(3)]
    for field in dataclasses.fields(AugmentParams):
        joined = np.concatenate([getattr(part, field.name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, field.name))


def test_a_draw_is_a_function_of_its_place():
    config = AugmentConfig()
    first = draw(config, B, H, W, stream=1, **AT)
    np.testing.assert_array_equal(draw(config, B, H, W, stream=1, **AT).offset, first.offset)
    for name in ("seed", "round", "step", "stream"):
        other = draw(config, B, H, W, **{**AT, "stream": 1, name: 11})
        assert not np.array_equal(other.offset, first.offset), name


def test_one_probability_moves_no_other_draw():
    released = draw(AugmentConfig(), B, H, W, **AT)
    changed = draw(AugmentConfig(flip=0.0, erasing=0.0), B, H, W, **AT)
    assert not changed.flip.any()
    assert not changed.erase_box.any()
    np.testing.assert_array_equal(changed.offset, released.offset)
    np.testing.assert_array_equal(changed.grey_box, released.grey_box)


def test_the_first_draws_are_columns_of_one_block():
    """Runs made before an operation was added go on as they began."""
    config, at = AugmentConfig(colour_jitter=0.5, channel_exchange=0.5), {**AT, "stream": 3}
    uniform = counter_rng(AUGMENTATION, **at).random((B, 50))
    params = draw(config, B, H, W, **at)
    np.testing.assert_array_equal(params.flip, uniform[:, 0] < 0.5)
    np.testing.assert_array_equal(params.offset, np.floor(uniform[:, 1:3] * 21))
    whole = (params.grey_box == (0, 0, H, W)).all(axis=1)
    np.testing.assert_array_equal(whole, uniform[:, 3] < 0.05)
    patched = params.grey_box[:, 2] > 0
    np.testing.assert_array_equal(patched, (uniform[:, 4] < 0.4) | whole)
    np.testing.assert_array_equal(params.erase_box[:, 2] > 0, uniform[:, 27] < 0.5)


OUT_OF_RANGE = (
    {"flip": 1.5},
    {"erasing": -0.1},
    {"pad": -1},
    {"std": (0.2, 0.0, 0.2)},
    {"colour_jitter": 2.0},
    {"channel_exchange": 0.7, "channel_grey": 0.4},
    {"jitter_strength": (0.5, -0.1, 0.5, 0.5)},
    {"jitter_strength": (0.5, 0.5, 0.5, 0.6)},
)


@pytest.mark.parametrize("bad", OUT_OF_RANGE)
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))}="):
        AugmentConfig(**bad)


@pytest.mark.gpu
def test_the_gpu_gives_the_same_pixels(images):
    config = AugmentConfig(pad_mode="zero")
    params = draw(config, B, H, W, **AT)
    result = apply(images.to("cuda"), params, config)
    torch.testing.assert_close(result.cpu(), apply(images, params, config), atol=1e-6, rtol=0)

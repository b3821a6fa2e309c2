"""Colour jitter against torchvision, channels against loops, draws against their distributions."""

import dataclasses
from itertools import permutations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as oracle

from reid.data.augment import AugmentConfig, apply, draw
from reid.data.colour import GREY, NEUTRAL, jitter, mix_channels_

H, W, COUNT = 24, 12, 20_000
AT = {"seed": 5, "round": 2, "step": 7}
OPERATIONS = (
    oracle.adjust_brightness,
    oracle.adjust_contrast,
    oracle.adjust_saturation,
    oracle.adjust_hue,
)
FACTORS = {
    0: (0.0, 0.3, 0.9, 1.1, 1.5, 2.0),
    1: (0.0, 0.3, 0.9, 1.1, 1.5, 2.0),
    2: (0.0, 0.3, 0.9, 1.1, 1.5, 2.0),
    3: (-0.5, -0.3, -0.05, 0.05, 0.2, 0.5),
}


def pictures(count):
    """Every kind of pixel: any colour, equal channels, two equal channels, black and white."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, H, W, 3), dtype=np.uint8)
    images[:, :4] = images[:, :4, :, :1]
    images[:, 4:6, :, 1] = images[:, 4:6, :, 0]
    images[:, 6:8, :, 2] = images[:, 6:8, :, 1]
    images[:, 8], images[:, 9], images[:, 10, :, 1:] = 0, 255, 0
    return torch.from_numpy(images)


def in_order(count, order=(0, 1, 2, 3)):
    return np.tile(np.array(order, dtype=np.int64), (count, 1))


def by_torchvision(image, factor, order):
    """One image (H,W,3) through torchvision, in the arithmetic of its dtype."""
    image = image.permute(2, 0, 1)
    for operation in order:
        if factor[operation] != NEUTRAL[operation]:
            image = OPERATIONS[operation](image, float(factor[operation]))
    return image.permute(1, 2, 0)


def assert_cut(result, exact):
    """Whole levels below, but for 1/64 that protects them from float32."""
    below = exact - result
    assert below.min() >= -1 / 64 - 1e-3
    assert below.max() < 1


@pytest.mark.parametrize("operation", range(4))
def test_each_operation_is_torchvisions(operation):
    images = pictures(6)
    factor = np.tile(NEUTRAL, (6, 1))
    factor[:, operation] = FACTORS[operation]
    result = jitter(images, factor, in_order(6))
    for b in range(6):
        whole = by_torchvision(images[b], factor[b], (operation,))
        assert (result[b].int() - whole.int()).abs().max() <= 1
        exact = by_torchvision(images[b] / 255, factor[b], (operation,)) * 255
        assert_cut(result[b], exact)


def test_all_four_are_done_in_each_images_order():
    orders = np.array(list(permutations(range(4))))
    images, rng = pictures(24), np.random.default_rng(1)
    factor = NEUTRAL + rng.uniform(-0.5, 0.5, (24, 4)).astype(np.float32)
    result = jitter(images, factor, orders)
    for b in range(24):
        exact = by_torchvision(images[b] / 255, factor[b], orders[b]) * 255
        assert_cut(result[b], exact)
    assert (result.int() - jitter(images, factor, orders[::-1].copy()).int()).abs().max() > 2


def test_images_without_jitter_keep_their_pixels():
    images = pictures(5)
    before = images.clone()
    factor = np.tile(NEUTRAL, (5, 1))
    assert torch.equal(jitter(images, factor, in_order(5)), before)
    factor[[1, 3], 0] = 0.5
    result = jitter(images, factor, in_order(5))
    assert torch.equal(result[::2], before[::2])
    assert not torch.equal(result[1], before[1])
    assert torch.equal(images, before)


def test_jitter_does_not_depend_on_the_rest_of_the_batch():
    images, rng = pictures(8), np.random.default_rng(2)
    factor = NEUTRAL + rng.uniform(-0.5, 0.5, (8, 4)).astype(np.float32)
    orders = rng.permuted(in_order(8), axis=1)
    whole = jitter(images, factor, orders)
    for b in range(8):
        part = slice(b, b + 1)
        assert torch.equal(jitter(images[part], factor[part], orders[part]), whole[part])


def test_jitter_comes_before_all_else():
    images = pictures(16)
    config = AugmentConfig(pad=2, pad_mode="zero", colour_jitter=0.7, channel_exchange=0.5)
    params = draw(config, 16, H, W, **AT)
    still = dataclasses.replace(params, jitter=np.tile(NEUTRAL, (16, 1)))
    coloured = jitter(images, params.jitter, params.jitter_order)
    assert torch.equal(apply(images, params, config), apply(coloured, still, config))
    assert not torch.equal(coloured, images)


def test_channels_are_copied_bit_for_bit_and_grey_is_their_weighted_sum():
    rng = np.random.default_rng(3)
    images = torch.from_numpy(rng.normal(size=(5, 3, H, W)).astype(np.float32))
    result = images.contiguous(memory_format=torch.channels_last).clone()
    mix_channels_(result, np.array([0, -1, 2, GREY, 1]))
    assert torch.equal(result[1], images[1])
    for b, channel in ((0, 0), (2, 2), (4, 1)):
        assert torch.equal(result[b], images[b, channel].expand(3, H, W))
    grey = 0.2989 * images[3, 0] + 0.587 * images[3, 1] + 0.114 * images[3, 2]
    torch.testing.assert_close(result[3], grey.expand(3, H, W))


def assert_rate(values, probability):
    deviation = np.sqrt(probability * (1 - probability) / values.size)
    assert abs(values.mean() - probability) <= 4 * deviation


def test_jitter_is_drawn_as_often_and_as_strong_as_asked():
    strength = (0.5, 1.4, 0.2, 0.1)
    config = AugmentConfig(colour_jitter=0.3, jitter_strength=strength)
    params = draw(config, COUNT, 256, 128, **AT)
    touched = (params.jitter != NEUTRAL).any(axis=1)
    assert_rate(touched, 0.3)
    np.testing.assert_array_equal(params.jitter[~touched], np.tile(NEUTRAL, (sum(~touched), 1)))
    bounds = ((0.5, 1.5), (0.0, 2.4), (0.8, 1.2), (-0.1, 0.1))
    for column, (low, high) in enumerate(bounds):
        factor = (params.jitter[touched, column] - low) / (high - low)
        assert -1e-6 <= factor.min() < 0.01
        assert 0.99 < factor.max() <= 1 + 1e-6
        for quarter in (0.25, 0.5, 0.75):
            assert_rate(factor < quarter, quarter)
    factors = np.corrcoef(params.jitter[touched].T)[np.triu_indices(4, 1)]
    assert (abs(factors) < 4 / np.sqrt(touched.sum())).all()


def test_every_order_is_as_likely():
    orders = draw(AugmentConfig(colour_jitter=1.0), COUNT, 256, 128, **AT).jitter_order
    for order in permutations(range(4)):
        assert_rate((orders == order).all(axis=1), 1 / 24)


@pytest.mark.parametrize(("exchange", "grey"), [(1.0, 0.0), (0.75, 0.125), (0.0, 0.4)])
def test_channels_are_drawn_as_often_as_asked(exchange, grey):
    config = AugmentConfig(channel_exchange=exchange, channel_grey=grey)
    channel = draw(config, COUNT, 256, 128, **AT).channel
    for single in range(3):
        assert_rate(channel == single, exchange / 3)
    assert_rate(channel == GREY, grey)
    assert_rate(channel == -1, 1 - exchange - grey)


def test_colours_are_drawn_apart_from_all_else():
    plain = draw(AugmentConfig(), 500, H, W, **AT)
    assert (plain.channel == -1).all()
    assert (plain.jitter == NEUTRAL).all()
    coloured = AugmentConfig(colour_jitter=0.6, channel_exchange=0.5, channel_grey=0.2)
    params = draw(coloured, 500, H, W, **AT)
    for name in ("flip", "offset", "grey_box", "erase_box"):
        np.testing.assert_array_equal(getattr(params, name), getattr(plain, name))
    other = draw(dataclasses.replace(coloured, colour_jitter=0.2), 500, H, W, **AT)
    np.testing.assert_array_equal(other.channel, params.channel)
    np.testing.assert_array_equal(other.jitter_order, params.jitter_order)
    kept = (other.jitter != NEUTRAL).any(axis=1)
    np.testing.assert_array_equal(other.jitter[kept], params.jitter[kept])
    # Neither stream repeats the other: mirrored images are jittered as often as the rest.
    assert abs(np.corrcoef(params.flip, params.jitter[:, 0] != 1)[0, 1]) < 4 / np.sqrt(500)


@pytest.mark.gpu
def test_the_gpu_gives_the_same_colours():
    images, rng = pictures(24), np.random.default_rng(1)
    factor = NEUTRAL + rng.uniform(-0.5, 0.5, (24, 4)).astype(np.float32)
    orders = np.array(list(permutations(range(4))))
    found = jitter(images.to("cuda"), factor, orders).cpu()
    assert (found.int() - jitter(images, factor, orders).int()).abs().max() <= 1

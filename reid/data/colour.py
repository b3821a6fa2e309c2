"""Colours of images: torchvision's `ColorJitter` and the exchange of channels, batches at once.

Legend: b images, n of them changed, H height, W width.
"""

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt8
from torch import Tensor

from reid.data.patches import on_device_of

NUMBERS_PER_JITTER = 9
"""Columns of uniform numbers that `draw_jitter` takes."""
GREY = 3
"""The channel of `mix_channels_` that is the weighted sum of the others."""
NEUTRAL = np.array([1, 1, 1, 0], dtype=np.float32)
"""Brightness, contrast, saturation and hue that change nothing."""

_ROUNDING = 1 / 64  # a whole grey level, less the errors of float32, stays that level
_LUMA = (0.2989, 0.587, 0.114)  # torchvision's, and the channel exchange's for normalised images


def draw_jitter(
    uniform: Float64[np.ndarray, "b 9"],
    *,
    probability: float,
    strength: tuple[float, float, float, float],
) -> tuple[Float32[np.ndarray, "b 4"], Int64[np.ndarray, "b 4"]]:
    """Return the factors (b,4), `NEUTRAL` for none, and the order (b,4) of the four operations.

    As in `ColorJitter`, factors are uniform in 1 - strength..1 + strength (hue: -strength..strength
    turns), none below 0, and every order is as likely.
    """
    reach = np.array(strength)
    low = np.maximum(NEUTRAL - reach, [0, 0, 0, -np.inf])
    factor = low + (NEUTRAL + reach - low) * uniform[:, 1:5]
    drawn = np.where(uniform[:, :1] < probability, factor, NEUTRAL)
    return drawn.astype(np.float32), uniform[:, 5:].argsort(axis=1)


def draw_channel(
    uniform: Float64[np.ndarray, "b"], *, exchange: float, grey: float
) -> Int64[np.ndarray, "b"]:
    """Return the channel (b,) to show alone: 0..2 with probability `exchange`, `GREY`, -1 none."""
    single = np.minimum(uniform * (3 / exchange if exchange else 0), 2).astype(np.int64)
    other = np.where(uniform < exchange + grey, GREY, -1)
    return np.where(uniform < exchange, single, other)


def jitter(
    images: UInt8[Tensor, "b H W 3"],
    factor: Float32[np.ndarray, "b 4"],
    order: Int64[np.ndarray, "b 4"],
) -> UInt8[Tensor, "b H W 3"]:
    """Change brightness, contrast, saturation and hue, each image in its order.

    The operations are torchvision's, in float32; the result is cut to whole grey levels, as there,
    but once, after the last.
    """
    rows = np.flatnonzero((factor != NEUTRAL).any(axis=1))
    if not len(rows):
        return images
    factor, order = factor[rows], order[rows]
    _, height, width, _ = images.shape
    chosen = on_device_of(images, rows)
    pixels = images.index_select(0, chosen).permute(0, 3, 1, 2).contiguous().float().flatten(2)
    for position in range(4):
        for operation, change in enumerate((_brightness, _contrast, _saturation, _hue)):
            mine = order[:, position] == operation
            mine &= factor[:, operation] != NEUTRAL[operation]
            which = on_device_of(images, np.flatnonzero(mine))
            by = on_device_of(images, factor[mine, operation])[:, None, None]
            pixels.index_copy_(0, which, change(pixels.index_select(0, which), by))
    changed = pixels.add_(_ROUNDING).byte().unflatten(2, (height, width)).permute(0, 2, 3, 1)
    return images.clone().index_copy_(0, chosen, changed.contiguous())


def mix_channels_(images: Float32[Tensor, "b 3 H W"], channel: Int64[np.ndarray, "b"]) -> None:
    """Write one channel of channels_last images, or their `GREY`, over all three in place."""
    rows = np.flatnonzero(channel >= 0)
    if not len(rows):
        return
    chosen = on_device_of(images, rows)
    weights = np.array([*np.eye(3), _LUMA], dtype=np.float32)[channel[rows]]
    pixels = images.permute(0, 2, 3, 1)
    changed = pixels.index_select(0, chosen)
    red, green, blue = changed.unbind(3)
    of_red, of_green, of_blue = on_device_of(images, weights)[:, :, None, None].unbind(1)
    changed[:] = (red * of_red).addcmul_(green, of_green).addcmul_(blue, of_blue)[..., None]
    pixels.index_copy_(0, chosen, changed)


def _brightness(
    pixels: Float32[Tensor, "n 3 HW"], factor: Float32[Tensor, "n 1 1"]
) -> Float32[Tensor, "n 3 HW"]:
    return (pixels * factor).clamp_(0, 255)


def _contrast(
    pixels: Float32[Tensor, "n 3 HW"], factor: Float32[Tensor, "n 1 1"]
) -> Float32[Tensor, "n 3 HW"]:
    # Summed in float64: the same grey levels however the batch is spread over ranks.
    mean = _luma(pixels).mean(dim=2, keepdim=True, dtype=torch.float64).float()
    return torch.addcmul(mean * (1 - factor), pixels, factor).clamp_(0, 255)


def _saturation(
    pixels: Float32[Tensor, "n 3 HW"], factor: Float32[Tensor, "n 1 1"]
) -> Float32[Tensor, "n 3 HW"]:
    return torch.addcmul(_luma(pixels) * (1 - factor), pixels, factor).clamp_(0, 255)


def _hue(
    pixels: Float32[Tensor, "n 3 HW"], turn: Float32[Tensor, "n 1 1"]
) -> Float32[Tensor, "n 3 HW"]:
    """Rotate the hue, keeping each pixel's greatest and least channel.

    `sector` is the hue in 0..6, red at 0; a channel is least + chroma * clip(|sector from the
    channel's opposite| - 1, 0, 1).
    """
    red, green, blue = pixels.split(1, dim=1)
    greatest, least = pixels.amax(dim=1, keepdim=True), pixels.amin(dim=1, keepdim=True)
    chroma = greatest - least
    of_blue = torch.where(greatest == green, blue - red + 2 * chroma, red - green + 4 * chroma)
    sector = torch.where(greatest == red, green - blue, of_blue) / chroma.clamp(min=1e-6)
    sector += 6 * turn
    opposite = torch.tensor([0.0, 4.0, 2.0], device=pixels.device)[:, None]
    share = (sector + opposite).remainder_(6).sub_(3).abs_().sub_(1).clamp_(0, 1)
    return share.mul_(chroma).add_(least)


def _luma(pixels: Float32[Tensor, "n 3 HW"]) -> Float32[Tensor, "n 1 HW"]:
    red, green, blue = pixels.split(1, dim=1)
    luma: Tensor = (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])
    return luma

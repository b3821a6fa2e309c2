"""What is done at random to training images, a whole batch at once.

The data adapter of CORE-ReID V2 (core_reid.md 1b, Fig. 6) with the colour jitter and the channel
exchange of the visible-infrared methods (ecul.md 1.2).

`draw` makes every random number of a batch as arrays, `apply` is a function of images and these
arrays, so that two loaders given the same draw show the network the same images.
Order, as released: colour jitter, flip, pad and crop, patch or whole image to grey, normalise,
erase, exchange channels.
Legend: B images of the whole batch, b of this rank, H height, W width.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from reid.data.colour import NUMBERS_PER_JITTER, draw_channel, draw_jitter, jitter, mix_channels_
from reid.data.one_pass import one_pass
from reid.data.patches import NUMBERS_PER_BOX, boxes, erase_, grey_, on_device_of
from reid.data.samplers import AUGMENTATION, COLOUR, counter_rng

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What is drawn for a training image; defaults are CORE-ReID V2's fine-tuning.

    Its source pre-training is the same with `erasing=0.0` and `global_grayscale=0.0`. SpCL, MMT and
    INCLR (spcl_inclr.md 1) have both grayscales 0.0 and `pad_mode="zero"`, MMT and INCLR no erasing
    in pre-training. ECUL (ecul.md 1.2) is like SpCL with `erasing_fill=(0.4914, 0.4822, 0.4465)`,
    and of visible images a second view with `channel_exchange=1.0` (PGM's stage 2 adds
    `colour_jitter=1.0`); of infrared images `channel_exchange=0.75` and `channel_grey=0.125`.
    """

    flip: float = 0.5
    """Probability of mirroring left and right."""
    pad: int = 10
    """Pixels added on each side before a crop back to the size; 10 is meant for 256x128."""
    pad_mode: Literal["edge", "zero"] = "edge"
    """What is added: the border repeated, or black."""
    local_grayscale: float = 0.4
    """Probability of turning one patch to grey."""
    local_grayscale_area: tuple[float, float] = (0.02, 0.4)
    """Least and greatest area of that patch, as a fraction of the image."""
    local_grayscale_aspect: tuple[float, float] = (0.3, 1 / 0.3)
    """Least and greatest height / width of that patch."""
    global_grayscale: float = 0.05
    """Probability of turning the whole image to grey."""
    erasing: float = 0.5
    """Probability of overwriting one patch (Zhong et al., AAAI 2020)."""
    erasing_area: tuple[float, float] = (0.02, 0.4)
    """Least and greatest area of that patch, as a fraction of the image."""
    erasing_aspect: tuple[float, float] = (0.3, 1 / 0.3)
    """Least and greatest height / width of that patch."""
    erasing_fill: tuple[float, float, float] = IMAGENET_MEAN
    """Written AFTER normalisation, as released; the mean colour itself would be 0 there."""
    colour_jitter: float = 0.0
    """Probability of changing brightness, contrast, saturation and hue, in an order drawn too."""
    jitter_strength: tuple[float, float, float, float] = (0.5, 0.5, 0.5, 0.5)
    """Of these four, as in torchvision's `ColorJitter`: factors 1 +- it, hue +- it in turns."""
    channel_exchange: float = 0.0
    """Probability of showing one channel, R, G or B, in all three (Ye et al., ICCV 2021)."""
    channel_grey: float = 0.0
    """Probability of showing the grey of the normalised image instead, never both."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Subtracted from RGB in 0..1."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Divides RGB after the mean is subtracted."""

    def __post_init__(self) -> None:
        for name in (
            *("flip", "local_grayscale", "global_grayscale", "erasing"),
            *("colour_jitter", "channel_exchange", "channel_grey"),
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: give a probability in 0..1.")
        if self.channel_exchange + self.channel_grey > 1:
            raise ValueError(
                f"channel_exchange={self.channel_exchange} and channel_grey={self.channel_grey}: "
                "give probabilities of at most 1 together."
            )
        if min(self.jitter_strength) < 0 or self.jitter_strength[3] > 0.5:
            raise ValueError(
                f"jitter_strength={self.jitter_strength}: give strengths of at least 0, "
                "the last, hue, of at most 0.5."
            )
        if self.pad < 0:
            raise ValueError(f"pad={self.pad}: give pixels, 0 for no padding.")
        if min(self.std) <= 0:
            raise ValueError(f"std={self.std}: give three values above 0.")


UNTINTED = AugmentConfig(pad_mode="zero", local_grayscale=0.0, global_grayscale=0.0)
"""Black borders and nothing grey: MMT, SpCL and the code that descends from them."""


@dataclass(frozen=True, kw_only=True)
class AugmentParams:
    """Everything random about b images. A box is (top, left, height, width), empty for none.

    `flip` (b,) mirrored or not; `offset` (b,2) row and column of the crop in the padded image,
    0..2*pad; `grey_box` and `erase_box` (b,4) in pixels of the result; `jitter` (b,4) factors of
    brightness, contrast and saturation and turns of hue, (1,1,1,0) for none, done in
    `jitter_order` (b,4); `channel` (b,) shown alone, 0..2 or 3 for their grey, -1 for none.
    """

    flip: Bool[np.ndarray, "b"]
    offset: Int64[np.ndarray, "b 2"]
    grey_box: Int64[np.ndarray, "b 4"]
    erase_box: Int64[np.ndarray, "b 4"]
    jitter: Float32[np.ndarray, "b 4"]
    jitter_order: Int64[np.ndarray, "b 4"]
    channel: Int64[np.ndarray, "b"]


def draw(
    config: AugmentConfig,
    batch_size: int,
    height: int,
    width: int,
    *,
    seed: int,
    round: int,
    step: int,
    stream: int = 0,
    rank: int = 0,
    world: int = 1,
) -> AugmentParams:
    """Draw the parameters of one batch of `batch_size` images over all ranks; return this rank's.

    Every image uses a fixed count of numbers, so changing one probability moves no other draw.
    """
    part = slice(rank * batch_size // world, (rank + 1) * batch_size // world)
    rng = counter_rng(AUGMENTATION, seed=seed, round=round, step=step, stream=stream)
    uniform = rng.random((batch_size, 4 + 2 * NUMBERS_PER_BOX))[part]
    simple, grey, erase = np.split(uniform, (4, 4 + NUMBERS_PER_BOX), axis=1)
    rng = counter_rng(COLOUR, seed=seed, round=round, step=step, stream=stream)
    colour = rng.random((batch_size, NUMBERS_PER_JITTER + 1))[part]
    grey_box = boxes(
        grey,
        height,
        width,
        probability=config.local_grayscale,
        area=config.local_grayscale_area,
        aspect=config.local_grayscale_aspect,
    )
    whole = simple[:, 3] < config.global_grayscale
    grey_box[whole] = (0, 0, height, width)  # holds any patch: grey stays grey
    factor, order = draw_jitter(
        colour[:, :-1], probability=config.colour_jitter, strength=config.jitter_strength
    )
    return AugmentParams(
        flip=simple[:, 0] < config.flip,
        offset=(simple[:, 1:3] * (2 * config.pad + 1)).astype(np.int64),
        grey_box=grey_box,
        erase_box=boxes(
            erase,
            height,
            width,
            probability=config.erasing,
            area=config.erasing_area,
            aspect=config.erasing_aspect,
        ),
        jitter=factor,
        jitter_order=order,
        channel=draw_channel(
            colour[:, -1], exchange=config.channel_exchange, grey=config.channel_grey
        ),
    )


def apply(
    images: UInt8[Tensor, "b H W 3"], params: AugmentParams, config: AugmentConfig
) -> Float32[Tensor, "b 3 H W"]:
    """Augment and normalise RGB images (b,H,W,3) uint8 -> (b,3,H,W) float32, channels_last.

    Runs where the images are; only the parameters of the touched rows travel there. On the CPU the
    middle of it is one compiled loop, six times as fast as the tensor operations of a GPU.
    """
    images = jitter(images, params.jitter, params.jitter_order)
    if images.device.type == "cpu":
        result = _in_one_pass(images, params, config)
    else:
        result = _by_tensors(images, params, config)
    mix_channels_(result, params.channel)
    return result


def _in_one_pass(
    images: UInt8[Tensor, "b H W 3"], params: AugmentParams, config: AugmentConfig
) -> Float32[Tensor, "b 3 H W"]:
    batch, height, width, _ = images.shape
    scale, shift = _scale_and_shift(config.mean, config.std)
    per_channel = (scale, shift, np.array(config.erasing_fill, dtype=np.float32))
    result = np.empty((batch, height, width * 3), dtype=np.float32)
    one_pass(
        images.reshape(batch, height, width * 3).numpy(),
        *(params.flip, params.offset, config.pad, config.pad_mode == "zero", params.grey_box),
        *(params.erase_box, *(np.tile(values, width) for values in per_channel), result),
    )
    return torch.from_numpy(result).view(batch, height, width, 3).permute(0, 3, 1, 2)


def _by_tensors(
    images: UInt8[Tensor, "b H W 3"], params: AugmentParams, config: AugmentConfig
) -> Float32[Tensor, "b 3 H W"]:
    cropped = _crop(images, params, config)
    grey_(cropped, params.grey_box)
    result = normalise(cropped, mean=config.mean, std=config.std)
    erase_(result.permute(0, 2, 3, 1), params.erase_box, config.erasing_fill)
    return result


def normalise(
    images: UInt8[Tensor, "b H W 3"],
    *,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Float32[Tensor, "b 3 H W"]:
    """Return (image/255 - mean)/std, (b,H,W,3) uint8 -> (b,3,H,W) float32, channels_last."""
    batch, height, width, _ = images.shape
    # Rows of W*3 numbers rather than pixels of 3: the inner loop is long enough for SIMD.
    scale, shift = (
        on_device_of(images, np.tile(values, width)) for values in _scale_and_shift(mean, std)
    )
    rows = images.reshape(batch * height, width * 3).float().mul_(scale).add_(shift)
    return rows.view(batch, height, width, 3).permute(0, 3, 1, 2)


def _scale_and_shift(
    mean: tuple[float, float, float], std: tuple[float, float, float]
) -> tuple[Float32[np.ndarray, "3"], Float32[np.ndarray, "3"]]:
    """Return what a byte is multiplied by, and what is added, of each channel."""
    scale, shift = 1 / (255 * np.array(std)), -np.array(mean) / np.array(std)
    return scale.astype(np.float32), shift.astype(np.float32)


def _crop(
    images: UInt8[Tensor, "b H W 3"], params: AugmentParams, config: AugmentConfig
) -> UInt8[Tensor, "b H W 3"]:
    """Mirror, pad and crop as two gathers: whole rows first, then the columns of each row."""
    batch, height, width, _ = images.shape
    row = np.arange(height) + params.offset[:, :1] - config.pad
    column = np.arange(width) + params.offset[:, 1:] - config.pad
    source_row, source_column = row.clip(0, height - 1), column.clip(0, width - 1)
    source_column = np.where(params.flip[:, None], width - 1 - source_column, source_column)
    flat_row = (np.arange(batch)[:, None] * height + source_row).reshape(-1)
    byte = (source_column[:, :, None] * 3 + np.arange(3)).reshape(batch, 1, width * 3)
    rows = images.reshape(batch * height, width * 3).index_select(0, on_device_of(images, flat_row))
    gathered = rows.view(batch, height, width * 3).gather(
        2, on_device_of(images, byte).expand(batch, height, width * 3)
    )
    if config.pad_mode == "zero":
        inside = (row == source_row)[:, :, None] & (column == column.clip(0, width - 1))[:, None]
        gathered.view(batch, height, width, 3).mul_(on_device_of(images, inside)[..., None])
    return gathered.view(batch, height, width, 3)

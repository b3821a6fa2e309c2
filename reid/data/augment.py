"""The data adapter of CORE-ReID V2 (core_reid.md 1b, Fig. 6), a whole batch at once.

`draw` makes every random number of a batch as arrays, `apply` is a function of images and these
arrays, so that two loaders given the same draw show the network the same images.
Order, as released: flip, pad and crop, patch or whole image to grey, normalise, erase.
Legend: B images of the whole batch, b of this rank, H height, W width, A attempts at a patch.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from reid.data.samplers import AUGMENTATION, counter_rng

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_ATTEMPTS = 10
GREY_WEIGHTS = (19595, 38470, 7471)  # ITU-R 601 luma in 1/65536, the integers Pillow uses


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What is drawn for a training image; defaults are CORE-ReID V2's fine-tuning.

    Its source pre-training is the same with `erasing=0.0` and `global_grayscale=0.0`.
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
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Subtracted from RGB in 0..1."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Divides RGB after the mean is subtracted."""

    def __post_init__(self) -> None:
        for name in ("flip", "local_grayscale", "global_grayscale", "erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: give a probability in 0..1.")
        if self.pad < 0:
            raise ValueError(f"pad={self.pad}: give pixels, 0 for no padding.")


@dataclass(frozen=True, kw_only=True)
class AugmentParams:
    """Everything random about b images. A box is (top, left, height, width), empty for none.

    `flip` (b,) mirrored or not; `offset` (b,2) row and column of the crop in the padded image,
    0..2*pad; `grey_box` and `erase_box` (b,4) in pixels of the result.
    """

    flip: Bool[np.ndarray, "b"]
    offset: Int64[np.ndarray, "b 2"]
    grey_box: Int64[np.ndarray, "b 4"]
    erase_box: Int64[np.ndarray, "b 4"]


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
    rng = counter_rng(AUGMENTATION, seed=seed, round=round, step=step, stream=stream)
    per_box = 3 + 2 * _ATTEMPTS
    uniform = rng.random((batch_size, 4 + 2 * per_box))
    uniform = uniform[rank * batch_size // world : (rank + 1) * batch_size // world]
    simple, grey, erase = np.split(uniform, (4, 4 + per_box), axis=1)
    grey_box = _boxes(
        grey,
        height,
        width,
        probability=config.local_grayscale,
        area=config.local_grayscale_area,
        aspect=config.local_grayscale_aspect,
    )
    whole = simple[:, 3] < config.global_grayscale
    grey_box[whole] = (0, 0, height, width)  # holds any patch: grey stays grey
    return AugmentParams(
        flip=simple[:, 0] < config.flip,
        offset=(simple[:, 1:3] * (2 * config.pad + 1)).astype(np.int64),
        grey_box=grey_box,
        erase_box=_boxes(
            erase,
            height,
            width,
            probability=config.erasing,
            area=config.erasing_area,
            aspect=config.erasing_aspect,
        ),
    )


def apply(
    images: UInt8[Tensor, "b H W 3"], params: AugmentParams, config: AugmentConfig
) -> Float32[Tensor, "b 3 H W"]:
    """Augment and normalise RGB images (b,H,W,3) uint8 -> (b,3,H,W) float32, channels_last.

    Runs where the images are; only the parameters of the touched rows travel there.
    """
    cropped = _crop(images, params, config)
    _grey_(cropped, params.grey_box)
    result = normalise(cropped, mean=config.mean, std=config.std)
    _erase_(result.permute(0, 2, 3, 1), params.erase_box, config.erasing_fill)
    return result


def normalise(
    images: UInt8[Tensor, "b H W 3"],
    *,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Float32[Tensor, "b 3 H W"]:
    """Return (image/255 - mean)/std, (b,H,W,3) uint8 -> (b,3,H,W) float32, channels_last."""
    batch, height, width, _ = images.shape
    deviation = torch.tensor(std, dtype=torch.float64)
    scale = (1 / (255 * deviation)).float().repeat(width).to(images.device)
    shift = (-torch.tensor(mean, dtype=torch.float64) / deviation).float().repeat(width)
    # Rows of W*3 numbers rather than pixels of 3: the inner loop is long enough for SIMD.
    rows = images.reshape(batch * height, width * 3).float()
    torch.addcmul(shift.to(images.device), rows, scale, out=rows)
    return rows.view(batch, height, width, 3).permute(0, 3, 1, 2)


def _boxes(
    uniform: NDArray[np.float64],
    height: int,
    width: int,
    *,
    probability: float,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> NDArray[np.int64]:
    """Draw boxes (b,4) from uniform numbers (b,3+2A): the first of A attempts that fits inside.

    Area and height/width are uniform in their ranges, as in Random Erasing's released code.
    NOTE: that code tries 100 times. A 0.02-0.4 patch misses a 2:1 image in 1 of 20 attempts, so the
    10 made here fail once in 1e13 boxes. The released grey patch takes height for width; not here.
    """
    wanted = (area[0] + (area[1] - area[0]) * uniform[:, 3 : 3 + _ATTEMPTS]) * (height * width)
    ratio = aspect[0] + (aspect[1] - aspect[0]) * uniform[:, 3 + _ATTEMPTS :]
    heights = np.rint(np.sqrt(wanted * ratio)).astype(np.int64)
    widths = np.rint(np.sqrt(wanted / ratio)).astype(np.int64)
    fits = (heights < height) & (widths < width)
    image, attempt = np.arange(len(uniform)), fits.argmax(axis=1)
    present = (uniform[:, 0] < probability) & fits.any(axis=1)
    box_height, box_width = heights[image, attempt], widths[image, attempt]
    top = (uniform[:, 1] * (height - box_height + 1)).astype(np.int64)
    left = (uniform[:, 2] * (width - box_width + 1)).astype(np.int64)
    return np.stack((top, left, box_height, box_width), axis=1) * present[:, None]


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
    rows = images.reshape(batch * height, width * 3).index_select(0, _on(images, flat_row))
    gathered = rows.view(batch, height, width * 3).gather(
        2, _on(images, byte).expand(batch, height, width * 3)
    )
    if config.pad_mode == "zero":
        inside = (row == source_row)[:, :, None] & (column == column.clip(0, width - 1))[:, None]
        gathered.view(batch, height, width, 3).mul_(_on(images, inside)[..., None])
    return gathered.view(batch, height, width, 3)


def _grey_(images: UInt8[Tensor, "b H W 3"], boxes: Int64[np.ndarray, "b 4"]) -> None:
    """Turn boxes of uint8 images to grey in place, to the values of Pillow's mode "L"."""
    rows = images.view(-1, images.shape[2], 3)
    chosen, inside = _touched(images, boxes)
    pixels = rows.index_select(0, chosen)
    red, green, blue = pixels.int().unbind(dim=2)
    weight_r, weight_g, weight_b = GREY_WEIGHTS
    luma = ((weight_r * red + weight_g * green + weight_b * blue + (1 << 15)) >> 16).byte()
    for channel in pixels.unbind(dim=2):
        channel.copy_(torch.where(inside, luma, channel))
    rows.index_copy_(0, chosen, pixels)


def _erase_(
    images: Float32[Tensor, "b H W 3"],
    boxes: Int64[np.ndarray, "b 4"],
    fill: tuple[float, float, float],
) -> None:
    """Overwrite boxes of normalised images in place."""
    width = images.shape[2]
    rows = images.view(-1, width * 3)
    chosen, inside = _touched(images, boxes)
    erased = torch.where(
        inside.repeat_interleave(3, dim=1),
        torch.tensor(fill, device=images.device).repeat(width),
        rows.index_select(0, chosen),
    )
    rows.index_copy_(0, chosen, erased)


def _touched(
    images: Tensor, boxes: Int64[np.ndarray, "b 4"]
) -> tuple[Int64[Tensor, "r"], Bool[Tensor, "r W"]]:
    """Return the image rows that boxes cross, of b*H, and which of their pixels are inside.

    Work is then proportional to the boxes' heights instead of the batch.
    """
    _, height, width, _ = images.shape
    top, left, box_height, box_width = boxes.T
    image = np.repeat(np.arange(len(boxes)), box_height)
    before = np.cumsum(box_height) - box_height
    row = np.arange(len(image)) + (image * height + (top - before)[image])
    span = _on(images, np.stack((left, left + box_width), axis=1)[image])
    column = torch.arange(width, device=images.device)
    return _on(images, row), (column >= span[:, :1]) & (column < span[:, 1:])


def _on(images: Tensor, array: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(array).to(images.device)

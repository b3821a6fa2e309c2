"""Pooling of feature maps into float32 vectors.

Legend: B images, C channels, h x w positions, P parts.

Maximum and mean are plain reductions: they keep `channels_last` maps as they are, and their
gradients are deterministic on a GPU, which those of `adaptive_max_pool2d` are not.
NOTE: a maximum reached at several positions shares its gradient between them; the released
implementations give it to the first. After a ReLU such ties are zeros, whose gradient is zero.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def full_precision(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return `values` in float32, or as they are in float64."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def gap(feature_map: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C"]:
    """Return the mean of each channel, summed in float32 also where the map is bfloat16."""
    dtype = torch.promote_types(feature_map.dtype, torch.float32)
    return feature_map.mean((2, 3), dtype=dtype)


def gmp(feature_map: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C"]:
    """Return the maximum of each channel in float32."""
    return full_precision(feature_map.amax((2, 3)))


def gap_gmp(feature_map: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C"]:
    """Return mean plus maximum of each channel (core_reid spec 1c, global feature)."""
    return gap(feature_map) + gmp(feature_map)


def part_pool(
    feature_map: Float[Tensor, "B C h w"], num_parts: int
) -> tuple[Float[Tensor, "B P C"], Float[Tensor, "B P C"]]:
    """Return mean and maximum of each horizontal strip, from top to bottom.

    Where the height is no multiple of P, the first h mod P strips have one row more.

    Raises:
        ValueError: fewer rows than parts.
    """
    height = feature_map.shape[2]
    if not 1 <= num_parts <= height:
        raise ValueError(
            f"a map of {height} rows cannot be cut into {num_parts} strips: "
            "use taller images or last_stride=1"
        )
    strips = feature_map.tensor_split(num_parts, dim=2)
    average = torch.stack([gap(strip) for strip in strips], dim=1)
    maximum = torch.stack([gmp(strip) for strip in strips], dim=1)
    return average, maximum

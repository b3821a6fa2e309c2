"""Pooling of feature maps into float32 vectors.

Legend: B images, C channels, h x w positions, P parts.

Maximum and mean are plain reductions: they keep `channels_last` maps as they are, and their
gradients are deterministic on a GPU, which those of `adaptive_max_pool2d` are not.
NOTE: a maximum reached at several positions shares its gradient between them; the released
implementations give it to the first. After a ReLU such ties are zeros, whose gradient is zero, or,
in bfloat16, values that were rounded alike.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reid.precision import full_precision


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
    _check_parts(feature_map.shape[2], num_parts)
    strips = feature_map.tensor_split(num_parts, dim=2)
    average = torch.stack([gap(strip) for strip in strips], dim=1)
    maximum = torch.stack([gmp(strip) for strip in strips], dim=1)
    return average, maximum


def part_gap(feature_map: Float[Tensor, "B C h w"], num_parts: int) -> Float[Tensor, "B P C"]:
    """Return the mean of each horizontal strip, from top to bottom: PPLR's and INCLR's parts.

    Strips are cut at i h / P rounded to the nearest row: 8, 8, 8 of 24 rows, 5, 6, 5 of 16.
    NOTE: released code pools adaptively, whose bins overlap where P does not divide the height
    (rows 0-5, 5-10 and 10-15 of 16; spcl_inclr spec 3.4). Where P divides it, both agree.

    Raises:
        ValueError: fewer rows than parts.
    """
    height = feature_map.shape[2]
    _check_parts(height, num_parts)
    edges = [(2 * part * height + num_parts) // (2 * num_parts) for part in range(num_parts + 1)]
    sizes = [below - above for above, below in pairwise(edges)]
    return torch.stack([gap(strip) for strip in feature_map.split(sizes, dim=2)], dim=1)


class GeM(nn.Module):
    """Generalised mean of each channel: mean(max(x, eps)^p)^(1/p), its power p learned, from 3.

    p = 1 is the mean, a large p near the maximum. Float32 inside. Source: Radenovic et al.
    (arXiv 1711.02512), Eq. 3; eps and first power are those of the field's code (spec section 0).
    """

    def __init__(self, *, power: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor([power]))
        self.eps = eps

    def forward(self, feature_map: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C"]:
        """Return the generalised mean of a map."""
        powers = full_precision(feature_map).clamp(min=self.eps).pow(self.power)
        return powers.mean((2, 3)).pow(1 / self.power)


def _check_parts(height: int, num_parts: int) -> None:
    """Refuse to cut a map into more strips than it has rows."""
    if not 1 <= num_parts <= height:
        raise ValueError(
            f"a map of {height} rows cannot be cut into {num_parts} strips: "
            "use taller images or last_stride=1"
        )

"""Ensemble fusion: the teacher's map weighted by the student's attention, and mirror averaging.

Legend: B images, C channels, h x w positions of a map, H x W pixels, D feature dimensions.
"""

from collections.abc import Callable, Mapping
from typing import overload

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from reid.models.attention import SECAB
from reid.models.heads import BNNeck
from reid.models.pooling import gap, gmp
from reid.precision import full_precision


class EnsembleFusion(nn.Module):
    """Three vectors from one teacher map: as it is, and weighted by each of the student's gates.

    Source: CORE-ReID V2 (arXiv 2508.04036), Ensemble Fusion++, Fig. 8; core_reid spec 1c. Without
    `global_attention` it is the fusion of CORE-ReID V1 and LF2, with a `SECAB` that of V2.

    NOTE: the released code feeds the outputs to clustering only, so nothing here is trained there.
    Whether the weights of the norms and of `global_attention` train is the caller's choice.
    """

    def __init__(self, channels: int, *, global_attention: SECAB | None = None) -> None:
        super().__init__()
        self.global_attention = global_attention
        self.necks = nn.ModuleDict({view: BNNeck(channels) for view in ("global", "top", "bottom")})

    def forward(
        self,
        teacher_map: Float[Tensor, "B C h w"],
        gate_top: Float[Tensor, "B C 1 1"],
        gate_bottom: Float[Tensor, "B C 1 1"],
    ) -> dict[str, Float[Tensor, "B C"]]:
        """Return BN(mean + max) of the map and of the map times each gate, not normalised.

        A gate weights the whole map: the strips' descriptors are not put back where they came from.
        """
        average, high = gap(teacher_map), gmp(teacher_map)
        low = full_precision(teacher_map.amin((2, 3)))
        if self.global_attention is not None:
            # A mask is positive: it moves out of mean, maximum and minimum alike.
            mask = self.global_attention.from_pooled(average, high).flatten(1)
            average, high, low = average * mask, high * mask, low * mask
        pooled = {"global": average + high}
        for view, gate in (("top", gate_top), ("bottom", gate_bottom)):
            pooled[view] = _weighted_gap_gmp(average, high, low, gate.flatten(1))
        return {view: self.necks[view](features) for view, features in pooled.items()}


def _weighted_gap_gmp(average: Tensor, high: Tensor, low: Tensor, gate: Tensor) -> Tensor:
    """Return mean + max of a map times a gate, from the pooled map.

    One number g per channel moves out of the mean, and turns max(g x) into g max(x), or g min(x)
    where g is negative: whichever is larger. So the weighted maps never have to be made.
    """
    return average * gate + torch.maximum(high * gate, low * gate)


@overload
def bidirectional_mean(fn: Callable[[Tensor], Tensor], images: Tensor) -> Tensor: ...


@overload
def bidirectional_mean(
    fn: Callable[[Tensor], Mapping[str, Tensor]], images: Tensor
) -> dict[str, Tensor]: ...


def bidirectional_mean(
    fn: Callable[[Tensor], Tensor | Mapping[str, Tensor]], images: Float[Tensor, "B 3 H W"]
) -> Float[Tensor, "B D"] | dict[str, Float[Tensor, "B D"]]:
    """Return the mean of fn's features of the images and of their mirror images, at unit length.

    `fn` returns (B,D) features, or {view: (B,D)}, each view then being treated on its own.
    Source: CORE-ReID's BMFN (arXiv 2508.03064); core_reid spec 1c.
    """
    straight, mirrored = fn(images), fn(images.flip(3))
    if isinstance(straight, Tensor):
        assert isinstance(mirrored, Tensor)
        return _unit_mean(straight, mirrored)
    assert not isinstance(mirrored, Tensor)
    return {view: _unit_mean(straight[view], mirrored[view]) for view in straight}


def _unit_mean(first: Tensor, second: Tensor) -> Tensor:
    return F.normalize((full_precision(first) + full_precision(second)) / 2, dim=1)

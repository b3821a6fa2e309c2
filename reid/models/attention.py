"""Channel attention of CORE-ReID: ECAB on the student's strips, SECAB on the teacher's map.

Legend: B images, C channels, h x w positions of a map.

Source: CORE-ReID V2 (arXiv 2508.04036), Figs. 6 to 8; core_reid spec 1c. Both blocks pool a map by
mean and by maximum, send the two vectors through the same bottleneck network, and turn the sum into
weights in 0..1. LF2's attention (arXiv 2205.09495) is ECAB with `hidden_layers=1`.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reid.models.pooling import gap, gmp
from reid.precision import full_precision


class ECAB(nn.Module):
    """Efficient channel attention block: the weights times (maximum + mean), a gate per channel.

    `mlp` holds the bottleneck's linear layers in order, without bias, with ReLU between them:
    `hidden_layers` h (odd) of them are hidden, the first (h-1)/2 shrink by `reduction`, the middle
    one once more, the others expand again. Initial weights are torch's for a 1x1 convolution, drawn
    from the global generator: build the block inside `seeded`.

    Raises:
        ValueError: `hidden_layers` is even or below 1, or `reduction` is below 1.
    """

    def __init__(self, channels: int, *, reduction: int = 4, hidden_layers: int = 5) -> None:
        super().__init__()
        self.mlp = _bottleneck(channels, reduction=reduction, hidden_layers=hidden_layers)

    def forward(self, feature_map: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C 1 1"]:
        """Return the gate psi = sigmoid(mlp(max) + mlp(mean)) * (max + mean) of a map."""
        return self.from_pooled(gap(feature_map), gmp(feature_map))

    def from_pooled(
        self, average: Float[Tensor, "B C"], maximum: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B C 1 1"]:
        """Return the gate of a map whose mean and maximum are known."""
        gate = _mask(self.mlp, average, maximum) * (maximum + average)
        return gate[:, :, None, None]


class SECAB(nn.Module):
    """Simplified ECAB: the weights alone. Arguments, `mlp` and errors are those of `ECAB`."""

    def __init__(self, channels: int, *, reduction: int = 4, hidden_layers: int = 5) -> None:
        super().__init__()
        self.mlp = _bottleneck(channels, reduction=reduction, hidden_layers=hidden_layers)

    def forward(self, feature_map: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C 1 1"]:
        """Return the mask sigmoid(mlp(max) + mlp(mean)) of a map, in 0..1."""
        return self.from_pooled(gap(feature_map), gmp(feature_map))

    def from_pooled(
        self, average: Float[Tensor, "B C"], maximum: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B C 1 1"]:
        """Return the mask of a map whose mean and maximum are known."""
        return _mask(self.mlp, average, maximum)[:, :, None, None]


def _mask(mlp: nn.Sequential, average: Tensor, maximum: Tensor) -> Tensor:
    """Return (B,C) weights; both vectors pass the network in one call."""
    scores = mlp(torch.stack([maximum, average]))
    return torch.sigmoid(full_precision(scores).sum(0))  # half precision has few values near 1/2


def _bottleneck(channels: int, *, reduction: int, hidden_layers: int) -> nn.Sequential:
    """Return the network C -> C/r -> C/r^2 ... -> C/r -> C; no layer is narrower than 1."""
    if hidden_layers < 1 or hidden_layers % 2 == 0:
        raise ValueError(f"hidden_layers must be odd and at least 1, got {hidden_layers}")
    if reduction < 1:
        raise ValueError(f"reduction must be at least 1, got {reduction}")
    depths = [min(layer, hidden_layers + 1 - layer) for layer in range(hidden_layers + 2)]
    widths = [max(1, channels // reduction**depth) for depth in depths]
    return nn.Sequential(*_layers(widths))


def _layers(widths: list[int]) -> Iterator[nn.Module]:
    yield nn.Linear(widths[0], widths[1], bias=False)
    for before, after in pairwise(widths[1:]):
        yield nn.ReLU()
        yield nn.Linear(before, after, bias=False)

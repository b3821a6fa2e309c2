"""A ResNet with an eighth of the channels: every method's arithmetic at a fraction of the cost."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from reid.models import Backbone, seeded
from reid.recipes import start

CHANNELS = 64
"""of its last map; 512 in resnet18"""


class _Thin(ResNet):
    """resnet18 with 8, 16, 32 and 64 channels in its stages."""

    def _make_layer(self, block: Any, planes: int, *rest: Any, **named: Any) -> nn.Sequential:
        return super()._make_layer(block, planes // 8, *rest, **named)


def thin_resnet(
    name: str,
    *,
    weights: None,
    last_stride: Any,
    seed: int,
    images: Float[Tensor, "B 3 H W"] | None = None,
) -> Backbone:
    """Return the network in place of `reid.models.resnet`'s.

    With `images` BatchNorm's running statistics are theirs. Of a random network without, features
    in evaluation are all but equal, and rounding alone decides how they are clustered.
    """
    assert name == "resnet18"
    assert weights is None
    with seeded(seed):
        trunk = _Thin(BasicBlock, [2, 2, 2, 2])
        trunk.fc = nn.Linear(CHANNELS, 1)
        backbone = Backbone(trunk, last_stride=last_stride)
    if images is not None:
        norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
        momentum = norms[0].momentum
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            backbone(images)
        for norm in norms:
            norm.momentum = momentum
    return backbone


@contextmanager
def thin_networks(images: Float[Tensor, "B 3 H W"] | None = None) -> Iterator[None]:
    """Let recipes be built on this network, with random first weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "resnet", partial(thin_resnet, images=images))
        yield

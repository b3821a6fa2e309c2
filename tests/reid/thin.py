"""A ResNet with an eighth of the channels: every method's arithmetic at a fraction of the cost."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from reid.models import Backbone, seeded
from reid.recipes import start

CHANNELS = 64
"""of its last map; 512 in resnet18"""


class _Thin(ResNet):
    """resnet18 with 8, 16, 32 and 64 channels in its stages."""

    def _make_layer(self, block: Any, planes: int, *rest: Any, **named: Any) -> nn.Sequential:
        return super()._make_layer(block, planes // 8, *rest, **named)


def thin_resnet(name: str, *, weights: None, last_stride: Any, seed: int) -> Backbone:
    """Return the network in place of `reid.models.resnet`'s."""
    assert name == "resnet18"
    assert weights is None
    with seeded(seed):
        trunk = _Thin(BasicBlock, [2, 2, 2, 2])
        trunk.fc = nn.Linear(CHANNELS, 1)
        return Backbone(trunk, last_stride=last_stride)


@contextmanager
def thin_networks() -> Iterator[None]:
    """Let recipes be built on this network, with random first weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "resnet", thin_resnet)
        yield

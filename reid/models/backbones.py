"""Residual networks without their pooling and classifier: images in, feature maps out.

Legend: B images, H x W pixels, C channels, h x w positions of the map.
"""

from os import PathLike
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.resnet import BasicBlock, ResNet

from reid.models.ibn import add_instance_norm_
from reid.models.weights import load_weights, seeded

BackboneName = Literal[
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnet18_ibn",
    "resnet34_ibn",
    "resnet50_ibn",
    "resnet101_ibn",
]
"""The depths of the CORE-ReID V2 study, and those with released IBN-a weights."""

_IBN = "_ibn"


class Backbone(nn.Module):
    """The convolutional part of a torchvision `ResNet`; its tensors keep torchvision's names.

    `last_stride` 1 keeps the map of the last stage as large as that of the stage before it (the
    residual block's and the shortcut's strides are both removed): 16 times smaller than the image
    on each side instead of 32 times.
    """

    def __init__(self, trunk: ResNet, *, last_stride: Literal[1, 2]) -> None:
        super().__init__()
        self.num_channels: int = trunk.fc.in_features
        """C: 512 for resnet18 and resnet34, 2048 for the deeper ones."""
        self.conv1 = trunk.conv1
        self.bn1 = trunk.bn1
        self.relu = trunk.relu
        self.maxpool = trunk.maxpool
        self.layer1 = trunk.layer1
        self.layer2 = trunk.layer2
        self.layer3 = trunk.layer3
        self.layer4 = trunk.layer4
        first = self.layer4[0]
        strided = first.conv1 if isinstance(first, BasicBlock) else first.conv2
        strided.stride = first.downsample[0].stride = (last_stride, last_stride)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Return the map of the last stage, not pooled."""
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = self.layer3(self.layer2(self.layer1(maps)))
        last: Tensor = self.layer4(maps)
        return last


def resnet(
    name: BackboneName,
    *,
    weights: str | PathLike[str] | None,
    last_stride: Literal[1, 2],
    seed: int,
) -> Backbone:
    """Build a residual network whose initial weights depend on `seed` only.

    `weights` is None (initialised as torchvision does), "imagenet" (downloaded; the version 1
    weights, which the published figures start from), or the path of a torchvision state dict, whose
    classifier `fc` is left out. Published re-identification uses last_stride=1, except for resnet18
    and resnet34 in CORE-ReID V2, which keep 2 (core_reid spec 1b).

    A name that ends in "_ibn" is the IBN-a network (`reid.models.ibn`); its ImageNet weights are a
    file that its authors released, with the tensor names of this module.

    Raises:
        ValueError: the file holds another backbone, or no state dict; "imagenet" for an IBN-a
            network, of which torchvision has no weights.
    """
    depth = name.removesuffix(_IBN)
    if name != depth and weights == "imagenet":
        raise ValueError(
            f"torchvision has no ImageNet weights of {name}: give the path of the file that "
            "IBN-Net's authors released, or None"
        )
    with seeded(seed):
        trunk = get_model(depth, weights=None)
        if name != depth:
            add_instance_norm_(trunk)
        backbone = Backbone(trunk, last_stride=last_stride)
    if weights is None:
        return backbone
    if weights == "imagenet":
        state = get_model_weights(name).IMAGENET1K_V1.get_state_dict(
            progress=False, check_hash=True
        )
    else:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
            raise ValueError(f"{weights} holds no state dict: save `model.state_dict()` itself")
    load_weights(backbone, state, unexpected=("fc.",))
    return backbone

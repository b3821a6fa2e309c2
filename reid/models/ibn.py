"""IBN-a: instance norm beside batch norm in the early blocks of a residual network.

Legend: B images, C channels, h x w positions of a map.

Source: Pan et al., IBN-Net (arXiv 1807.09441), section 3.2 and Fig. 3: the first norm of each block
of the first three stages standardises half of its channels image by image, which takes out what
domains differ by (light, contrast); later layers keep what tells identities apart.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.resnet import ResNet


class IBN(nn.Module):
    """Instance norm of the first half of the channels, BatchNorm of the others.

    NOTE: the two norms are called as in the released weights, whose names are checked.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_instance = channels // 2
        self.IN = nn.InstanceNorm2d(self.num_instance, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.num_instance)

    def forward(self, maps: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Return the standardised map, in the memory format it came in."""
        # torch's instance norm is slowest on channels_last maps: copies there and back cost less.
        widths = [self.num_instance, maps.shape[1] - self.num_instance]
        own, shared = maps.split(widths, dim=1)
        out = torch.cat([self.IN(own.contiguous()), self.BN(shared.contiguous())], dim=1)
        if maps.is_contiguous(memory_format=torch.channels_last):
            return out.contiguous(memory_format=torch.channels_last)
        return out


def add_instance_norm_(trunk: ResNet) -> None:
    """Make the first norm of each block an `IBN`, in place, but not in the last stage."""
    for stage in (trunk.layer1, trunk.layer2, trunk.layer3):
        for block in stage:
            block.bn1 = IBN(block.bn1.num_features)

"""What follows the pooled feature: the BatchNorm neck and the classifier.

Legend: B rows, C channels, K classes.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

CLASSIFIER_STD = 0.001
"""Standard deviation of a fresh classifier's weights (core_reid spec 1b)."""


class BNNeck(nn.BatchNorm1d):
    """BatchNorm between feature and classifier, with its bias frozen at 0.

    Source: Luo et al., Bag of Tricks (arXiv 1903.07071), section 3.6.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.bias.requires_grad_(False)


def classifier(channels: int, num_classes: int) -> nn.Linear:
    """Return a linear classifier without bias; build it inside `seeded`."""
    layer = nn.Linear(channels, num_classes, bias=False)
    nn.init.normal_(layer.weight, std=CLASSIFIER_STD)
    return layer


@torch.no_grad()
def reset_from_centers_(layer: nn.Linear, centers: Float[Tensor, "K C"]) -> None:
    """Set each class's weights, in place, to its centre scaled to unit length (spec 1c, item 4).

    Raises:
        ValueError: the number of centres or their width is not the classifier's.
    """
    if centers.shape != layer.weight.shape:
        raise ValueError(
            f"centres {tuple(centers.shape)} do not fit a classifier of "
            f"{tuple(layer.weight.shape)}: build it with as many classes as clusters"
        )
    layer.weight.copy_(F.normalize(centers, dim=1))

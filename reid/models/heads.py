"""What follows the pooled feature: the BatchNorm neck and the classifier.

Legend: B rows, C channels, K classes, M classes at most.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
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


class DynamicClassifier(nn.Linear):
    """A linear classifier without bias over as many classes as the round has: M rows, K in use.

    For clusterings whose number of clusters is known only when they are done (DBSCAN). Rows beyond
    `num_classes` K get a gradient of zero, so that optimizers and distributed wrappers see one
    parameter of one shape all along. K is 0, and so are the logits, until `reset_from_centers_`
    sets it. Build it inside `seeded`.

    K is a plain number, since reading a tensor would make the host wait for the device each step;
    it travels in the state dictionary all the same.
    """

    def __init__(self, channels: int, max_classes: int) -> None:
        super().__init__(channels, max_classes, bias=False)
        nn.init.normal_(self.weight, std=CLASSIFIER_STD)
        self.num_classes = 0

    def forward(self, features: Float[Tensor, "B C"]) -> Float[Tensor, "B K"]:
        """Return the logits of the classes in use."""
        return F.linear(features, self.weight[: self.num_classes])

    def get_extra_state(self) -> Int64[Tensor, ""]:
        """Return K for the state dictionary."""
        return torch.tensor(self.num_classes)

    def set_extra_state(self, state: Int64[Tensor, ""]) -> None:
        """Take K from a state dictionary."""
        self.num_classes = int(state)


@torch.no_grad()
def reset_from_centers_(layer: nn.Linear, centers: Float[Tensor, "K C"]) -> None:
    """Set each class's weights, in place, to its centre scaled to unit length (spec 1c, item 4).

    A `DynamicClassifier` has K classes from here on; rows beyond keep their values.

    Raises:
        ValueError: the number of centres or their width is not the classifier's, or is above what
            a dynamic one can hold.
    """
    count, channels = centers.shape
    if isinstance(layer, DynamicClassifier):
        if count > layer.out_features:
            raise ValueError(
                f"{count} clusters do not fit a classifier of at most {layer.out_features} "
                "classes: build it with a larger max_classes, or cluster into fewer (a larger eps)"
            )
        fits = channels == layer.in_features
    else:
        fits = centers.shape == layer.weight.shape
    if not fits:
        raise ValueError(
            f"centres {tuple(centers.shape)} do not fit a classifier of "
            f"{tuple(layer.weight.shape)}: build it with as many classes as clusters, over "
            "features as wide as those clustered"
        )
    layer.weight[:count] = F.normalize(centers, dim=1).to(layer.weight)
    if isinstance(layer, DynamicClassifier):
        layer.num_classes = count

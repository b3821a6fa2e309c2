"""Losses over triplets of a batch: an anchor, its hardest positive, its hardest negative.

Legend: B rows of a batch, D feature dimensions.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

_SMALLEST = 1e-12
"""Floor of a squared distance: below it the square root has no useful gradient."""


def softmax_triplet(
    features: Float[Tensor, "B D"], labels: Int64[Tensor, "B"]
) -> Float[Tensor, ""]:
    """Return the mean of -log(e^d_an / (e^d_ap + e^d_an)) = softplus(d_ap - d_an) over anchors.

    d_ap and d_an are Euclidean distances, of features as they are, to the farthest row of the
    anchor's label and the nearest row of another. Computed in float32, also under autocast.

    An anchor that is alone with its label is its own positive, at distance 0, as in the released
    implementations. A batch of a single label has no negatives: its loss is 0, with gradient 0.

    Source: Hermans et al. (arXiv 1703.07737), section 2 for the mining; MMT (arXiv 2001.01526),
    Eq. 7, for the softmax form; core_reid spec 1b.
    """
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    with torch.autocast(features.device.type, enabled=False):
        positive, negative, has_negative = _hardest(features.detach(), labels)
        # Taken anew from the rows found: no cancellation, and no gradient through a (B,B) matrix.
        # Indexing, unlike index_select, has a deterministic gradient on a GPU.
        to_positive = _distance(features, features[positive])
        to_negative = _distance(features, features[negative])
        losses = F.softplus(to_positive - to_negative)
        return torch.where(has_negative, losses, 0.0).mean()


def _hardest(
    features: Float[Tensor, "B D"], labels: Int64[Tensor, "B"]
) -> tuple[Int64[Tensor, "B"], Int64[Tensor, "B"], Bool[Tensor, "B"]]:
    """Return each anchor's hardest positive and negative row, and whether it has a negative."""
    norms = features.square().sum(1)
    squared = torch.addmm(norms[:, None] + norms[None, :], features, features.T, alpha=-2)
    same = labels[:, None] == labels[None, :]
    positive = squared.masked_fill(~same, -torch.inf).argmax(1)
    negative = squared.masked_fill(same, torch.inf).argmin(1)
    return positive, negative, ~same.all(1)


def _distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the Euclidean distance of each pair of rows."""
    return (first - second).square().sum(1).clamp(min=_SMALLEST).sqrt()

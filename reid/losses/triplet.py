"""Losses over triplets of a batch: an anchor, its hardest positive, its hardest negative.

Distances are Euclidean, of features as they are: to the farthest row of the anchor's label and the
nearest row of another. All is computed in float32, also under autocast.

An anchor that is alone with its label is its own positive, at distance 0, as in the released
implementations. A batch of a single label has no negatives: its loss is 0, with gradient 0.

Triplets are sought among the rows given. Where a batch is spread over ranks, give the rows of all
of them, `reid.dist.gather_batch(features)` and `reid.dist.all_gather_rows(labels)`: every rank then
has the loss of the whole batch, and averaged gradients are those of one process.

Legend: B rows of a batch, D feature dimensions.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from reid.precision import full_precision

_SMALLEST = 1e-12
"""Floor of a squared distance: below it the square root has no useful gradient."""


def softmax_triplet(
    features: Float[Tensor, "B D"], labels: Int64[Tensor, "B"]
) -> Float[Tensor, ""]:
    """Return the mean of -log(e^d_an / (e^d_ap + e^d_an)) = softplus(d_ap - d_an) over anchors.

    Source: Hermans et al. (arXiv 1703.07737), section 2 for the mining; MMT (arXiv 2001.01526),
    Eq. 7, for the softmax form; core_reid spec 1b.
    """
    with torch.autocast(features.device.type, enabled=False):
        positive, negative, has_negative = _hardest(features, labels)
        losses = F.softplus(-_margins(features, positive, negative))
        return torch.where(has_negative, losses, 0.0).mean()


def soft_softmax_triplet(
    features: Float[Tensor, "B D"],
    teacher_features: Float[Tensor, "B D"],
    labels: Int64[Tensor, "B"],
) -> Float[Tensor, ""]:
    """Return the mean of -(t' log t + (1 - t') log(1 - t)), t = e^d_an / (e^d_ap + e^d_an).

    t' is the teacher's t on the triplets mined from `features`; no gradient reaches the teacher.
    Source: MMT (arXiv 2001.01526), section 3; spcl_inclr spec 2.2.
    """
    with torch.autocast(features.device.type, enabled=False):
        positive, negative, has_negative = _hardest(features, labels)
        targets = _margins(teacher_features.detach(), positive, negative).sigmoid()
        margins = _margins(features, positive, negative)
        losses = F.binary_cross_entropy_with_logits(margins, targets, reduction="none")
        return torch.where(has_negative, losses, 0.0).mean()


def batch_hard_triplet(
    features: Float[Tensor, "B D"], labels: Int64[Tensor, "B"], *, margin: float = 0.3
) -> Float[Tensor, ""]:
    """Return the mean of max(0, margin + d_ap - d_an) over anchors.

    Source: Hermans et al. (arXiv 1703.07737), section 2.
    """
    with torch.autocast(features.device.type, enabled=False):
        positive, negative, has_negative = _hardest(features, labels)
        losses = F.relu(margin - _margins(features, positive, negative))
        return torch.where(has_negative, losses, 0.0).mean()


@torch.no_grad()
def _hardest(
    features: Float[Tensor, "B D"], labels: Int64[Tensor, "B"]
) -> tuple[Int64[Tensor, "B"], Int64[Tensor, "B"], Bool[Tensor, "B"]]:
    """Return each anchor's hardest positive and negative row, and whether it has a negative."""
    features = full_precision(features)
    norms = features.square().sum(1)
    squared = torch.addmm(norms[:, None] + norms[None, :], features, features.T, alpha=-2)
    same = labels[:, None] == labels[None, :]
    positive = squared.masked_fill(~same, -torch.inf).argmax(1)
    negative = squared.masked_fill(same, torch.inf).argmin(1)
    return positive, negative, ~same.all(1)


def _margins(
    features: Float[Tensor, "B D"], positive: Int64[Tensor, "B"], negative: Int64[Tensor, "B"]
) -> Float[Tensor, "B"]:
    """Return d_an - d_ap of the rows found.

    Distances are taken anew: no cancellation, and no gradient through a (B,B) matrix.
    """
    features = full_precision(features)
    # Indexing, unlike index_select, has a deterministic gradient on a GPU.
    return _distance(features, features[negative]) - _distance(features, features[positive])


def _distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the Euclidean distance of each pair of rows."""
    return (first - second).square().sum(1).clamp(min=_SMALLEST).sqrt()

"""Losses over identities: cross entropy with smoothed labels, with a teacher, with weights.

All are computed in float32, also from bfloat16 logits. Labels are in 0..K-1.

Legend: B rows of a batch, K identities, D feature dimensions.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from reid.precision import full_precision


def smoothed_cross_entropy(
    logits: Float[Tensor, "B K"], labels: Int64[Tensor, "B"], *, smoothing: float = 0.1
) -> Float[Tensor, ""]:
    """Return the mean cross entropy with (1 - smoothing) one-hot(label) + smoothing / K.

    Source: Szegedy et al. (arXiv 1512.00567), section 7; core_reid spec 1b.

    Raises:
        ValueError: `smoothing` is outside 0..1.
    """
    if not 0.0 <= smoothing <= 1.0:
        raise ValueError(f"smoothing must be between 0 and 1, got {smoothing}")
    return F.cross_entropy(full_precision(logits), labels, label_smoothing=smoothing)


def soft_cross_entropy(
    logits: Float[Tensor, "B K"], teacher_logits: Float[Tensor, "B K"]
) -> Float[Tensor, ""]:
    """Return the mean of -sum_k softmax(teacher)_k log softmax(logits)_k.

    No gradient reaches the teacher. Source: MMT (arXiv 2001.01526), section 3; spcl_inclr spec 2.2.
    """
    targets = full_precision(teacher_logits.detach()).softmax(1)
    return F.cross_entropy(full_precision(logits), targets)


def weighted_cross_entropy(
    logits: Float[Tensor, "B K"], labels: Int64[Tensor, "B"], weights: Float[Tensor, "B"]
) -> Float[Tensor, ""]:
    """Return 1/B times the sum of weight times cross entropy; weights need not sum to B.

    Source: INCLR (paper 003), Eq. 7, whose minus sign the scan lost; spcl_inclr spec 3.1.
    """
    losses = F.cross_entropy(full_precision(logits), labels, reduction="none")
    return (full_precision(weights) * losses).mean()


@torch.no_grad()
def accuracy_weights(
    student_features: Float[Tensor, "B D"],
    teacher_features: Float[Tensor, "B D"],
    centers: Float[Tensor, "K D"],
    *,
    scale: float = 20.0,
) -> Float[Tensor, "B"]:
    """Return exp(-KL(teacher || student)) in 0..1 of each row: 1 where the two agree.

    Each network's probabilities are the softmax over centres of `scale` times the cosine between
    feature and centre. Weights carry no gradient.
    Source: INCLR (paper 003), section III-B; spcl_inclr spec 3.1.
    """
    student, teacher = (
        center_logits(features, centers, scale=scale).log_softmax(1)
        for features in (student_features, teacher_features)
    )
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
    return torch.exp(-divergence.clamp(min=0))  # rounding may leave it just below 0


def center_logits(
    features: Float[Tensor, "B D"], centers: Float[Tensor, "K D"], *, scale: float
) -> Float[Tensor, "B K"]:
    """Return `scale` times the cosines of features and centres, in full precision also in autocast.

    Source: INCLR's external classifier C_u; spcl_inclr spec 3.1.
    """
    with torch.autocast(features.device.type, enabled=False):
        rows, columns = (F.normalize(full_precision(each)) for each in (features, centers))
        return scale * rows @ columns.T

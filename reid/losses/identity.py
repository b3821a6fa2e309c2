"""Losses over identities: cross entropy with smoothed labels.

Legend: B rows of a batch, K identities.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor


def smoothed_cross_entropy(
    logits: Float[Tensor, "B K"], labels: Int64[Tensor, "B"], *, smoothing: float = 0.1
) -> Float[Tensor, ""]:
    """Return the mean cross entropy with (1 - smoothing) one-hot(label) + smoothing / K.

    Labels are in 0..K-1. Computed in float32, also from bfloat16 logits.
    Source: Szegedy et al. (arXiv 1512.00567), section 7; core_reid spec 1b.

    Raises:
        ValueError: `smoothing` is outside 0..1.
    """
    if not 0.0 <= smoothing <= 1.0:
        raise ValueError(f"smoothing must be between 0 and 1, got {smoothing}")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)

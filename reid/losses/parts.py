"""Losses in which global and part features correct each other's pseudo-labels (PPLR).

The agreement of an image and a part is the share of common neighbours, in 0..1, that
`reid.clustering.cross_agreement` gives. All is computed in float32, also from bfloat16 logits.

Legend: B rows of a batch, K identities, P parts.
"""

import math

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from reid.precision import full_precision


def agreement_label_smoothing(
    logits: Float[Tensor, "B K"], labels: Int64[Tensor, "B"], agreement: Float[Tensor, "B"]
) -> Float[Tensor, ""]:
    """Return the mean of c CE(q, label) + (1 - c) KL(uniform || q), c a row's agreement.

    `logits` are one part's. Source: PPLR (arXiv 2203.14675); spcl_inclr spec 3.3.
    """
    log_probabilities = full_precision(logits).log_softmax(1)
    cross_entropy = F.nll_loss(log_probabilities, labels, reduction="none")
    from_uniform = -log_probabilities.mean(1) - math.log(logits.shape[1])
    agreement = full_precision(agreement)
    return (agreement * cross_entropy + (1 - agreement) * from_uniform).mean()


def part_guided_refinement(
    global_logits: Float[Tensor, "B K"],
    part_logits: Float[Tensor, "B K P"],
    labels: Int64[Tensor, "B"],
    agreement: Float[Tensor, "B P"],
    *,
    onehot_weight: float = 0.5,
) -> Float[Tensor, ""]:
    """Return the mean cross entropy of the global logits with labels refined by the parts.

    The target is w one-hot(label) + (1 - w) sum_p a_p softmax(part p), where a is the softmax over
    parts of the agreement. No gradient reaches the parts.
    Source: PPLR (arXiv 2203.14675); spcl_inclr spec 3.3.

    Raises:
        ValueError: `onehot_weight` is outside 0..1.
    """
    if not 0.0 <= onehot_weight <= 1.0:
        raise ValueError(f"onehot_weight must be between 0 and 1, got {onehot_weight}")
    logits = full_precision(global_logits)
    shares = full_precision(agreement).softmax(1)[:, None, :]
    ensemble = (full_precision(part_logits.detach()).softmax(1) * shares).sum(2)
    hard, soft = F.cross_entropy(logits, labels), F.cross_entropy(logits, ensemble)
    return onehot_weight * hard + (1 - onehot_weight) * soft

"""The precision that features and losses are computed in, also behind bfloat16 networks."""

import torch
from jaxtyping import Float
from torch import Tensor


def full_precision(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the values in float32; float64 stays float64."""
    return values.to(torch.promote_types(values.dtype, torch.float32))

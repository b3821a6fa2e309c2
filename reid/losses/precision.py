"""The precision that losses are computed in."""

import torch
from jaxtyping import Float
from torch import Tensor


def full_precision(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the values in float32; float64 stays float64."""
    return values.to(torch.promote_types(values.dtype, torch.float32))

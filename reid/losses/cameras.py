"""Contrast between cameras: a feature and its cluster's proxies seen by other cameras.

Legend: B rows of a batch, D feature dimensions, P proxies, one for each camera of each cluster.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from reid.precision import full_precision


def camera_contrast(
    features: Float[Tensor, "B D"],
    labels: Int64[Tensor, "B"],
    camids: Int64[Tensor, "B"],
    proxies: Float[Tensor, "P D"],
    proxy_labels: Int64[Tensor, "P"],
    proxy_camids: Int64[Tensor, "P"],
    *,
    temperature: float = 0.07,
    num_negatives: int = 50,
) -> Float[Tensor, ""]:
    """Return the mean cross entropy with equal shares for a cluster's proxies of other cameras.

    A proxy is the mean feature of a cluster's images from one camera. A row's logits are its
    cosines, over `temperature`, with those positives and with the `num_negatives` most similar
    proxies of other clusters. A row whose cluster no other camera saw counts as 0. Features and
    proxies are brought to unit length here, in float32 also under autocast.

    NOTE: where fewer proxies than `num_negatives` are of other clusters, the released code fills up
    with the row's own cluster; here all the others are taken.

    Source: PPLR (arXiv 2203.14675), after CAP (arXiv 2012.10674); spcl_inclr spec 4.2.

    Raises:
        ValueError: `temperature` is not above 0, or `num_negatives` is below 1.
    """
    if temperature <= 0 or num_negatives < 1:
        raise ValueError(
            "camera contrast needs a temperature above 0 and at least one negative, got "
            f"temperature={temperature}, num_negatives={num_negatives}"
        )
    with torch.autocast(features.device.type, enabled=False):
        unit_features = F.normalize(full_precision(features))
        logits = unit_features @ F.normalize(full_precision(proxies)).T / temperature
    same = labels[:, None] == proxy_labels[None, :]
    positive = same & (camids[:, None] != proxy_camids[None, :])
    num_positives = positive.sum(1)
    counted = num_positives > 0
    # Rows that do not count keep finite values: the gradient of a sum of nothing is not a number.
    positives = logits.masked_fill(~positive & counted[:, None], -torch.inf)
    hardest = logits.masked_fill(same, -torch.inf).topk(min(num_negatives, len(proxies)), dim=1)
    totals = torch.cat([positives, hardest.values], dim=1).logsumexp(1)
    means = torch.where(positive, logits, 0.0).sum(1) / num_positives.clamp(min=1)
    return torch.where(counted, totals - means, 0.0).mean()

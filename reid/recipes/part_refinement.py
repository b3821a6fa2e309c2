"""Global and part features that refine each other's pseudo-labels: PPLR's labels and losses.

Source: Cho et al., PPLR (arXiv 2203.14675), sections 3.2 and 3.3; spcl_inclr spec 3.3.
Legend: N images, B images of a batch, D feature dimensions, K clusters, P parts, R proxies: the
images of one cluster from one camera.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from reid.clustering import ShardPool, cluster_means, cross_agreement
from reid.losses import (
    agreement_label_smoothing,
    camera_contrast,
    part_guided_refinement,
    smoothed_cross_entropy,
)
from reid.models import NetOutput
from reid.types import OUTLIER, Batch, PseudoLabels


def label_parts(
    pools: Mapping[str, ShardPool],
    views: Sequence[str],
    *,
    labels: Int64[np.ndarray, "N"],
    centers: Float32[np.ndarray, "K D"],
    num_neighbors: int,
    aware: bool,
    camid: Int64[np.ndarray, "N"] | None = None,
) -> dict[str, PseudoLabels]:
    """Return for each view the labels of the first, with the view's own means as centres.

    The first view's extras have `agreement` (N,P) float32, each part's with the whole, and `aware`.
    With cameras `camid`, every view's have `proxies` (R,D) float32, the means of its features of
    each cluster's cameras, and the first one's `proxy_of` (R,2) int64, their cluster and camera.
    """
    whole, *parts = views
    filled = np.unique(labels[labels != OUTLIER])
    if len(filled) < len(centers):  # k-means that ends by its limit of iterations may leave gaps
        labels = np.where(labels == OUTLIER, OUTLIER, np.searchsorted(filled, labels))
        centers = centers[filled]
    agreement = cross_agreement(pools[whole], [pools[part] for part in parts], k=num_neighbors)
    means = {part: cluster_means(pools[part], labels) for part in parts}
    extras: dict[str, dict[str, np.ndarray]] = {view: {} for view in views}
    extras[whole] = {"agreement": agreement.astype(np.float32), "aware": np.array(aware)}
    if camid is not None:
        proxy, extras[whole]["proxy_of"] = by_camera(labels, camid)
        for view in views:
            extras[view]["proxies"] = cluster_means(pools[view], proxy)
    return {
        view: PseudoLabels(labels=labels, centers=means.get(view, centers), extras=extras[view])
        for view in views
    }


def by_camera(
    labels: Int64[np.ndarray, "N"], camid: Int64[np.ndarray, "N"]
) -> tuple[Int64[np.ndarray, "N"], Int64[np.ndarray, "R 2"]]:
    """Return each image's proxy, `OUTLIER` for none, and each proxy's cluster and camera."""
    kept = labels != OUTLIER
    pairs = np.stack([labels[kept], camid[kept]], axis=1)
    proxy_of, number = np.unique(pairs, axis=0, return_inverse=True)
    proxy = np.full(len(labels), OUTLIER)
    proxy[kept] = number.reshape(-1)
    return proxy, proxy_of


def refined_losses(
    out: NetOutput,
    labels: Int64[Tensor, "B"],
    agreement: Float[Tensor, "B P"],
    *,
    aware: Bool[Tensor, ""],
    onehot_weight: float,
    smoothing: float,
) -> dict[str, Float[Tensor, ""]]:
    """Return L_gce, the label refined by the parts, and L_pce, the mean of the parts' ID losses.

    These smooth the label by the agreement where `aware` is true, else all alike by `smoothing`.
    """
    parts = list(out.part_logits.values())
    alike = [smoothed_cross_entropy(logits, labels, smoothing=smoothing) for logits in parts]
    shares = agreement.unbind(1)
    by_agreement = [
        agreement_label_smoothing(logits, labels, share)
        for logits, share in zip(parts, shares, strict=True)
    ]
    # Both, since to ask a tensor which of them it is would make the host wait for the device.
    part_loss = torch.where(aware, torch.stack(by_agreement), torch.stack(alike)).mean()
    stacked = torch.stack(parts, dim=2)
    whole = part_guided_refinement(
        out.logits, stacked, labels, agreement, onehot_weight=onehot_weight
    )
    return {"id": whole, "id/parts": part_loss}


def proxy_contrast(
    views: Mapping[str, Float[Tensor, "B D"]],
    batch: Batch,
    proxies: Mapping[str, Float[Tensor, "R D"]],
    proxy_of: Int64[Tensor, "R 2"],
) -> Float[Tensor, ""]:
    """Return the whole's contrast between cameras plus the parts' mean (spec 4.2).

    `proxies` are those of each of the `views`, of which the first is the whole.
    """
    proxy_labels, proxy_camids = proxy_of.unbind(1)
    whole, *parts = (
        camera_contrast(
            features,
            batch.labels["global"],
            batch.camid,
            proxies[view],
            proxy_labels,
            proxy_camids,
        )
        for view, features in views.items()
    )
    return whole + torch.stack(parts).mean()

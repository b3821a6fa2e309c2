"""PPLR: no source; global and part features refine each other's pseudo-labels.

Cho et al., CVPR 2022, arXiv 2203.14675; numbers below refer to specs/spcl_inclr.md. Published,
ResNet-50, with cameras: Market-1501 84.4 % mAP, MSMT17 42.2 %, each the best round on the target's
test labels (`--selection oracle` reports that one).

    python -m jobs.train pplr-market1501

Each round: the target images are clustered by DBSCAN of Jaccard distances of the global features;
how far each image's neighbours by a part are those by the whole is its cross agreement. Each step
(spec 3.3): the global classifier learns the pseudo-label mixed with what the parts' classifiers
say (part-guided label refinement), the parts' the pseudo-label smoothed by their agreement
(agreement-aware label smoothing), and the global feature has a softmax triplet.

Variants:
- `camera_weight` above 0 (named runs that end in "-camera"): global and part features are also
  contrasted with the mean features of each cluster's images from other cameras (spec 4.2).
- `num_parts`: 3 (default, published).

NOTE: features are means over an image and its mirror, as those of all methods here; released code
takes the image alone. NOTE: parts do not overlap where 3 does not divide the map's height
(`part_gap`); at the published sizes it does.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from reid.clustering import DBSCANConfig, ShardPool, jaccard_dbscan
from reid.data.augment import UNTINTED, AugmentConfig
from reid.dist import unwrap
from reid.losses import softmax_triplet
from reid.memory import RoundMemory
from reid.models import (
    BranchNet,
    bidirectional_mean,
    branch_views,
    reset_from_centers_,
)
from reid.recipes.contract import (
    NO_STARTS,
    OptimConfig,
    Sizes,
    Starts,
    check_room,
    target_draw,
)
from reid.recipes.mining import MiningConfig, mined
from reid.recipes.part_refinement import label_parts, proxy_contrast, refined_losses
from reid.recipes.start import first_backbone, group_norms_
from reid.types import Batch, PseudoLabels


@dataclass(frozen=True, kw_only=True)
class PPLRConfig(MiningConfig):
    """Published settings for persons without cameras; others are named runs."""

    dbscan: DBSCANConfig = DBSCANConfig(eps=0.5)
    max_clusters: int = 3000
    """clusters that the classifiers have room for"""
    num_parts: int = 3
    """horizontal strips of the image"""
    agreement_neighbors: int = 20
    """nearest images that are compared for the cross agreement"""
    onehot_weight: float = 0.5
    """share beta of the pseudo-label in the refined label of the global feature"""
    aals_from: int = 5
    """first round of agreement-aware label smoothing; before, parts have `smoothing`"""
    smoothing: float = 0.1
    """share of the parts' ID target spread over all clusters before `aals_from`"""
    camera_weight: float = 0.0
    """weight of the contrast between cameras; 0: cameras are not asked for"""
    norm_group: int | None = 16  # published: each of 4 GPUs' share of a batch
    height: int = 384
    num_rounds: int = 50
    num_identities: int = 16
    optim: OptimConfig = OptimConfig(milestones=(20, 40))
    augment: AugmentConfig = UNTINTED
    eval_every_rounds: int = 5

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        super().__post_init__()
        self.check_range("num_parts", "agreement_neighbors", least=1)
        self.check_range("onehot_weight", "smoothing", most=1)
        self.check_range("camera_weight")


class PPLR:
    """One network whose parts have classifiers of their own."""

    def __init__(self, config: PPLRConfig, *, sizes: Sizes, starts: Starts = NO_STARTS) -> None:
        self.config, self.sizes = config, sizes
        self.views = branch_views(config.num_parts)
        trunk = first_backbone(config, starts)
        self.student = BranchNet(
            trunk, config.max_clusters, seed=config.seed, num_parts=config.num_parts
        )
        group_norms_(self.student, config)
        arrays = {
            "agreement": torch.zeros(sizes.num_images, config.num_parts),
            "aware": torch.tensor(False),
        }
        if config.camera_weight:
            arrays["proxy_of"] = torch.zeros(0, 2, dtype=torch.int64)
            arrays |= {f"proxies_{view}": torch.zeros(0, trunk.num_channels) for view in self.views}
        self.memory = RoundMemory(arrays)
        self.networks = nn.ModuleDict({"student": self.student, "memory": self.memory})
        self.camid: NDArray[np.int64] | None = None
        self.draws = (target_draw(config),)

    def features(self, images: Float[Tensor, "B 3 H W"]) -> dict[str, Float[Tensor, "B D"]]:
        """Return each view's feature after its neck, unit length, averaged with the mirror's."""
        net = self.networks["student"]
        return bidirectional_mean(
            lambda x: {view: F.normalize(value) for view, value in net(x).views.items()}, images
        )

    def embed(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]:
        """Return the global view's feature alone."""
        return self.features(images)["global"]

    def know_cameras(self, camid: Int64[np.ndarray, "N"]) -> None:
        """Keep the images' cameras where they are asked for."""
        self.camid = camid if self.config.camera_weight else None

    def label(self, pools: Mapping[str, ShardPool], *, round: int) -> dict[str, PseudoLabels]:
        """Cluster the global view, and measure agreement, centres and proxies in every view."""
        config = self.config
        found = jaccard_dbscan(pools["global"], config.dbscan)
        check_room(found.num_clusters, config.max_clusters)
        return label_parts(
            pools,
            self.views,
            labels=found.labels,
            centers=found.centers,
            num_neighbors=config.agreement_neighbors,
            aware=round >= config.aals_from,
            camid=self.camid,
        )

    def begin_round(self, labels: Mapping[str, PseudoLabels]) -> None:
        """Set each view's classifier to its unit-length centres, and keep the extras."""
        net = unwrap(self.student)
        for view in self.views:
            reset_from_centers_(net.classifier(view), torch.from_numpy(labels[view].centers))
        kept = dict(labels["global"].extras)
        if self.config.camera_weight:
            del kept["proxies"]
            kept |= {f"proxies_{view}": labels[view].extras["proxies"] for view in self.views}
        self.memory.keep({name: torch.from_numpy(np.asarray(x)) for name, x in kept.items()})

    def losses(self, batches: Mapping[str, Batch]) -> dict[str, Float[Tensor, ""]]:
        """Return L_gce + L_pce + L_tri, and the contrast between cameras where it is asked for."""
        config, batch = self.config, batches["target"]
        labels, out = batch.labels["global"], self.student(batch.images)
        terms = refined_losses(
            out,
            labels,
            self.memory["agreement"][batch.index],
            aware=self.memory["aware"],
            onehot_weight=config.onehot_weight,
            smoothing=config.smoothing,
        )
        rows = mined(out.views["global"], config.mining)
        terms["triplet"] = softmax_triplet(rows, mined(labels, config.mining))
        if config.camera_weight:
            proxies = {view: self.memory[f"proxies_{view}"] for view in self.views}
            contrast = proxy_contrast(out.views, batch, proxies, self.memory["proxy_of"])
            terms["camera"] = config.camera_weight * contrast
        return terms

    def after_step(self, *, step: int) -> None:
        """Do nothing."""

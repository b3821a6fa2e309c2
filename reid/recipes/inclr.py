"""INCLR: MMT with parts, whose pseudo-labels are refined by agreement and weighted by accuracy.

"Intensified Consistency with Pseudo label Refinement" (paper 003 of papers/); numbers below refer
to specs/spcl_inclr.md 3. Published, ResNet-50: DukeMTMC-reID -> Market-1501 82.2 % mAP,
Market-1501 -> DukeMTMC-reID 70.9 %.

    python -m jobs.train inclr-dukemtmc-market1501

Both students start from MMT's source runs. Each round: the target images are clustered by the mean
of both teachers' global features; how far an image's neighbours by a part are those by the whole
is its cross agreement. Each step: each student learns the pseudo-labels, refined between whole and
parts as in PPLR (LGMR), and once more weighted by exp(-KL) between what the mean teacher and the
mean student say of the image (IGMO); the teachers follow. Retrieval adds the parts' distances.

The paper leaves much open, and no code was released; what it does not say is a field (spec 3.2):
- `cluster="dbscan"` (default; its sections) or "kmeans" (its counts), of global features alone.
- LGMR has no formula: `onehot_weight`, `aals_from`, `agreement_neighbors` are PPLR's. With 1 for
  the first, `smoothing=0`, `aals_from` at `num_rounds`, Eq. 1 and 2 as printed. `part_identity=1`
  (default) weighs the mean over parts, as PPLR; `num_parts` gives the sum of Eq. 2.
- `mmt_soft=True` (default): MMT's soft losses beside Eq. 8, which omits them.
- `credibility="trained"` (default): p(y|x) of Eq. 7 is the classifier's; "external": C_u's.
- `neck="source"` (default) starts with the necks of the source networks, "fresh" does not.
- C_u's rows are the global centres of the round's clusters, at unit length.
- `accuracy_scale=0` gives all images of IGMO the weight 1; `accuracy=0` leaves IGMO out.
- `part_distance=0` retrieves by the global feature alone (published 79.9 % for 82.2 %).

NOTE: features are means over an image and its mirror; parts never overlap (`part_gap`). Source runs
are MMT's, with BatchNorms over 16 images.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from reid.clustering import DBSCANConfig, ShardPool, jaccard_dbscan, kmeans
from reid.dist import unwrap
from reid.losses import accuracy_weights, center_logits, weighted_cross_entropy
from reid.memory import RoundMemory
from reid.models import BranchNet, bidirectional_mean, branch_views, ema_step_, reset_from_centers_
from reid.recipes import mutual
from reid.recipes.contract import NO_STARTS, Sizes, Starts, check_room, round_seed
from reid.recipes.mutual import MutualConfig
from reid.recipes.part_refinement import label_parts, refined_losses
from reid.types import Batch, PseudoLabels


@dataclass(frozen=True, kw_only=True)
class INCLRConfig(MutualConfig):
    """Published settings, and PPLR's where the paper is silent."""

    cluster: Literal["kmeans", "dbscan"] = "dbscan"
    dbscan: DBSCANConfig = DBSCANConfig(eps=0.5)
    num_parts: int = 3
    """horizontal strips of the image"""
    agreement_neighbors: int = 20
    """nearest images that are compared for the cross agreement"""
    onehot_weight: float = 0.5
    """share of the pseudo-label in the refined label of the global feature"""
    aals_from: int = 5
    """first round of agreement-aware label smoothing; before, parts have `smoothing`"""
    part_identity: float = 1.0
    """weight of the mean of the parts' ID losses"""
    accuracy: float = 0.5
    """weight lambda_KL of the ID loss weighted by accuracy"""
    accuracy_scale: float = 20.0
    """factor beta of the cosines in the external classifier C_u"""
    credibility: Literal["trained", "external"] = "trained"
    mmt_soft: bool = True
    """also learn what the other student's teacher says"""
    part_distance: float = 0.2
    """weight kappa of each part's distance in retrieval; 0: the global feature alone"""
    norm_group: int | None = 32  # published: each of 2 GPUs' share of a batch
    num_rounds: int = 100

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        super().__post_init__()
        self.check_range("num_parts", "agreement_neighbors", least=1)
        self.check_range("onehot_weight", most=1)
        self.check_range("part_identity", "accuracy", "accuracy_scale", "part_distance")


class INCLR:
    """Two students and two teachers, whose parts have classifiers of their own."""

    def __init__(self, config: INCLRConfig, *, sizes: Sizes, starts: Starts = NO_STARTS) -> None:
        self.config, self.sizes = config, sizes
        self.views = branch_views(config.num_parts)
        self.student, self.teacher = mutual.pairs(
            config, starts, partial(BranchNet, num_parts=config.num_parts)
        )
        self.memory = RoundMemory(
            {
                "agreement": torch.zeros(sizes.num_images, config.num_parts),
                "aware": torch.tensor(False),
                "centers": torch.zeros(0, self.student.first.backbone.num_channels),
            }
        )
        self.networks = nn.ModuleDict(
            {"student": self.student, "teacher": self.teacher, "memory": self.memory}
        )
        self.draws = (mutual.two_views(config),)

    def features(self, images: Float[Tensor, "B 3 H W"]) -> dict[str, Float[Tensor, "B D"]]:
        """Return each view's mean of both teachers' features, unit length."""

        def both(x: Tensor) -> dict[str, Tensor]:
            first, second = (net(x).views for net in self.teacher.nets)
            return {v: F.normalize(first[v]) + F.normalize(second[v]) for v in self.views}

        return bidirectional_mean(both, images)

    def embed(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]:
        """Return one teacher's global and part features side by side, unit length.

        Parts are scaled by sqrt(kappa), so squared distances are d_global + kappa (d_part0 + ...)
        divided by 1 + kappa num_parts, all embeddings' squared length: Eq. 9's order.
        """
        net = mutual.retrieval_net(self.teacher, self.config)
        views = bidirectional_mean(
            lambda x: {view: F.normalize(value) for view, value in net(x).views.items()}, images
        )
        parts = [self.config.part_distance**0.5 * views[view] for view in self.views[1:]]
        return F.normalize(torch.cat([views["global"], *parts], dim=1))

    def label(self, pools: Mapping[str, ShardPool], *, round: int) -> dict[str, PseudoLabels]:
        """Cluster the global view; measure each part's agreement with it, and its centres."""
        config, pool = self.config, pools["global"]
        if config.cluster == "kmeans":
            clusters = kmeans(pool, config.num_clusters, seed=round_seed(config.seed, round, 0))
            labels, centers = clusters.labels, clusters.centers
        else:
            found = jaccard_dbscan(pool, config.dbscan)
            labels, centers = found.labels, found.centers
        check_room(len(centers), config.max_classes)
        return label_parts(
            pools,
            self.views,
            labels=labels,
            centers=centers,
            num_neighbors=config.agreement_neighbors,
            aware=round >= config.aals_from,
        )

    def begin_round(self, labels: Mapping[str, PseudoLabels]) -> None:
        """Set all classifiers of each view to its unit-length centres, C_u to the global ones."""
        for view in self.views:
            centers = torch.from_numpy(labels[view].centers)
            for net in (*unwrap(self.student).nets, *self.teacher.nets):
                reset_from_centers_(net.classifier(view), centers)
        found = labels["global"]
        kept = {name: torch.from_numpy(np.asarray(x)) for name, x in found.extras.items()}
        self.memory.keep({**kept, "centers": F.normalize(torch.from_numpy(found.centers))})

    def losses(self, batches: Mapping[str, Batch]) -> dict[str, Float[Tensor, ""]]:
        """Return L_gce + L_pce + L_tri + lambda_KL L_KL of both students, and the soft terms."""
        config, batch = self.config, batches["target"]
        labels, agreement = batch.labels["global"], self.memory["agreement"][batch.index]
        students, teachers = mutual.outputs(self.student, self.teacher, batch)
        refine = partial(
            refined_losses,
            aware=self.memory["aware"],
            onehot_weight=config.onehot_weight,
            smoothing=config.smoothing,
        )
        refined = [refine(out, labels, agreement) for out in students]
        centers, scale = self.memory["centers"], config.accuracy_scale
        learned, taught = map(mutual.mean_features, (students, teachers))
        weights = accuracy_weights(learned, taught, centers, scale=scale)
        logits = [out.logits for out in students]
        if config.credibility == "external":
            logits = [center_logits(o.views["global"], centers, scale=scale) for o in students]
        weighted = mutual.total(weighted_cross_entropy(each, labels, weights) for each in logits)
        features, everyone = mutual.mined_rows(students, labels, config)
        terms = {
            "id": mutual.total(each["id"] for each in refined),
            "id/parts": config.part_identity * mutual.total(each["id/parts"] for each in refined),
            "triplet": mutual.hard_triplets(features, everyone),
            "accuracy": config.accuracy * weighted,
        }
        if config.mmt_soft:
            terms |= mutual.soft_terms(students, teachers, features, everyone, config=config)
        return terms

    def after_step(self, *, step: int) -> None:
        """Move the teachers: parameters only, BatchNorm buffers are not averaged."""
        momentum = self.config.ema_momentum
        ema_step_(self.teacher, unwrap(self.student), step=step, ema_momentum=momentum)

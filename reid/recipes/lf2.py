"""LF2: mean teacher, a Fusion Module of teacher's map and student's strips, three clusterings.

Ding and Zhou, arXiv 2205.09495 (papers/001, slides); core_reid spec 1c and 2.2. What it
shares with CORE-ReID V1 and V2 (student, labels, losses, teacher) is `core_parts.py`.
Published, ResNet-50: DukeMTMC-reID -> Market-1501 83.2 % mAP, 92.8 % rank-1, Market-1501 ->
DukeMTMC-reID 73.5 and 83.7 % (DukeMTMC-reID was withdrawn by its authors).

    python -m jobs.train lf2-dukemtmc-market1501

CORE-ReID V1 came of it; here the gates' network has one hidden layer, C -> C/4 -> C, images are
never grey and have black borders, and a batch has 64 images.

Variants where paper and released code disagree (spec sections 2.2 and 5):
- `fusion="released"` (default): the Fusion Module keeps its random first weights, as no loss
  reaches it in the released code. `fusion="trained"`: the fused features receive their view's
  triplet.
- `batches="three"` (default, released): a batch from each label set, three passes a step.
  `batches="shared"` (built-in runs): one batch a step, drawn from the global labels and labelled by
  all three; at a third of the cost it measured better in V2 on the built-in worlds (LOG.md).
- `gate="released"` (default): sigmoid(MLP(F)) * F of a strip F, pooled to max + mean.
  `gate="slides"`: sigmoid(MLP(F) * F). `gate="faded"`: F / 2, what should be left of it in released
  runs: two GPUs' zero gradients and Adam's weight decay drive MLP to nothing (spec 5.1, inferred).
- `optim.optimizer_reset` (default, released): Adam forgets its moments each round.

Ablations, mAP DukeMTMC-reID -> Market-1501:
- `fusion="none"` ("w/o FM", 78.5): the teacher's own three features are clustered.
- 500 clusters 79.9, 700 83.2, 900 82.3; the global feature alone ("baseline", 69.0) is
  `mean_teacher`.

NOTE: released code clusters by scikit-learn's MiniBatchKMeans; here k-means runs to its end.
NOTE: published figures are of the best round on the target's test labels (`selection`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from reid.clustering import ShardPool
from reid.data.augment import UNTINTED, AugmentConfig
from reid.models import (
    ECAB,
    EnsembleFusion,
    NetOutput,
    PartNet,
    bidirectional_mean,
    ema_copy,
    part_pool,
)
from reid.recipes.contract import (
    NO_STARTS,
    OptimConfig,
    Sizes,
    Starts,
    check_clusters,
    check_teacher,
)
from reid.recipes.core_parts import (
    VIEWS,
    FusedStudent,
    Gates,
    follow_,
    fused_features,
    label_views,
    own_gates,
    part_losses,
    reset_classifiers_,
    view_draws,
)
from reid.recipes.mining import MiningConfig
from reid.recipes.start import first_backbone, group_norms_
from reid.types import Batch, PseudoLabels


@dataclass(frozen=True, kw_only=True)
class LF2Config(MiningConfig):
    """Published settings."""

    initial: str
    """where the backbone starts: a source run (trained first when missing) or a checkpoint file"""
    num_clusters: int
    """identities assumed in the target data, the same for the three views"""
    fusion: Literal["released", "trained", "none"] = "released"
    batches: Literal["shared", "three"] = "three"
    gate: Literal["released", "slides", "faded"] = "released"
    num_identities: int = 16
    norm_group: int | None = 32  # published: each of 2 GPUs' share of a batch
    optim: OptimConfig = OptimConfig(optimizer_reset=True)
    augment: AugmentConfig = UNTINTED
    ema_momentum: float = 0.999
    """teacher <- m*teacher + (1-m)*student, with m at most 1 - 1/(step+1)"""
    smoothing: float = 0.1
    """share of the ID target spread over all clusters"""
    global_triplet: float = 1.0
    """weight lambda of the triplet on the global feature"""
    part_triplet: float = 0.5
    """weight gamma of the triplet on each strip's feature"""
    fused_triplet: float = 1.0
    """weight of the triplet on each fused feature (fusion="trained" only)"""

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        super().__post_init__()
        check_teacher(self)
        self.check_range("global_triplet", "part_triplet", "fused_triplet")

    @property
    def starts(self) -> dict[str, str]:
        """The one source run."""
        return {"initial": self.initial}

    def check_target(self, num_images: int) -> None:
        """Refuse more clusters than images."""
        check_clusters(self.num_clusters, num_images)


def slide_gates(net: PartNet, out: NetOutput) -> dict[str, Float[Tensor, "B C 1 1"]]:
    """Return sigmoid(MLP(F) * F) of each strip, the MLP being that of the released gates."""
    gates = {}
    average, maximum = part_pool(out.map, len(net.attention))
    for i, (part, block) in enumerate(net.attention.items()):
        pooled = torch.stack([maximum[:, i], average[:, i]])
        assert isinstance(block, ECAB)
        gates[part] = torch.sigmoid(block.mlp(pooled).sum(0) * pooled.sum(0))[..., None, None]
    return gates


def faded_gates(net: PartNet, out: NetOutput) -> dict[str, Float[Tensor, "B C 1 1"]]:
    """Return F / 2 of each strip: the released gates with an MLP of zeros."""
    average, maximum = part_pool(out.map, len(net.attention))
    halves = (0.5 * (average + maximum))[..., None, None].unbind(1)
    return dict(zip(net.attention, halves, strict=True))


GATES: Mapping[str, Gates] = {"released": own_gates, "slides": slide_gates, "faded": faded_gates}


class LF2:
    """Student, fusion and mean teacher."""

    views = VIEWS

    def __init__(self, config: LF2Config, *, sizes: Sizes, starts: Starts = NO_STARTS) -> None:
        self.config, self.sizes = config, sizes
        trunk = first_backbone(config, starts, "initial")
        net = PartNet(trunk, config.num_clusters, seed=config.seed, attention=True, hidden_layers=1)
        group_norms_(net, config)
        self.student = FusedStudent(
            net, EnsembleFusion(trunk.num_channels), gates=GATES[config.gate]
        )
        self.teacher = ema_copy(net)
        if config.fusion != "trained":
            self.student.freeze_fusion_()
        elif config.gate == "faded":  # an MLP of zeros has nothing to learn
            net.attention.requires_grad_(False)
        self.networks = nn.ModuleDict({"student": self.student, "teacher": self.teacher})
        self.draws = view_draws(config, three=config.batches == "three")

    def features(self, images: Float[Tensor, "B 3 H W"]) -> dict[str, Float[Tensor, "B C"]]:
        """Return the fused features of an image and its mirror, averaged, unit length."""
        if self.config.fusion == "none":
            views: dict[str, Tensor] = bidirectional_mean(lambda x: self.teacher(x).views, images)
            return views
        return bidirectional_mean(lambda x: fused_features(self.student, self.teacher, x), images)

    def embed(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]:
        """Return the teacher's [global; top; bottom], unit length, averaged with the mirror's."""
        return bidirectional_mean(lambda x: F.normalize(self.teacher(x).embedding), images)

    def label(self, pools: Mapping[str, ShardPool], *, round: int) -> dict[str, PseudoLabels]:
        """Cluster each view by greedy k-means++ and Lloyd."""
        config = self.config
        return label_views(pools, config.num_clusters, seed=config.seed, round=round)

    def begin_round(self, labels: Mapping[str, PseudoLabels]) -> None:
        """Set the classifiers of student and teacher to the unit-length global centroids."""
        reset_classifiers_(self.student, self.teacher, labels)

    def losses(self, batches: Mapping[str, Batch]) -> dict[str, Float[Tensor, ""]]:
        """Return L_cls + lambda L_tri + gamma (L_tri^top + L_tri^bottom), and fused triplets."""
        config, part = self.config, self.config.part_triplet
        return part_losses(
            self.student,
            self.teacher,
            batches,
            triplet_weights={"global": config.global_triplet, "top": part, "bottom": part},
            fused_weight=config.fused_triplet if config.fusion == "trained" else None,
            smoothing=config.smoothing,
            mining=config.mining,
        )

    def after_step(self, *, step: int) -> None:
        """Move the teacher: parameters only, BatchNorm buffers are not averaged."""
        momentum = self.config.ema_momentum
        follow_(self.teacher, self.student, step=step, ema_momentum=momentum)

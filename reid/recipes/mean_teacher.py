"""Plain mean teacher: one global feature, one k-means a round. The floor every method must beat.

The mean teacher is Tarvainen and Valpola's, NeurIPS 2017, arXiv 1703.01780. Extract its features,
cluster them by greedy k-means++ and Lloyd, train the student on the labels (ID loss + softmax
triplet, both behind the neck), let the teacher follow: CORE-ReID V2 without fusion and parts.

    python -m jobs.train mean_teacher-dukemtmc-market1501

Published as LF2's "baseline", the global feature alone, ResNet-50: DukeMTMC-reID -> Market-1501
69.0 % mAP, Market-1501 -> DukeMTMC-reID 61.3 %. Those runs have LF2's settings.
NOTE: what else LF2's baseline is, its slides do not say; that it is this is our reading.
NOTE: published figures are of the best round on the target's test labels (`selection`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from reid.clustering import ShardPool, kmeans
from reid.data.augment import UNTINTED
from reid.data.steps import Draw
from reid.dist import unwrap
from reid.losses import smoothed_cross_entropy, softmax_triplet
from reid.models import (
    GlobalNet,
    bidirectional_mean,
    ema_copy,
    ema_step_,
    reset_from_centers_,
)
from reid.recipes.contract import (
    DEMO_BUDGET,
    NO_STARTS,
    Method,
    OptimConfig,
    Sizes,
    Starts,
    check_clusters,
    check_teacher,
    round_seed,
)
from reid.recipes.mining import MiningConfig, mined
from reid.recipes.published import Row, figures, of_row
from reid.recipes.source_runs import lf2_name
from reid.recipes.start import first_backbone, group_norms_
from reid.types import Batch, PseudoLabels


@dataclass(frozen=True, kw_only=True)
class MeanTeacherConfig(MiningConfig):
    """One view, one clustering."""

    initial: str
    """where the backbone starts: a source run (trained first when missing) or a checkpoint file"""
    num_clusters: int
    """identities assumed in the target data"""
    ema_momentum: float = 0.999
    """teacher <- m*teacher + (1-m)*student, with m at most 1 - 1/(step+1)"""
    smoothing: float = 0.1
    """share of the ID target spread over all clusters"""

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        super().__post_init__()
        check_teacher(self)

    @property
    def starts(self) -> dict[str, str]:
        """The one source run."""
        return {"initial": self.initial}

    def check_target(self, num_images: int) -> None:
        """Refuse more clusters than images."""
        check_clusters(self.num_clusters, num_images)


class MeanTeacher:
    """Student and teacher."""

    views = ("global",)

    def __init__(
        self, config: MeanTeacherConfig, *, sizes: Sizes, starts: Starts = NO_STARTS
    ) -> None:
        self.config, self.sizes = config, sizes
        trunk = first_backbone(config, starts, "initial")
        self.student = GlobalNet(
            trunk, config.num_clusters, seed=config.seed, pooling="gap_gmp", view="after_neck"
        )
        group_norms_(self.student, config)
        self.teacher = ema_copy(self.student)
        self.networks = nn.ModuleDict({"student": self.student, "teacher": self.teacher})
        self.draws = (
            Draw(
                name="global",
                table="target",
                labels="global",
                num_identities=config.num_identities,
                num_instances=config.num_instances,
            ),
        )

    def features(self, images: Float[Tensor, "B 3 H W"]) -> dict[str, Float[Tensor, "B D"]]:
        """Return the teacher's embedding."""
        return {"global": self.embed(images)}

    def embed(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]:
        """Return the teacher's feature after its neck, unit length, averaged with the mirror's."""
        return bidirectional_mean(lambda x: F.normalize(self.teacher(x).embedding), images)

    def label(self, pools: Mapping[str, ShardPool], *, round: int) -> dict[str, PseudoLabels]:
        """Cluster the one view."""
        seed = round_seed(self.config.seed, round, 0)
        found = kmeans(pools["global"], self.config.num_clusters, seed=seed)
        return {"global": PseudoLabels(labels=found.labels, centers=found.centers)}

    def begin_round(self, labels: Mapping[str, PseudoLabels]) -> None:
        """Set the classifiers of student and teacher to the unit-length centroids."""
        centers = torch.from_numpy(labels["global"].centers)
        for net in (unwrap(self.student), self.teacher):
            reset_from_centers_(net.classifier, centers)

    def losses(self, batches: Mapping[str, Batch]) -> dict[str, Float[Tensor, ""]]:
        """Return L_ID + L_tri."""
        config, batch = self.config, batches["global"]
        with torch.no_grad():  # in training mode: the teacher's BatchNorm statistics are its own
            self.teacher(batch.images)
        out, labels = self.student(batch.images), batch.labels["global"]
        rows = mined(out.views["global"], config.mining)
        return {
            "id": smoothed_cross_entropy(out.logits, labels, smoothing=config.smoothing),
            "triplet": softmax_triplet(rows, mined(labels, config.mining)),
        }

    def after_step(self, *, step: int) -> None:
        """Move the teacher: parameters only, BatchNorm buffers are not averaged."""
        momentum = self.config.ema_momentum
        ema_step_(self.teacher, unwrap(self.student), step=step, ema_momentum=momentum)


_ROWS: tuple[Row, ...] = (
    ("dukemtmc", "market1501", 700, "resnet50", 69.0, 86.6, "LF2, slides: baseline"),
    ("market1501", "dukemtmc", 900, "resnet50", 61.3, 75.6, "LF2, slides: baseline"),
)
"""Published: source, target, clusters, backbone."""


def _baseline(row: Row) -> MeanTeacherConfig:
    """Return the run of a line, with LF2's settings."""
    return MeanTeacherConfig(
        **of_row(row, initial=lf2_name(*row[:2])),
        num_identities=16,
        norm_group=32,
        augment=UNTINTED,
        optim=OptimConfig(optimizer_reset=True),
    )


PUBLISHED = figures("mean_teacher", _ROWS, usual="resnet50")

RUNS: dict[str, MeanTeacherConfig] = {
    **{name: _baseline(row) for name, row in zip(PUBLISHED, _ROWS, strict=True)},
    "mean_teacher-demo": MeanTeacherConfig(**DEMO_BUDGET),
}
"""Named runs: LF2's baseline, and the built-in pair."""

METHOD = Method(config=MeanTeacherConfig, recipe=MeanTeacher, runs=RUNS, published=PUBLISHED)

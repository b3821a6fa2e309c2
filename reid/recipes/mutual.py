"""What MMT and INCLR do alike: two students, each taught by the other one's mean teacher.

Source: Ge et al., MMT (arXiv 2001.01526), section 3; spcl_inclr spec 2.2.
Legend: B rows of a batch, M rows of all batches that triplets are mined from.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from reid.data.augment import UNTINTED, AugmentConfig
from reid.data.steps import Draw
from reid.losses import soft_cross_entropy, soft_softmax_triplet, softmax_triplet
from reid.models import BranchNet, GlobalNet, NetOutput, NetPair, below, ema_copy, load_weights
from reid.recipes.contract import (
    OptimConfig,
    RunConfig,
    Starts,
    check_clusters,
    check_teacher,
    target_draw,
)
from reid.recipes.mining import MiningConfig, mined
from reid.recipes.start import first_backbone, group_norms_
from reid.types import Batch

Net = TypeVar("Net", GlobalNet, BranchNet)


@dataclass(frozen=True, kw_only=True)
class MutualConfig(MiningConfig):
    """Fields of both methods, with the published values."""

    initial: str
    """where the first student starts: a source run (trained first when missing) or a checkpoint"""
    second_initial: str
    """where the second student starts: a source run of another seed"""
    neck: Literal["source", "fresh"] = "source"
    """where the neck of the global feature starts: with its backbone (released), or anew"""
    cluster: Literal["kmeans", "dbscan"] = "kmeans"
    """how target images are labelled; DBSCAN leaves outliers without a label"""
    num_clusters: int = 500
    """identities that k-means assumes in the target data"""
    max_clusters: int = 3000
    """clusters of DBSCAN that the classifiers have room for (PPLR's number; MMT's: all images)"""
    ema_momentum: float = 0.999
    """teacher <- m*teacher + (1-m)*student, with m at most 1 - 1/(step+1)"""
    smoothing: float = 0.1
    """share of the ID target spread over all clusters"""
    soft_identity: float = 0.5
    """weight of the cross entropy with the other teacher's classes"""
    soft_triplet: float = 0.8
    """weight of the softmax triplet towards the other teacher's"""
    norm_group: int | None = 16  # published for MMT: each of 4 GPUs' share of a batch
    inference: Literal["first", "second"] = "first"
    """the teacher that retrieval uses (published: the better one on the target's test labels)"""
    num_identities: int = 16
    optim: OptimConfig = OptimConfig(optimizer_reset=True)
    augment: AugmentConfig = UNTINTED

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        super().__post_init__()
        check_teacher(self)
        self.check_range("soft_identity", "soft_triplet")

    @property
    def starts(self) -> dict[str, str]:
        """Two source runs: students that start alike would teach each other nothing."""
        return {"initial": self.initial, "second_initial": self.second_initial}

    def check_target(self, num_images: int) -> None:
        """Refuse more clusters than images."""
        if self.cluster == "kmeans":
            check_clusters(self.num_clusters, num_images)

    @property
    def max_classes(self) -> int:
        """How many classes a classifier holds at most."""
        return self.num_clusters if self.cluster == "kmeans" else self.max_clusters


def pairs(
    config: MutualConfig, starts: Starts, build: Callable[..., Net]
) -> tuple[NetPair[Net], NetPair[Net]]:
    """Return students and mean teachers; `build` makes a network of a backbone."""
    nets = []
    for place, start in enumerate(config.starts):
        seed = config.seed + place
        trunk = first_backbone(config, starts, start, seed=seed)
        net = build(trunk, config.max_classes, seed=seed)
        if config.neck == "source" and start in starts:
            load_weights(net.neck, below(starts[start], "neck."))
        group_norms_(net, config)
        nets.append(net)
    students = NetPair(*nets)
    return students, ema_copy(students)


def retrieval_net(teachers: NetPair[Net], config: MutualConfig) -> Net:
    """Return the teacher whose features are the method's."""
    first, second = teachers.nets
    return first if config.inference == "first" else second


def two_views(config: RunConfig) -> Draw:
    """Return the batch of a step: each image augmented twice, once for each student."""
    return replace(target_draw(config), views=2)


def outputs(
    students: nn.Module, teachers: nn.Module, batch: Batch
) -> tuple[tuple[NetOutput, NetOutput], tuple[NetOutput, NetOutput]]:
    """Return what both students and both teachers say of their views of a batch."""
    with torch.no_grad():  # in training mode: the teachers' BatchNorm statistics are their own
        taught = teachers(batch.images, batch.second)
    return students(batch.images, batch.second), taught


def mean_features(outs: Sequence[NetOutput]) -> Float[Tensor, "B D"]:
    """Return the mean over both networks of their unit-length global features."""
    return torch.stack([F.normalize(out.views["global"]) for out in outs]).mean(0)


def mined_rows(
    outs: Iterable[NetOutput], labels: Int64[Tensor, "B"], config: MutualConfig
) -> tuple[list[Float[Tensor, "M D"]], Int64[Tensor, "M"]]:
    """Return each network's global features, and the labels, of all rows that can be mined."""
    features = [mined(out.views["global"], config.mining) for out in outs]
    return features, mined(labels, config.mining)


def hard_triplets(
    features: Sequence[Float[Tensor, "M D"]], labels: Int64[Tensor, "M"]
) -> Float[Tensor, ""]:
    """Return L_tri of both students: softmax triplets of their mined features, hardest rows."""
    return total(softmax_triplet(own, labels) for own in features)


def soft_terms(
    students: Sequence[NetOutput],
    teachers: Sequence[NetOutput],
    features: Sequence[Float[Tensor, "M D"]],
    labels: Int64[Tensor, "M"],
    *,
    config: MutualConfig,
) -> dict[str, Float[Tensor, ""]]:
    """Return each student's losses against the other one's teacher, summed and weighted.

    Cross entropy with the teacher's softmax, and the teacher's triplets on those that the student
    mines from its features (spec 2.2).
    """
    others = teachers[::-1]
    taught = [mined(out.views["global"], config.mining) for out in others]
    identity = total(
        soft_cross_entropy(own.logits, other.logits)
        for own, other in zip(students, others, strict=True)
    )
    triplet = total(
        soft_softmax_triplet(own, other, labels)
        for own, other in zip(features, taught, strict=True)
    )
    return {
        "soft_id": config.soft_identity * identity,
        "soft_triplet": config.soft_triplet * triplet,
    }


def total(terms: Iterable[Tensor]) -> Float[Tensor, ""]:
    """Return the sum of losses."""
    return torch.stack(list(terms)).sum()

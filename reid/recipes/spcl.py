"""SpCL: self-paced contrastive learning with a hybrid memory, one stage, with a source or without.

Ge et al., NeurIPS 2020, arXiv 2006.02713; numbers below refer to specs/spcl_inclr.md section 1.
Published, ResNet-50: MSMT17 -> Market-1501 77.5 % mAP, Market-1501 -> MSMT17 26.8 %; without a
source Market-1501 73.1 %.

    python -m jobs.train spcl-msmt17-market1501
    python -m jobs.train spcl_usl-market1501

The memory has a row for each source class and each target image. Each round the target's rows are
clustered as they stand there: DBSCAN on Jaccard distances, and clusters that a tighter and a looser
criterion do not confirm fall apart into single images. Each step contrasts every feature with the
prototypes of all classes, clusters and single images; its row then follows it.

Variants where paper and released code disagree:
- `centroids="each"` (default, released): a source class's row follows each image of a batch in
  turn; `"mean"` (paper): it follows their mean once.
- `pooling="gem"` is OpenUnReID's SpCL+, whose only difference it is: runs that end in `-gem`.
- `memory="extracted"` is ours: rows are extracted anew at the start of each round. Kept rows mix
  features of networks up to a round apart, which short rounds and weights far from good ones do
  not bear (LOG.md has what it buys). `initial` is ours too, where there are no ImageNet weights.
NOTE: features are means over an image and its mirror. Figures are of the best round (`selection`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from reid.clustering import DBSCANConfig, ShardPool, cluster_means, self_paced_clusters
from reid.data.augment import UNTINTED, AugmentConfig
from reid.data.steps import Draw, ListDraw, Table
from reid.dist import unwrap
from reid.memory import HybridMemory, sums_by_class
from reid.models import (
    GlobalNet,
    bidirectional_mean,
    convert_domain_norm_,
    domains,
    one_domain,
)
from reid.recipes.contract import NO_STARTS, Extract, OptimConfig, RunConfig, Sizes, Starts
from reid.recipes.start import first_backbone, group_norms_
from reid.types import OUTLIER, Batch, PseudoLabels


@dataclass(frozen=True, kw_only=True)
class SpCLConfig(RunConfig):
    """Published settings."""

    initial: str | None = None
    """source run or checkpoint file that the backbone starts from; None (published): `weights`"""
    memory: Literal["kept", "extracted"] = "kept"
    """rows at the start of a round: as the last round left them (published), or extracted anew"""
    with_source: bool = True
    """train on labelled source images too (UDA), with BatchNorm of their own; else target only"""
    num_rounds: int = 50
    num_identities: int = 16
    eval_every_rounds: int = 10
    augment: AugmentConfig = UNTINTED
    optim: OptimConfig = OptimConfig(milestones=(20, 40))
    pooling: Literal["gap", "gem"] = "gap"
    temperature: float = 0.05
    memory_momentum: float = 0.2
    """weight of the old row: row <- m*row + (1-m)*feature, then unit length"""
    centroids: Literal["each", "mean"] = "each"
    """how a source class's row follows the images of a batch: one by one, or their mean once"""
    dbscan: DBSCANConfig = DBSCANConfig()
    eps_gap: float = 0.02
    """how much tighter and looser than eps the two confirming criteria are"""
    self_paced: bool = True
    """whether unconfirmed clusters fall apart (the reliability criterion)"""
    norm_group: int | None = 16  # published: each of 4 GPUs' images of a domain

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        super().__post_init__()
        eps = self.dbscan.eps
        if not 0 < self.eps_gap < eps < 1 - self.eps_gap:
            raise ValueError(
                f"dbscan.eps is {eps} and eps_gap {self.eps_gap}; both radii eps - eps_gap and "
                "eps + eps_gap must lie between 0 and 1"
            )

    @property
    def starts(self) -> dict[str, str]:
        """The source run, where one is given."""
        return {} if self.initial is None else {"initial": self.initial}

    @property
    def reads_source(self) -> bool:
        """Whether labelled source images are trained on."""
        return self.with_source


class SpCL:
    """One network and the memory."""

    views = ("global",)

    def __init__(self, config: SpCLConfig, *, sizes: Sizes, starts: Starts = NO_STARTS) -> None:
        self.config, self.sizes = config, sizes
        start = None if config.initial is None else "initial"
        trunk = first_backbone(config, starts, start)
        self.student = GlobalNet(trunk, None, seed=config.seed, pooling=config.pooling)
        group_norms_(self.student, config)
        if config.with_source:
            convert_domain_norm_(self.student)
        self.num_classes = sizes.num_identities if config.with_source else 0
        num_rows = self.num_classes + sizes.num_images
        self.memory = HybridMemory(
            torch.zeros(num_rows, trunk.num_channels),
            torch.arange(num_rows),
            temperature=config.temperature,
            momentum=config.memory_momentum,
        )
        # NaN until the first round with a cluster sets it, for the whole run.
        self.memory.register_buffer("threshold", torch.tensor(np.nan, dtype=torch.float64))
        self.networks = nn.ModuleDict({"student": self.student, "memory": self.memory})
        size = {"num_identities": config.num_identities, "num_instances": config.num_instances}
        source = Draw(name="source", table="source", labels="identity", **size)
        target = ListDraw(name="target", table="target", labels="global/images", **size)
        self.draws = (source, target) if config.with_source else (target,)

    def remember(self, extract: Extract, tables: Mapping[str, Table], *, round: int) -> None:
        """Fill the memory: mean features of the source's classes, features of target images."""
        if round > 0 and self.config.memory == "kept":
            return
        rows = extract("target", self.embed)
        if self.config.with_source:
            labels = torch.from_numpy(tables["source"].labels["identity"]).to(rows.device)
            with one_domain(self.student, 0):  # what the source's features are trained with
                images = extract("source", self.embed)
            rows = torch.cat([sums_by_class(images, labels, self.num_classes), rows])
        self.memory.reset(rows, torch.arange(len(rows)))

    def remembered(self) -> dict[str, Float[Tensor, "N D"]]:
        """Return the memory's rows of target images."""
        return {"global": self.memory.bank[self.num_classes :]}

    def features(self, images: Float[Tensor, "B 3 H W"]) -> dict[str, Float[Tensor, "B D"]]:
        """Return the embedding: what the memory starts from."""
        return {"global": self.embed(images)}

    def embed(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]:
        """Return the unit feature after the neck, by the target's BatchNorm, with the mirror's."""
        net = unwrap(self.student)
        return bidirectional_mean(lambda x: F.normalize(net(x).embedding), images)

    def label(self, pools: Mapping[str, ShardPool], *, round: int) -> dict[str, PseudoLabels]:
        """Return what both criteria confirm of the rows' clusters; `images`: the rest alone."""
        pool, known = pools["global"], float(self.memory.get_buffer("threshold"))
        found = self_paced_clusters(
            pool,
            self.config.dbscan,
            eps_gap=self.config.eps_gap if self.config.self_paced else 0.0,
            independence_threshold=None if np.isnan(known) else known,
        )
        several = np.bincount(found.labels) > 1
        labels = np.where(several, np.cumsum(several) - 1, OUTLIER)[found.labels]
        threshold = found.independence_threshold
        known = np.nan if threshold is None else threshold
        extras = {"images": found.labels, "threshold": np.array(known)}
        centers = cluster_means(pool, labels)
        return {"global": PseudoLabels(labels=labels, centers=centers, extras=extras)}

    def begin_round(self, labels: Mapping[str, PseudoLabels]) -> None:
        """Give the memory's rows the round's classes."""
        found = labels["global"].extras
        images = torch.from_numpy(found["images"]) + self.num_classes
        self.memory.relabel(torch.cat([torch.arange(self.num_classes), images]))
        self.memory.get_buffer("threshold").fill_(float(found["threshold"]))

    def losses(self, batches: Mapping[str, Batch]) -> dict[str, Float[Tensor, ""]]:
        """Return the contrastive loss of each domain, all features through one forward."""
        sizes = [len(batch.images) for batch in batches.values()]
        images = torch.cat([batch.images for batch in batches.values()])
        with domains(self.student, sizes):  # says nothing to a network of one domain
            features = F.normalize(self.student(images).embedding.float())
        rows = {"target": self.num_classes + batches["target"].index}
        if "source" in batches:
            rows["source"] = batches["source"].labels["identity"]
        parts = zip(batches, features.split(sizes), strict=True)
        self.seen = {name: (part, rows[name]) for name, part in parts}
        return {name: self.memory.loss(*seen) for name, seen in self.seen.items()}

    def after_step(self, *, step: int) -> None:
        """Let the memory's rows follow the step's features."""
        for name, (features, rows) in self.seen.items():
            once = name == "source" and self.config.centroids == "mean"
            follow = self.memory.update_once if once else self.memory.update
            follow(features.detach(), rows)

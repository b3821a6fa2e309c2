"""Supervised pre-training on the source domain, the start of every adaptation.

Label-smoothed ID loss + softmax triplet with batch-hard mining on the feature before the BN neck;
Adam 3.5e-4, linear warm-up over 10 epochs, divided by ten after epochs 40 and 70, 120 epochs of
200 steps (Nguyen et al., CORE-ReID V2, arXiv 2508.04036, supervised stage). Published direct
transfer, ResNet-101: Market-1501 -> CUHK03-NP 23.9 % mAP, CUHK03-NP -> Market-1501 35.5 %.

    python -m jobs.train source-market1501-cuhk03_np-resnet101

The run without a backbone in its name has ResNet-50; those ending in `-lf2` have LF2's settings.
With `source` and `target` the same data set it is the supervised upper bound.

NOTE: the last epoch is handed on; released code hands on the best on the source's test split. It
forwards a step's target images last, we first: of the running statistics in the end, source images
make 53 % and target images 47 %, there the other way round (1 / 1.9 for the last batch).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from reid.clustering import ShardPool
from reid.data.augment import AugmentConfig
from reid.data.steps import Draw
from reid.losses import smoothed_cross_entropy, softmax_triplet
from reid.models import GlobalNet, bidirectional_mean
from reid.recipes.contract import NO_STARTS, OptimConfig, Sizes, Starts
from reid.recipes.mining import MiningConfig, mined
from reid.recipes.start import first_backbone, group_norms_
from reid.types import Batch, PseudoLabels


@dataclass(frozen=True, kw_only=True)
class SourceConfig(MiningConfig):
    """Defaults are the published ones."""

    num_rounds: int = 120
    """epochs of the source stage"""
    steps_per_round: int = 200
    """updates in an epoch"""
    optim: OptimConfig = OptimConfig(warmup_rounds=10, milestones=(40, 70))
    augment: AugmentConfig = AugmentConfig(global_grayscale=0.0, erasing=0.0)
    norm_group: int | None = 64  # published: each of 2 GPUs' share of a batch
    eval_every_rounds: int = 3
    initial: str | None = None
    """source run, or checkpoint file, whose backbone this one begins with; None: `weights`"""
    smoothing: float = 0.1
    """share of the ID target spread over all identities"""
    mix_target: bool = True
    """also forward an unlabelled target batch, whose only effect is on BatchNorm statistics"""
    reads_source = True
    clusters = False

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        super().__post_init__()
        self.check_range("smoothing", most=1)

    @property
    def starts(self) -> dict[str, str]:
        """Another source run, where one is named."""
        return {} if self.initial is None else {"initial": self.initial}


class Source:
    """One network, labels given."""

    views: tuple[str, ...] = ()

    def __init__(self, config: SourceConfig, *, sizes: Sizes, starts: Starts = NO_STARTS) -> None:
        self.config, self.sizes = config, sizes
        start = None if config.initial is None else "initial"
        trunk = first_backbone(config, starts, start)
        self.student = GlobalNet(trunk, sizes.num_identities, seed=config.seed)
        group_norms_(self.student, config)
        self.networks = nn.ModuleDict({"student": self.student})
        size = {"num_identities": config.num_identities, "num_instances": config.num_instances}
        self.draws: tuple[Draw, ...] = (
            Draw(name="source", table="source", labels="identity", **size),
        )
        if config.mix_target:
            self.draws += (Draw(name="target", table="target", labels=None, **size),)

    def features(self, images: Float[Tensor, "B 3 H W"]) -> dict[str, Float[Tensor, "B D"]]:
        """Return nothing: no clustering."""
        return {}

    def embed(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]:
        """Return the unit-length feature after the BN neck, averaged with the mirror image's."""
        net = self.networks["student"]
        return bidirectional_mean(lambda x: F.normalize(net(x).embedding), images)

    def label(self, pools: Mapping[str, ShardPool], *, round: int) -> dict[str, PseudoLabels]:
        """Return nothing: labels are given."""
        return {}

    def begin_round(self, labels: Mapping[str, PseudoLabels]) -> None:
        """Do nothing."""

    def losses(self, batches: Mapping[str, Batch]) -> dict[str, Float[Tensor, ""]]:
        """Return L_ID + L_tri of the labelled batch."""
        if "target" in batches:
            with torch.no_grad():  # moves BatchNorm statistics only
                self.student(batches["target"].images)
        batch = batches["source"]
        config, out, labels = self.config, self.student(batch.images), batch.labels["identity"]
        rows = mined(out.views["global"], config.mining)
        return {
            "id": smoothed_cross_entropy(out.logits, labels, smoothing=config.smoothing),
            "triplet": softmax_triplet(rows, mined(labels, config.mining)),
        }

    def after_step(self, *, step: int) -> None:
        """Do nothing."""

"""MMT, mutual mean teaching: two students, each taught by the other one's mean teacher.

Ge et al., ICLR 2020, arXiv 2001.01526; numbers below refer to specs/spcl_inclr.md. Published,
ResNet-50: DukeMTMC-reID -> Market-1501 71.2 % mAP with 500 clusters, Market-1501 -> DukeMTMC-reID
65.1 % with 700; ResNet-50 IBN-a 76.5 % and 68.7 %.

    python -m jobs.train mmt-dukemtmc-market1501-500

Both students start from source runs of different seeds. Each round: the target images are clustered
by the mean of both teachers' features. Each step: an image is augmented twice, for the first
student and teacher and for the second; each student learns the pseudo-labels and what the other
one's teacher says of them; the teachers follow by exponential moving average.

Variants where paper and released code disagree, or that the code adds (spec 2.3, 2.4):
- `cluster="kmeans"` (default, paper), `cluster="dbscan"` (code): k-reciprocal Jaccard distances,
  with the mean of their smallest 1.6e-3 in the first round as the eps of all rounds.
- `steps_per_round`: 400 (default, released scripts) or 800 (paper).
- `soft_identity` and `soft_triplet`: 0.5 and 0.8 (default, paper); 1.0 is better on some pairs.
- `inference`: which teacher's features are the method's.
- `neck="source"` (default, code): the source networks' necks come along; "fresh": they do not.
- Dropout, which released code offers and leaves at 0, is not built.

NOTE: features are means over an image and its mirror, as those of all methods here; released code
takes the image alone. k-means clusters their mean at unit length, as DBSCAN does in released code,
where k-means is given the mean of two unit vectors as it is. Its backbone has no ReLU behind the
first BatchNorm. Published figures are of the best of all rounds' two teachers on the test labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from reid.clustering import (
    DBSCANConfig,
    ShardPool,
    cluster_means,
    dbscan,
    jaccard_distance,
    kmeans,
    mean_of_smallest,
)
from reid.dist import unwrap
from reid.losses import smoothed_cross_entropy
from reid.memory import RoundMemory
from reid.models import GlobalNet, bidirectional_mean, ema_step_, reset_from_centers_
from reid.recipes.contract import NO_STARTS, Sizes, Starts, check_room, round_seed
from reid.recipes.mutual import (
    MutualConfig,
    hard_triplets,
    mined_rows,
    outputs,
    pairs,
    retrieval_net,
    soft_terms,
    total,
    two_views,
)
from reid.types import Batch, PseudoLabels


@dataclass(frozen=True, kw_only=True)
class MMTConfig(MutualConfig):
    """Published settings for persons; vehicles are named runs."""

    num_rounds: int = 40
    k1: int = 20
    """DBSCAN: neighbours whose sets make the Jaccard distance"""
    k2: int = 6
    """DBSCAN: neighbours whose encodings are averaged, the image itself included"""
    min_samples: int = 4
    """DBSCAN: neighbours that make an image a cluster's core, itself included"""
    eps_share: float = 1.6e-3
    """DBSCAN: share of the first round's distances, the smallest, whose mean is eps"""

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        super().__post_init__()
        # The rest of what DBSCAN is given; its eps is found, so any that passes will do.
        DBSCANConfig(k1=self.k1, k2=self.k2, eps=0.5, min_samples=self.min_samples)
        # What is left of 1 is the hard term's.
        self.check_range("soft_identity", "soft_triplet", most=1)
        if not 0 < self.eps_share <= 1:
            raise ValueError(f"eps_share is {self.eps_share}; it must be above 0 and up to 1")


class MMT:
    """Two students and two teachers."""

    views = ("global",)

    def __init__(self, config: MMTConfig, *, sizes: Sizes, starts: Starts = NO_STARTS) -> None:
        self.config, self.sizes = config, sizes
        build = partial(GlobalNet, dynamic_classes=config.cluster == "dbscan")
        self.student, self.teacher = pairs(config, starts, build)
        # 0 until the labels of a first round by DBSCAN have come.
        self.memory = RoundMemory({"eps": torch.tensor(0.0, dtype=torch.float64)})
        self.networks = nn.ModuleDict(
            {"student": self.student, "teacher": self.teacher, "memory": self.memory}
        )
        self.draws = (two_views(config),)

    def features(self, images: Float[Tensor, "B 3 H W"]) -> dict[str, Float[Tensor, "B D"]]:
        """Return the mean of both teachers' features after their necks, unit length."""

        def both(x: Tensor) -> Tensor:
            return torch.stack([F.normalize(net(x).embedding) for net in self.teacher.nets]).sum(0)

        return {"global": bidirectional_mean(both, images)}

    def embed(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]:
        """Return one teacher's feature after its neck, unit length, averaged with the mirror's."""
        net = retrieval_net(self.teacher, self.config)
        return bidirectional_mean(lambda x: F.normalize(net(x).embedding), images)

    def label(self, pools: Mapping[str, ShardPool], *, round: int) -> dict[str, PseudoLabels]:
        """Cluster by k-means; or by DBSCAN, with the eps of the first round."""
        config, pool = self.config, pools["global"]
        if config.cluster == "kmeans":
            seed = round_seed(config.seed, round, 0)
            found = kmeans(pool, config.num_clusters, seed=seed)
            return {"global": PseudoLabels(labels=found.labels, centers=found.centers)}
        eps = float(self.memory["eps"])
        frozen = eps > 0
        # Distances up to and including eps are those below the next number.
        beyond = float(np.nextafter(np.float32(eps), np.float32(1))) if frozen else 1.0
        distance = jaccard_distance(
            pool, k1=config.k1, k2=config.k2, max_distance=beyond, definition="zhong"
        )
        if not frozen:
            eps = mean_of_smallest(distance, config.eps_share)
        labels = dbscan(distance, eps=eps, min_samples=config.min_samples)
        centers = cluster_means(pool, labels)
        check_room(len(centers), config.max_classes)
        extras = {"eps": np.array(eps)}
        return {"global": PseudoLabels(labels=labels, centers=centers, extras=extras)}

    def begin_round(self, labels: Mapping[str, PseudoLabels]) -> None:
        """Set all four classifiers to the unit-length centroids, and keep eps."""
        found = labels["global"]
        centers = torch.from_numpy(found.centers)
        for net in (*unwrap(self.student).nets, *self.teacher.nets):
            reset_from_centers_(net.classifier, centers)
        self.memory.keep({name: torch.from_numpy(x) for name, x in found.extras.items()})

    def losses(self, batches: Mapping[str, Batch]) -> dict[str, Float[Tensor, ""]]:
        """Return (1 - a) L_ID + a L_soft-ID + (1 - b) L_tri + b L_soft-tri of both students."""
        config, batch = self.config, batches["target"]
        labels = batch.labels["global"]
        students, teachers = outputs(self.student, self.teacher, batch)
        identity = total(
            smoothed_cross_entropy(out.logits, labels, smoothing=config.smoothing)
            for out in students
        )
        features, everyone = mined_rows(students, labels, config)
        return {
            "id": (1 - config.soft_identity) * identity,
            "triplet": (1 - config.soft_triplet) * hard_triplets(features, everyone),
            **soft_terms(students, teachers, features, everyone, config=config),
        }

    def after_step(self, *, step: int) -> None:
        """Move the teachers: parameters only, BatchNorm buffers are not averaged."""
        momentum = self.config.ema_momentum
        ema_step_(self.teacher, unwrap(self.student), step=step, ema_momentum=momentum)

"""What LF2, CORE-ReID V1 and V2 do alike, as functions: student, labels, losses, teacher.

Source: core_reid spec 1c. A recipe says which networks it has, what it fuses and the weights of its
losses; what stands here is equal in all three, line by line.
Legend: B images, H x W pixels, C channels, h x w positions of a map, D dimensions of a view.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reid.clustering import ShardPool, kmeans
from reid.data.steps import Draw
from reid.dist import unwrap
from reid.losses import smoothed_cross_entropy, softmax_triplet
from reid.models import EnsembleFusion, NetOutput, PartNet, ema_step_, reset_from_centers_
from reid.recipes.contract import RunConfig, round_seed
from reid.recipes.mining import Mining, mined
from reid.types import Batch, PseudoLabels

VIEWS = ("global", "top", "bottom")

Gates = Callable[[PartNet, NetOutput], Mapping[str, Tensor]]
"""(student, its output) -> {part: (B,C,1,1)}, what the teacher's map is weighted by."""


def own_gates(net: PartNet, out: NetOutput) -> Mapping[str, Tensor]:
    """Return the gates that the student's attention blocks gave."""
    return out.gates


class FusedStudent(nn.Module):
    """The student with the fusion it feeds: all that may receive gradients in one module.

    NOTE: published, one device fuses the whole batch; here each worker fuses its share. The norms'
    running statistics, means over workers, lack the scatter between shares.
    """

    def __init__(self, net: PartNet, fusion: EnsembleFusion, *, gates: Gates = own_gates) -> None:
        super().__init__()
        self.net, self.fusion = net, fusion
        self.gates = gates

    def forward(
        self, images: Float[Tensor, "B 3 H W"], teacher_map: Float[Tensor, "B C h w"]
    ) -> tuple[NetOutput, dict[str, Float[Tensor, "B C"]]]:
        """Return the student's output and {view: fused feature}, the fused not normalised."""
        out = self.net(images)
        gates = self.gates(self.net, out)
        fused: dict[str, Tensor] = self.fusion(teacher_map, gates["top"], gates["bottom"])
        return out, fused

    def freeze_fusion_(self) -> None:
        """Keep attention and fusion at their first weights, as the released code does."""
        self.fusion.requires_grad_(False)
        self.net.attention.requires_grad_(False)


def view_draws(config: RunConfig, *, three: bool) -> tuple[Draw, ...]:
    """Return one batch a step, drawn from the global labels, or one from each view's labels."""
    size = {"num_identities": config.num_identities, "num_instances": config.num_instances}
    drawn = VIEWS if three else VIEWS[:1]
    return tuple(Draw(name=view, table="target", labels=view, **size) for view in drawn)


def fused_features(
    student: nn.Module, teacher: PartNet, images: Float[Tensor, "B 3 H W"]
) -> dict[str, Float[Tensor, "B C"]]:
    """Return {view: fused feature} of images, not normalised."""
    fused: dict[str, Tensor] = _inner(student)(images, teacher(images).map)[1]
    return fused


def label_views(
    pools: Mapping[str, ShardPool], num_clusters: int, *, seed: int, round: int
) -> dict[str, PseudoLabels]:
    """Cluster each view by greedy k-means++ and Lloyd, from seeds of their own, all at once."""

    def cluster(view: str) -> PseudoLabels:
        found = kmeans(pools[view], num_clusters, seed=round_seed(seed, round, VIEWS.index(view)))
        return PseudoLabels(labels=found.labels, centers=found.centers)

    with ThreadPoolExecutor(len(VIEWS)) as threads:  # a pool of actors is mostly waited for
        return dict(zip(VIEWS, threads.map(cluster, VIEWS), strict=True))


def reset_classifiers_(
    student: nn.Module, teacher: PartNet, labels: Mapping[str, PseudoLabels]
) -> None:
    """Set the classifiers of student and teacher to the unit-length global centroids."""
    centers = torch.from_numpy(labels["global"].centers)
    for net in (_inner(student).net, teacher):
        reset_from_centers_(net.classifier, centers)


def part_losses(
    student: nn.Module,
    teacher: PartNet,
    batches: Mapping[str, Batch],
    *,
    triplet_weights: Mapping[str, float],
    fused_weight: float | None,
    smoothing: float,
    mining: Mining,
) -> dict[str, Float[Tensor, ""]]:
    """Return the ID loss of the global view and each view's weighted softmax triplet.

    A batch alone is labelled by all views, a batch of a view by that view only. With `fused_weight`
    each view's fused feature receives a triplet of that weight as well.
    """
    terms = {}
    for drawn, batch in batches.items():
        with torch.no_grad():  # in training mode: the teacher's BatchNorm statistics are its own
            teacher_map = teacher(batch.images).map
        out, fused = student(batch.images, teacher_map)
        for view in VIEWS if len(batches) == 1 else (drawn,):
            labels = batch.labels[view]
            everyone = mined(labels, mining)
            distance = softmax_triplet(mined(out.views[view], mining), everyone)
            terms[f"triplet/{view}"] = triplet_weights[view] * distance
            if fused_weight is not None:
                distance = softmax_triplet(mined(fused[view], mining), everyone)
                terms[f"fused/{view}"] = fused_weight * distance
            if view == "global":
                terms["id"] = smoothed_cross_entropy(out.logits, labels, smoothing=smoothing)
    return terms


def follow_(teacher: PartNet, student: nn.Module, *, step: int, ema_momentum: float) -> None:
    """Move the teacher after the student's network, by `ema_step_`."""
    ema_step_(teacher, _inner(student).net, step=step, ema_momentum=ema_momentum)


def _inner(student: nn.Module) -> FusedStudent:
    """Return the student inside what averages its gradients."""
    inner = unwrap(student)
    assert isinstance(inner, FusedStudent)
    return inner

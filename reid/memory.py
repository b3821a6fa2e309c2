"""Memories: rows of unit length that features are contrasted with, and that follow them.

A memory is a module without parameters, so it is saved, moved and restored with the networks that
hold it. `loss` reads the rows and `update` moves them: update after the loss's backward, which
needs the rows the loss saw (torch raises RuntimeError otherwise). Several losses before one update,
as in gradient accumulation, all see the same rows. Where several ranks train, each gives its part
of the batch, and every rank holds the same rows: updates take all parts, in rank order.

Everything is computed in the dtype of the rows, float32 (or float64), also under autocast.

Legend: B rows of a batch, M rows of a memory, D feature dimensions, K clusters.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from reid import dist


class HybridMemory(nn.Module):
    """A row for each source class and each target image, contrasted with by class.

    Rows of one label are one class, wherever they are: a source class and an image alone have one
    row, a cluster one for each member. A class's prototype is the mean of its rows, not normalised.
    `bank` (M,D) unit rows; `labels` (M,) the classes numbered from 0 in the order of the labels
    given.
    Source: SpCL (arXiv 2006.02713); spcl_inclr spec 1.1 to 1.3.
    """

    bank: Tensor
    labels: Tensor
    _order: Tensor
    _counts: Tensor

    def __init__(
        self,
        bank: Float[Tensor, "M D"],
        labels: Int64[Tensor, "M"],
        *,
        temperature: float = 0.05,
        momentum: float = 0.2,
    ) -> None:
        super().__init__()
        _check_settings(temperature, momentum)
        self.temperature, self.momentum = temperature, momentum
        self.register_buffer("bank", _unit_rows(bank))
        self.relabel(labels)
        nn.Module.register_load_state_dict_pre_hook(self, _make_room)

    def reset(self, bank: Float[Tensor, "M D"], labels: Int64[Tensor, "M"]) -> None:
        """Start again from new rows, such as the features of the first weights."""
        self.register_buffer("bank", _unit_rows(bank).to(self.bank.device))
        self.relabel(labels)

    def relabel(self, labels: Int64[Tensor, "M"]) -> None:
        """Give the rows new classes, such as a round's clusters.

        Raises:
            ValueError: not one label a row, or a negative one.
        """
        if len(labels) != len(self.bank):
            raise ValueError(f"{len(labels)} labels for {len(self.bank)} rows; give one a row")
        if len(labels) and int(labels.min()) < 0:
            raise ValueError(
                f"label {int(labels.min())} is negative; give each image outside all clusters a "
                "label of its own, as self_paced_labels does"
            )
        _, classes, counts = torch.unique(
            labels.to(self.bank.device), return_inverse=True, return_counts=True
        )
        self.register_buffer("labels", classes)
        self.register_buffer("_order", classes.argsort(stable=True))
        self.register_buffer("_counts", counts)

    def loss(self, features: Float[Tensor, "B D"], index: Int64[Tensor, "B"]) -> Float[Tensor, ""]:
        """Return the mean of -log softmax over classes of <feature, prototype> / temperature.

        A feature's class is that of its row `index`; features are of unit length already.
        NOTE: the released code adds 1e-6 to the softmax's denominator and to its probability, which
        caps the loss of a feature at 13.8; this is the exact value, within 1e-4 of it where the
        probability is above 0.01.
        """
        with torch.autocast(features.device.type, enabled=False):
            # Dot products first, means after: the means of rows would cost M x D every step. This
            # side of the product is twice as fast on a CPU, and lets classes be summed by rows.
            similarity = self.bank @ features.to(self.bank.dtype).T
            # Rows of one class side by side are summed in one order; index_add's is any on a GPU.
            prototypes = torch.segment_reduce(
                similarity.index_select(0, self._order), "mean", lengths=self._counts, unsafe=True
            )
            targets = self.labels.index_select(0, index)
            return F.cross_entropy(prototypes.T / self.temperature, targets)

    @torch.no_grad()
    def update(self, features: Float[Tensor, "B D"], index: Int64[Tensor, "B"]) -> None:
        """Set row <- unit(momentum row + (1 - momentum) feature) for each feature in turn."""
        features, index = _of_all_ranks(features.to(self.bank.dtype), index)
        _follow_(self.bank, features, index, momentum=self.momentum)

    @torch.no_grad()
    def update_once(self, features: Float[Tensor, "B D"], index: Int64[Tensor, "B"]) -> None:
        """Update each of these rows once, with the mean of its features."""
        features, index = _of_all_ranks(features.to(self.bank.dtype), index)
        rows, place, count = index.unique(return_inverse=True, return_counts=True)
        means = sums_by_class(features, place, len(rows)) / count[:, None]
        _follow_(self.bank, means, rows, momentum=self.momentum)


def sums_by_class(
    rows: Float[Tensor, "B D"], classes: Int64[Tensor, "B"], num_classes: int
) -> Float[Tensor, "M D"]:
    """Return the sum of each class's rows, added in their order; index_add's is any on a GPU."""
    counts = torch.bincount(classes, minlength=num_classes)
    together = rows.index_select(0, classes.argsort(stable=True))
    return torch.segment_reduce(together, "sum", lengths=counts, unsafe=True)


class ClusterMemory(nn.Module):
    """A row for each cluster, contrasted with as classifier weights.

    `centers` (K,D) unit rows. With `hard`, a cluster follows only the feature of the batch that is
    least similar to its row (of equal ones, the first).
    Source: Cluster-Contrast (arXiv 2103.11568); spcl_inclr spec 4.1.
    """

    centers: Tensor

    def __init__(
        self,
        centers: Float[Tensor, "K D"],
        *,
        temperature: float = 0.05,
        momentum: float = 0.1,
        hard: bool = False,
    ) -> None:
        super().__init__()
        _check_settings(temperature, momentum)
        self.temperature, self.momentum, self.hard = temperature, momentum, hard
        self.register_buffer("centers", _unit_rows(centers))
        nn.Module.register_load_state_dict_pre_hook(self, _make_room)

    def reset(self, centers: Float[Tensor, "K D"]) -> None:
        """Start again from new centres, any number of them, such as a round's cluster means."""
        self.register_buffer("centers", _unit_rows(centers).to(self.centers.device))

    def loss(self, features: Float[Tensor, "B D"], labels: Int64[Tensor, "B"]) -> Float[Tensor, ""]:
        """Return the mean cross entropy of cosine / temperature with the clusters 0..K-1."""
        with torch.autocast(features.device.type, enabled=False):
            cosines = F.normalize(features.to(self.centers.dtype)) @ self.centers.T
            return F.cross_entropy(cosines / self.temperature, labels)

    @torch.no_grad()
    def update(self, features: Float[Tensor, "B D"], labels: Int64[Tensor, "B"]) -> None:
        """Set row <- unit(momentum row + (1 - momentum) unit(feature)) for each in turn."""
        features, labels = _of_all_ranks(F.normalize(features.to(self.centers.dtype)), labels)
        if self.hard:
            hardest = _least_similar(features, labels, self.centers)
            features, labels = features[hardest], labels[hardest]
        _follow_(self.centers, features, labels, momentum=self.momentum)


class RoundMemory(nn.Module):
    """Arrays that a round's labelling brings, kept with the networks: a run resumes at any step.

    Each is a buffer under its name, and has another shape when `keep` gives it one.
    """

    def __init__(self, arrays: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, array in arrays.items():
            self.register_buffer(name, array)
        nn.Module.register_load_state_dict_pre_hook(self, _make_room)

    def keep(self, arrays: Mapping[str, Tensor]) -> None:
        """Replace arrays by new ones."""
        for name, array in arrays.items():
            self.register_buffer(name, array.to(self[name].device))

    def __getitem__(self, name: str) -> Tensor:
        """Return an array."""
        return self.get_buffer(name)


def _check_settings(temperature: float, momentum: float) -> None:
    if temperature <= 0:
        raise ValueError(f"the memory's temperature must be above 0, got {temperature}")
    if not 0.0 <= momentum <= 1.0:
        raise ValueError(f"the memory's momentum must be between 0 and 1, got {momentum}")


def _unit_rows(rows: Tensor) -> Tensor:
    """Return a copy of the rows at unit length, in float32 at least; a zero row stays zero."""
    if not bool(rows.isfinite().all()):
        raise ValueError("the memory's rows hold NaN or infinity; look at the features they are of")
    return F.normalize(rows.detach().to(torch.promote_types(rows.dtype, torch.float32)))


def _make_room(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Give buffers the shapes of a state that is being loaded: numbers of classes differ."""
    for name, buffer in module.named_buffers(recurse=False):
        saved = state_dict.get(prefix + name)
        if saved is not None and saved.shape != buffer.shape:
            module.register_buffer(name, buffer.new_empty(saved.shape))


def _of_all_ranks(features: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    return dist.all_gather_rows(features), dist.all_gather_rows(index)


def _follow_(
    rows: Float[Tensor, "M D"],
    features: Float[Tensor, "B D"],
    index: Int64[Tensor, "B"],
    *,
    momentum: float,
) -> None:
    """Move row index[b] towards feature b for b = 0, 1, ..., in place.

    A row that appears several times moves as often, each time from where it was left. Pass p moves
    every row's p-th appearance, so there are as many passes as the most frequent row has features.
    """
    order = index.argsort(stable=True)
    ordered = index[order]
    places = torch.arange(len(index), device=index.device)
    appearance = places - torch.searchsorted(ordered, ordered)
    by_appearance = order[appearance.argsort(stable=True)]
    for taken in by_appearance.split(torch.bincount(appearance).tolist()):
        at = index[taken]
        moved = momentum * rows.index_select(0, at) + (1 - momentum) * features[taken]
        rows.index_copy_(0, at, F.normalize(moved))


def _least_similar(
    features: Float[Tensor, "B D"], labels: Int64[Tensor, "B"], centers: Float[Tensor, "K D"]
) -> Int64[Tensor, "k"]:
    """Return, for each cluster of the batch, the place of the feature least similar to its row."""
    similarity = (features * centers.index_select(0, labels)).sum(1)
    order = similarity.argsort(stable=True)
    order = order[labels[order].argsort(stable=True)]
    ordered = labels[order]
    is_first = torch.ones_like(ordered, dtype=torch.bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return order[is_first]

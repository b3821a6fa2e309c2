"""Frozen values that travel between the parts of the library.

Legend: N rows of a table, B rows of a batch, D feature dimensions, K clusters, Q queries,
G gallery.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from numpy.typing import NDArray

OUTLIER = -1
"""The label of an image that belongs to no cluster."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """One table of images: row i is image i everywhere; sorted by path.

    `path` (N,) str, `pid` (N,) int64 identity (-1 junk, 0 distractor in galleries that have them),
    `camid` (N,) int64 camera from 0 (all 0 where the data set has no cameras), `modality` (N,)
    int64, 0 visible, 1 infrared (None where the data set has one modality).
    """

    path: Shaped[np.ndarray, "N"]
    pid: Int64[np.ndarray, "N"]
    camid: Int64[np.ndarray, "N"]
    modality: Int64[np.ndarray, "N"] | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.path)

    def take(self, rows: Bool[np.ndarray, "N"] | Int64[np.ndarray, "n"]) -> "Split":
        """Return the table of some rows, marked or numbered, in the order given."""
        return Split(
            path=self.path[rows],
            pid=self.pid[rows],
            camid=self.camid[rows],
            modality=None if self.modality is None else self.modality[rows],
        )


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set as its authors split it: `train` for learning, `query` searched in `gallery`."""

    name: str
    root: str
    train: Split
    query: Split
    gallery: Split


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images ready for the network, with the rows they come from.

    `images` (B,3,H,W) float32 normalised, `index` (B,) int64 rows of the training table,
    `labels` {view: (B,) int64}, `camid` (B,) int64; `second` (B,3,H,W) the same rows' images
    augmented anew, where the draw asks for two views of each.
    """

    images: Float[torch.Tensor, "B 3 H W"]
    index: Int64[torch.Tensor, "B"]
    labels: Mapping[str, Int64[torch.Tensor, "B"]]
    camid: Int64[torch.Tensor, "B"]
    second: Float[torch.Tensor, "B 3 H W"] | None = None


@dataclass(frozen=True, kw_only=True)
class PseudoLabels:
    """One clustering of the training table.

    `labels` (N,) int64 in 0..K-1, `OUTLIER` for none; `centers` (K,D) float32 cluster means.
    `extras` {name: array} is what else a method found for its round: values of each image, and
    numbers; those of shape (N,) int64 are labels too, drawn as "VIEW/NAME".
    """

    labels: Int64[np.ndarray, "N"]
    centers: Float[np.ndarray, "K D"]
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def num_clusters(self) -> int:
        """Return K."""
        return len(self.centers)

    def named(self, view: str) -> dict[str, np.ndarray]:
        """Return all that can be drawn by, (N,) int64 each: the labels, and extras like them."""
        kind = (self.labels.shape, self.labels.dtype)
        alike = {n: x for n, x in self.extras.items() if (x.shape, x.dtype) == kind}
        return {view: self.labels, **{f"{view}/{name}": x for name, x in alike.items()}}


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Scores of one ranking: fractions in 0..1.

    `mAP` mean average precision, `cmc` (max_rank,) chance of a match in the first k results,
    `mINP` mean inverse negative penalty, `ap` (Q,) per query (NaN where a query has no match).
    """

    mAP: float  # noqa: N815 (the field's name)
    cmc: NDArray[np.float64]
    mINP: float  # noqa: N815
    num_valid_queries: int
    ap: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a stretch of a round did: the whole round, or up to a save inside it.

    `series` {name: one value a step} from global step `first_step`; `health` only with the round's
    first stretch, `metrics` only with its last and where the round was evaluated.
    """

    round: int
    first_step: int
    series: Mapping[str, Sequence[float]]
    health: Mapping[str, Mapping[str, float]]
    metrics: Mapping[str, float] | None
    seconds: Mapping[str, float]
    images_per_s: float
    data_wait_s: float = 0.0
    """seconds of training in which this process had no batch to work on"""

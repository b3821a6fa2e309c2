"""What a step reads: rows and random parameters of its batches, whichever loader makes them.

Legend: N images of a table, B rows of a batch on one rank, H height, W width.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from reid.data.augment import AugmentConfig, AugmentParams, draw
from reid.data.samplers import PKIndex, list_rows, pk_index, pk_rows, random_rows
from reid.types import Batch


@runtime_checkable
class ImageStore(Protocol):
    """Images of a whole table at one size."""

    height: int
    width: int

    def __len__(self) -> int:
        """Return N."""
        ...

    def read(self, rows: Int64[np.ndarray, "B"]) -> UInt8[np.ndarray, "B H W 3"]:
        """Return these rows' pixels, uint8 RGB, in the order asked."""
        ...


@dataclass(frozen=True, kw_only=True)
class Table:
    """Images to draw from: pixels, cameras (N,) int64, labels (N,) int64 of each view, if any."""

    store: ImageStore
    camid: Int64[np.ndarray, "N"]
    labels: Mapping[str, Int64[np.ndarray, "N"]]


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One batch of every step: `num_identities` x `num_instances` images of one table.

    `name` is its key in the step and its stream of randomness; `labels` the view whose identities
    are sampled, `None` for as many images drawn uniformly, without labels. With `views=2` each row
    is shown twice, augmented independently.
    """

    name: str
    table: str
    labels: str | None
    num_identities: int
    num_instances: int
    views: int = 1


@dataclass(frozen=True, kw_only=True)
class ListDraw(Draw):
    """A draw where an identity of one image gives one row, and others fill the batch.

    See `samplers.list_rows`.
    """


@dataclass(frozen=True, kw_only=True)
class AugmentedDraw(Draw):
    """A draw that is augmented in its own way: one setting for each of its views."""

    augment: tuple[AugmentConfig, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One rank's part of one batch before its images are read.

    `rows` (B,) of the table; `augment` and `params` of each view of them.
    """

    spec: Draw
    rows: Int64[np.ndarray, "B"]
    augment: tuple[AugmentConfig, ...]
    params: tuple[AugmentParams, ...]


class _At(TypedDict):
    """Where in the run, and who asks."""

    seed: int
    round: int
    step: int
    rank: int
    world: int


def planner(
    tables: Mapping[str, Table],
    draws: Sequence[Draw],
    *,
    augment: AugmentConfig,
    seed: int,
    round: int,
    rank: int = 0,
    world: int = 1,
) -> Callable[[int], list[Plan]]:
    """Return a function from a step to the plans of its batches.

    A plan is a function of (tables, draw, augment, seed, round, step): any step is planned at once.
    Over `world` ranks each gets its consecutive part of the images one rank would get. Raises
    `ValueError` for a draw that names no table or view, a name used twice, views that are not one
    or two or lack their augmentation, or lengths that differ from the store's; the function does
    for sizes that do not divide among the ranks.
    """
    _check(tables, draws)
    indexes = {
        spec.name: pk_index(tables[spec.table].labels[spec.labels], tables[spec.table].camid)
        for spec in draws
        if spec.labels is not None
    }

    def plan(step: int) -> list[Plan]:
        at: _At = {"seed": seed, "round": round, "step": step, "rank": rank, "world": world}
        return [
            _plan(spec, tables[spec.table].store, indexes.get(spec.name), augment, at=at)
            for spec in draws
        ]

    return plan


def batch_of(
    plan: Plan,
    table: Table,
    images: Sequence[Float32[Tensor, "B 3 H W"]],
    *,
    device: torch.device,
) -> Batch:
    """Return a plan's batch: its images with the labels of every view, none if drawn without."""
    rows = plan.rows
    views = {} if plan.spec.labels is None else table.labels
    return Batch(
        images=images[0],
        second=images[1] if len(images) > 1 else None,
        index=torch.from_numpy(rows).to(device),
        labels={view: torch.from_numpy(of[rows]).to(device) for view, of in views.items()},
        camid=torch.from_numpy(table.camid[rows]).to(device),
    )


def _plan(
    spec: Draw,
    store: ImageStore,
    index: PKIndex | None,
    augment: AugmentConfig,
    *,
    at: _At,
) -> Plan:
    size = spec.num_identities * spec.num_instances
    stream = zlib.crc32(spec.name.encode())  # random numbers of its own, whatever the draws' order
    if index is None:
        rows = random_rows(len(store), batch_size=size, stream=stream, **at)
    else:
        drawn = list_rows if isinstance(spec, ListDraw) else pk_rows
        rows = drawn(
            index,
            num_identities=spec.num_identities,
            num_instances=spec.num_instances,
            stream=stream,
            **at,
        )
    configs = spec.augment if isinstance(spec, AugmentedDraw) else (augment,) * spec.views
    params = tuple(
        draw(config, size, store.height, store.width, stream=stream + (view << 32), **at)
        for view, config in enumerate(configs)
    )
    return Plan(spec=spec, rows=rows, augment=configs, params=params)


def _check(tables: Mapping[str, Table], draws: Sequence[Draw]) -> None:
    names = [spec.name for spec in draws]
    if len(set(names)) < len(names):
        raise ValueError(f"Draws are named {names}: give each its own name.")
    for spec in draws:
        if spec.table not in tables:
            raise ValueError(f"Draw {spec.name!r}: no table {spec.table!r} in {list(tables)}.")
        if spec.views not in (1, 2):
            raise ValueError(f"Draw {spec.name!r}: views={spec.views}, give 1 or 2.")
        if isinstance(spec, AugmentedDraw) and len(spec.augment) != spec.views:
            raise ValueError(
                f"Draw {spec.name!r}: {len(spec.augment)} augmentations for views={spec.views}, "
                "give one for each view."
            )
        table = tables[spec.table]
        if spec.labels is not None and spec.labels not in table.labels:
            raise ValueError(
                f"Draw {spec.name!r}: table {spec.table!r} has labels {list(table.labels)}, "
                f"not {spec.labels!r}."
            )
        lengths = {"camid": len(table.camid)}
        lengths |= {view: len(labels) for view, labels in table.labels.items()}
        if any(length != len(table.store) for length in lengths.values()):
            raise ValueError(
                f"Table {spec.table!r} has {len(table.store)} images but {lengths} values: "
                "give one value per image, in the store's order."
            )

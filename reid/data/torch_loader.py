"""The reference loader: rows, pixels and augmentation of every step on one prefetch thread.

Legend: N images of a table, B rows of a batch on one rank, H height, W width.
"""

import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypedDict, TypeVar

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from reid.data.augment import AugmentConfig, apply, draw, normalise
from reid.data.pixel_store import PixelStore
from reid.data.samplers import PKIndex, pk_index, pk_rows, random_rows
from reid.types import Batch

_DEPTH = 2  # batches made ahead of the one in use
_Made = TypeVar("_Made")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Images to draw from: pixels, cameras (N,) int64, labels (N,) int64 of each view, if any."""

    store: PixelStore
    camid: Int64[np.ndarray, "N"]
    labels: Mapping[str, Int64[np.ndarray, "N"]]


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One batch of every step: `num_identities` x `num_instances` images of one table.

    `name` is its key in the step and its stream of randomness; `labels` the view whose identities
    are sampled, `None` for as many images drawn uniformly, without labels.
    """

    name: str
    table: str
    labels: str | None
    num_identities: int
    num_instances: int


def torch_loader(
    tables: Mapping[str, Table],
    draws: Sequence[Draw],
    *,
    augment: AugmentConfig,
    seed: int,
    round: int,
    steps: range,
    rank: int = 0,
    world: int = 1,
    device: torch.device | str,
) -> Generator[dict[str, Batch], None, None]:
    """Yield {draw name: augmented batch} for each step, made ahead on a thread.

    A batch is a function of (tables, draw, augment, seed, round, step): any range of steps starts
    at once and repeats what a longer one gave. Over `world` ranks each gets its consecutive part of
    the images one rank would get. A batch carries the labels of every view of its table, or none
    when drawn without labels. Errors of the thread are raised here; closing the iterator ends it.
    Raises `ValueError` for a draw that names no table or view, a name used twice, lengths that
    differ from the store's, or sizes that do not divide among the ranks.
    """
    _check(tables, draws)
    device = torch.device(device)
    indexes = {
        spec.name: pk_index(tables[spec.table].labels[spec.labels], tables[spec.table].camid)
        for spec in draws
        if spec.labels is not None
    }

    def make(step: int) -> dict[str, Batch]:
        at: _At = {"seed": seed, "round": round, "step": step, "rank": rank, "world": world}
        return {
            spec.name: _batch(
                spec, tables[spec.table], indexes.get(spec.name), augment, at=at, device=device
            )
            for spec in draws
        }

    return _prefetch(make, steps, device=device)


def read_batches(
    store: PixelStore,
    *,
    rows: range | Int64[np.ndarray, "n"],
    batch_size: int,
    device: torch.device | str,
) -> Generator[Float32[Tensor, "B 3 H W"], None, None]:
    """Yield these rows in order, normalised and not augmented, exactly `batch_size` at a time.

    The last batch repeats its last row, for the caller to trim: a network then sees one shape, and
    its results do not depend on how blocks of rows are spread over ranks.
    """
    device = torch.device(device)

    def make(start: int) -> Float32[Tensor, "B 3 H W"]:
        block = np.asarray(rows[start : start + batch_size], dtype=np.int64)
        padding = np.repeat(block[-1:], batch_size - len(block))
        return normalise(_pixels(store, np.append(block, padding), device=device))

    return _prefetch(make, range(0, len(rows), batch_size), device=device)


class _At(TypedDict):
    """Where in the run, and who asks."""

    seed: int
    round: int
    step: int
    rank: int
    world: int


def _check(tables: Mapping[str, Table], draws: Sequence[Draw]) -> None:
    names = [spec.name for spec in draws]
    if len(set(names)) < len(names):
        raise ValueError(f"Draws are named {names}: give each its own name.")
    for spec in draws:
        if spec.table not in tables:
            raise ValueError(f"Draw {spec.name!r}: no table {spec.table!r} in {list(tables)}.")
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


def _batch(
    spec: Draw,
    table: Table,
    index: PKIndex | None,
    augment: AugmentConfig,
    *,
    at: _At,
    device: torch.device,
) -> Batch:
    """Make one rank's part of one draw at one step."""
    store, size = table.store, spec.num_identities * spec.num_instances
    stream = zlib.crc32(spec.name.encode())  # random numbers of its own, whatever the draws' order
    if index is None:
        rows = random_rows(len(store), batch_size=size, stream=stream, **at)
    else:
        rows = pk_rows(
            index,
            num_identities=spec.num_identities,
            num_instances=spec.num_instances,
            stream=stream,
            **at,
        )
    params = draw(augment, size, store.height, store.width, stream=stream, **at)
    views = {} if index is None else table.labels
    return Batch(
        images=apply(_pixels(store, rows, device=device), params, augment),
        index=torch.from_numpy(rows).to(device),
        labels={view: torch.from_numpy(of[rows]).to(device) for view, of in views.items()},
        camid=torch.from_numpy(table.camid[rows]).to(device),
    )


def _pixels(
    store: PixelStore, rows: Int64[np.ndarray, "n"], *, device: torch.device
) -> UInt8[Tensor, "n H W 3"]:
    images = torch.from_numpy(store.read(rows))
    if device.type == "cuda":  # uint8 over the bus, without waiting for it
        return images.pin_memory().to(device, non_blocking=True)
    return images.to(device)


def _prefetch(
    make: Callable[[int], _Made], items: Iterable[int], *, device: torch.device
) -> Generator[_Made, None, None]:
    """Yield make(item) in order from a thread, `_DEPTH` ahead, that ends with the iterator."""
    enter = None
    if device.type == "cuda":  # a new thread starts on the first GPU, whichever is this rank's
        index = torch.cuda.current_device() if device.index is None else device.index
        enter = partial(torch.cuda.set_device, index)
    thread = ThreadPoolExecutor(1, thread_name_prefix="reid-prefetch", initializer=enter)
    pending: deque[Future[_Made]] = deque()
    try:
        for item in items:
            pending.append(thread.submit(make, item))
            if len(pending) > _DEPTH:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        thread.shutdown(wait=True, cancel_futures=True)

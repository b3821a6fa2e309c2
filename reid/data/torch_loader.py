"""The reference loader: rows, pixels and augmentation of every step on one prefetch thread.

Legend: N images of a table, n rows read, B rows of a batch on one rank, H height, W width.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from reid.data.augment import AugmentConfig, apply, normalise
from reid.data.steps import Draw, ImageStore, Table, batch_of, planner
from reid.types import Batch

_DEPTH = 2  # batches made ahead of the one in use
_Made = TypeVar("_Made")


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

    Any range of steps starts at once and repeats what a longer one gave (`steps.planner`, which
    also says what is refused). Errors of the thread are raised here; closing the iterator ends it.
    """
    device = torch.device(device)
    plans = planner(tables, draws, augment=augment, seed=seed, round=round, rank=rank, world=world)

    def make(step: int) -> dict[str, Batch]:
        batches = {}
        for plan in plans(step):
            table = tables[plan.spec.table]
            pixels = _pixels(table.store, plan.rows, device=device)
            views = zip(plan.params, plan.augment, strict=True)
            images = [apply(pixels, params, config) for params, config in views]
            batches[plan.spec.name] = batch_of(plan, table, images, device=device)
        return batches

    return prefetch(make, steps, device=device)


def read_batches(
    store: ImageStore,
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

    return prefetch(make, range(0, len(rows), batch_size), device=device)


def _pixels(
    store: ImageStore, rows: Int64[np.ndarray, "n"], *, device: torch.device
) -> UInt8[Tensor, "n H W 3"]:
    images = torch.from_numpy(store.read(rows))
    if device.type == "cuda":  # uint8 over the bus, without waiting for it
        return images.pin_memory().to(device, non_blocking=True)
    return images.to(device)


def prefetch(
    make: Callable[[int], _Made], items: Iterable[int], *, device: torch.device
) -> Generator[_Made, None, None]:
    """Yield make(item) in order from a thread, two items ahead, that ends with the iterator."""
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

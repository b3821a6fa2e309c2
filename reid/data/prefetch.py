"""Steps made ahead of their use, on a thread.

Legend: B images of a batch on one rank, H height, W width.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from jaxtyping import Float32
from torch import Tensor

from reid.data.augment import AugmentConfig
from reid.data.steps import Draw, ImageStore, Plan, Table, batch_of, planner
from reid.types import Batch

_DEPTH = 2  # batches made ahead of the one in use
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Loader:
    """Yields the batches of steps; loaders differ in who makes the images.

    `images(plan, store, number, device)` returns the augmented images of a plan, each view's, read
    from a table's store; `number` is the place of the plan's draw among a step's.
    """

    images: Callable[[Plan, ImageStore, int, torch.device], Sequence[Float32[Tensor, "B 3 H W"]]]

    def __call__(
        self,
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
        also says what is refused). Errors of the thread are raised here; closing the iterator ends
        it.
        """
        device = torch.device(device)
        plans = planner(
            tables, draws, augment=augment, seed=seed, round=round, rank=rank, world=world
        )

        def make(step: int) -> dict[str, Batch]:
            batches = {}
            for number, plan in enumerate(plans(step)):
                table = tables[plan.spec.table]
                images = self.images(plan, table.store, number, device)
                batches[plan.spec.name] = batch_of(plan, table, images, device=device)
            return batches

        return prefetch(make, steps, device=device)


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

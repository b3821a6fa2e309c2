"""The loaders by name, and which of them is quicker here.

Both show the network the same images: equal rows, boxes and mirrors, values equal to rounding, and
where JPEG files are decoded at each reading to a few grey levels. A run keeps the one it began
with.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Literal, TypeVar

import numpy as np
import torch

from reid.data.augment import AugmentConfig
from reid.data.encoded_store import EncodedStore
from reid.data.prefetch import Loader
from reid.data.steps import Draw, ImageStore, Table
from reid.data.torch_loader import torch_loader

LoaderName = Literal["torch", "dali"]
T = TypeVar("T")

_STEPS = 4  # steps of a trial
_TRIALS = 3  # of each loader, in turn, after one that builds pipelines and reads files


class Waiting:
    """How long a loop had nothing to work on."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def over(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches, counting the seconds each is waited for."""
        started = time.perf_counter()
        for batch in batches:
            self.seconds += time.perf_counter() - started
            yield batch
            started = time.perf_counter()


def by_name(name: LoaderName) -> Loader:
    """Return a loader by its name; the import of DALI waits until it is asked for."""
    if name == "torch":
        return torch_loader
    from reid.data.dali_loader import dali_loader

    return dali_loader


def quickest(
    tables: Mapping[str, Table],
    draws: Sequence[Draw],
    *,
    augment: AugmentConfig,
    device: torch.device,
) -> tuple[LoaderName, str]:
    """Return the loader that makes these batches at least cost, and a line that says why.

    On the CPU, where training wants the processors too, cost is processor time; beside a GPU it is
    the time until the batch is there. Labels need not exist yet: rows are drawn without them.
    """
    sizes = {f"{tables[d.table].store.height}x{tables[d.table].store.width}" for d in draws}
    stores = {type(tables[d.table].store).__name__ for d in draws}
    what = f"images of {', '.join(sorted(sizes))} from {', '.join(sorted(stores))}"
    if find_spec("nvidia") is None or find_spec("nvidia.dali") is None:
        return "torch", f"{what}: torch_loader, as DALI is not installed"
    if not all(_is_read_alike(tables[draw.table].store) for draw in draws):
        return "torch", f"{what}: torch_loader, as DALI reads files that are no JPEG otherwise"
    trial = [_without_labels(draw) for draw in draws]
    unit = "processor time" if device.type == "cpu" else "time"
    names: tuple[LoaderName, ...] = ("torch", "dali")
    costs: dict[LoaderName, list[float]] = {name: [] for name in names}
    for turn in range(_TRIALS + 1):
        for name in names:
            cost = _cost(by_name(name), tables, trial, augment=augment, device=device)
            if turn:
                costs[name].append(cost)
    best = {name: min(cost) for name, cost in costs.items()}
    chosen = min(names, key=best.__getitem__)
    listed = ", ".join(f"{name}_loader {1e3 * best[name]:.2f} ms" for name in names)
    return chosen, f"{what}: {listed} of {unit} a step, so {chosen}_loader"


def _is_read_alike(store: ImageStore) -> bool:
    """Whether DALI gets pixels, or files that it decodes as we do: of others it drops alpha."""
    if not isinstance(store, EncodedStore):
        return True
    names = np.char.lower(store.paths)
    return bool(np.all(np.char.endswith(names, ".jpg") | np.char.endswith(names, ".jpeg")))


def _without_labels(draw: Draw) -> Draw:
    return replace(draw, labels=None)


def _cost(
    load: Loader,
    tables: Mapping[str, Table],
    draws: Sequence[Draw],
    *,
    augment: AugmentConfig,
    device: torch.device,
) -> float:
    """Return the seconds of a step."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    started = clock()
    for _ in load(
        tables, draws, augment=augment, seed=0, round=0, steps=range(_STEPS), device=device
    ):
        pass
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (clock() - started) / _STEPS

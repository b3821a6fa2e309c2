"""Features of a whole table, spread over ranks, in row order.

Images pass through the network in fixed batches of the table's rows, so that a row's features have
the same bits however many ranks share the work.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float32
from torch import Tensor

from reid import dist
from reid.data.steps import ImageStore
from reid.data.torch_loader import read_batches
from reid.recipes.contract import Recipe, Remembering

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


def rank_rows(num_rows: int, *, batch_size: int, rank: int, world: int) -> range:
    """Return the contiguous rows one rank extracts; edges lie on batch edges."""
    num_batches = -(-num_rows // batch_size)
    edges = [num_batches * r // world * batch_size for r in (rank, rank + 1)]
    return range(min(edges[0], num_rows), min(edges[1], num_rows))


@torch.no_grad()
def extract(
    function: Callable[[Tensor], dict[str, Tensor]],
    store: ImageStore,
    *,
    rows: range,
    batch_size: int,
    device: torch.device,
    precision: str,
    progress: Progress | None = None,
) -> dict[str, Float32[Tensor, "n D"]]:
    """Return {view: (len(rows), D) float32 on the CPU} of `function` over un-augmented images."""
    parts: dict[str, list[Tensor]] = {}
    done = 0
    # Only the network knows the views and their widths: without rows it is shown one all the same.
    shown = rows or range(1)
    for images in read_batches(store, rows=shown, batch_size=batch_size, device=device):
        with autocast(device, precision):
            out = function(images)
        for view, values in out.items():
            parts.setdefault(view, []).append(values.float().cpu())
        done = min(done + batch_size, len(rows))
        if progress is not None and rows:
            progress(done, len(rows))
    return {view: torch.cat(values)[: len(rows)] for view, values in parts.items()}


def features(
    recipe: Recipe,
    store: ImageStore,
    *,
    rows: range,
    device: torch.device,
    progress: Progress | None = None,
) -> dict[str, Float32[Tensor, "n D"]]:
    """Return what a round clusters, one rank's rows of it: remembered or extracted, on the CPU."""
    if isinstance(recipe, Remembering):
        mine = slice(rows.start, rows.stop)
        return {view: value[mine].float().cpu() for view, value in recipe.remembered().items()}
    return extract(
        recipe.features,
        store,
        rows=rows,
        batch_size=recipe.config.extract_batch,
        device=device,
        precision=recipe.config.precision,
        progress=progress,
    )


def extract_all(
    function: Callable[[Tensor], Tensor],
    store: ImageStore,
    *,
    batch_size: int,
    device: torch.device,
    precision: str,
    progress: Progress | None = None,
) -> Float32[Tensor, "N D"]:
    """Return `function` over every image of a store, in row order, on the device of every rank."""
    mine = extract(
        lambda images: {"all": function(images)},
        store,
        rows=rank_rows(
            len(store), batch_size=batch_size, rank=dist.rank(), world=dist.world_size()
        ),
        batch_size=batch_size,
        device=device,
        precision=precision,
        progress=progress,
    )
    return dist.all_gather_rows(mine["all"].to(device))


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which networks run: bfloat16 arithmetic or none."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")

"""Collectives that do nothing in a single process: the only file that knows torch.distributed."""

import datetime
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import nn
from torch.nn.parallel import DistributedDataParallel

ModuleT = TypeVar("ModuleT", bound=nn.Module)
T = TypeVar("T")


def rank() -> int:
    """Return this process's rank, 0 alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of training processes, 1 alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wrap(module: ModuleT) -> ModuleT:
    """Return the module with gradients averaged over ranks (DDP); itself when alone.

    Typed as the module it wraps, whose forward it keeps; reach attributes through `unwrap`. Buffers
    stay local: `average_buffers` says when they meet.
    """
    if world_size() == 1:
        return module
    # Keyword differs between torch versions: `broadcast_buffers` became `forward_sync_buffers`.
    return cast(ModuleT, DistributedDataParallel(module, broadcast_buffers=False))


def unwrap(module: ModuleT) -> ModuleT:
    """Return the module inside `wrap`."""
    return cast(ModuleT, module.module) if isinstance(module, DistributedDataParallel) else module


_STATISTICS = ("running_mean", "running_var")
"""Names of BatchNorm's buffers that each rank estimates from its own images."""


@torch.no_grad()
def average_buffers(module: nn.Module) -> None:
    """Replace BatchNorm's running statistics by their mean over ranks.

    Other buffers, such as memories, are equal on all ranks and stay as they are: in floating point
    the mean of three equal values need not be that value.
    """
    if world_size() == 1:
        return
    buffers = [b for name, b in module.named_buffers() if name.split(".")[-1] in _STATISTICS]
    if not buffers:
        return
    flat = torch.cat([b.flatten().float() for b in buffers])
    dist.all_reduce(flat)
    flat /= world_size()
    for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(mean.view_as(buffer))


def all_gather_rows(rows: Shaped[torch.Tensor, "n ..."]) -> Shaped[torch.Tensor, "m ..."]:
    """Return every rank's rows in rank order (no gradient); ranks may hold different numbers."""
    return torch.cat(_parts(rows)) if world_size() > 1 else rows


def gather_batch(rows: Shaped[torch.Tensor, "n ..."]) -> Shaped[torch.Tensor, "m ..."]:
    """Return every rank's rows in rank order, for a loss of the whole batch on every rank.

    The gradient reaches this rank's rows, times the number of ranks: after `wrap` has averaged the
    gradients of weights, they are those of one process that had the whole batch.
    """
    if world_size() == 1:
        return rows
    parts = _parts(rows)
    if rows.requires_grad:
        own = rows.view_as(rows)
        own.register_hook(lambda gradient: gradient * world_size())
        parts[rank()] = own
    return torch.cat(parts)


def _parts(rows: torch.Tensor) -> list[torch.Tensor]:
    """Return the rows of each rank, without gradient."""
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(world_size())]
    dist.all_gather(counts, torch.tensor([len(rows)], dtype=torch.int64, device=rows.device))
    sizes = [int(count) for count in counts]
    padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
    padded[: len(rows)] = rows.detach()
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return [part[:size] for part, size in zip(parts, sizes, strict=True)]


def from_first(value: T | None) -> T:
    """Return what rank 0 brings; what the others bring is not looked at."""
    box = [value]
    if world_size() > 1:
        dist.broadcast_object_list(box)
    return cast(T, box[0])


def average(value: Shaped[torch.Tensor, "*shape"]) -> Shaped[torch.Tensor, "*shape"]:
    """Return the mean of a tensor over ranks (no gradient)."""
    if world_size() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / world_size()


class PeerLost(RuntimeError):  # noqa: N818 (says what happened, not only that it is an error)
    """Another process of the group died or did not answer in time."""


_c10d: Any = dist  # names that torch does not export to type checkers


def open_meeting(host: str) -> Any:
    """Return a new meeting place at an address of this machine, with its `port`, for `join`.

    It lasts as long as the object.
    """
    return _c10d.TCPStore(host, 0, is_master=True, wait_for_workers=False)


def join(address: tuple[str, int], *, rank: int, size: int, timeout_s: float) -> Any:
    """Leave the group this process may be in and meet `size` processes on the CPU, as `rank`.

    Returns what they met at, where all can `get` what one `set`. `timeout_s` seconds are given to
    the meeting and to each later exchange. Raises PeerLost.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
    timeout = datetime.timedelta(seconds=timeout_s)
    try:
        store = _c10d.TCPStore(*address, is_master=False, timeout=timeout)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timeout)
    except RuntimeError as error:
        raise PeerLost(f"process {rank} of {size} met nobody at {address}: {error}") from error
    return store


def all_gather_padded(data: bytes, *, length: int) -> list[memoryview]:
    """Return every process's bytes in rank order, each with zeros up to `length`.

    Raises PeerLost.
    """
    mine = torch.zeros(length, dtype=torch.uint8)
    mine.numpy().data[: len(data)] = data
    parts = [torch.empty_like(mine) for _ in range(world_size())]
    try:
        dist.all_gather(parts, mine)
    except RuntimeError as error:
        raise PeerLost(str(error)) from error
    return [part.numpy().data for part in parts]

"""The mean teacher: a copy of the student whose weights follow it slowly."""

import copy
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def ema_copy(module: Module) -> Module:
    """Return a copy of a network that shares no tensor with it and takes no gradient."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def ema_update(
    teacher: nn.Module,
    student: nn.Module,
    momentum: float,
    *,
    buffers: Literal["skip", "average", "copy"],
) -> None:
    """Set teacher <- momentum * teacher + (1 - momentum) * student, in place.

    Momentum 0 copies the student exactly, 1 leaves the teacher as it is. `buffers` says what
    becomes of BatchNorm's running statistics: the teacher keeps its own (MMT, CORE-ReID), averages
    them like weights, or takes the student's. Integer buffers are copied unless skipped.
    Source: Tarvainen and Valpola, Mean Teacher (arXiv 1703.01780), section 2.

    Raises:
        ValueError: the momentum is outside 0..1, or the networks differ.
    """
    if not 0.0 <= momentum <= 1.0:
        raise ValueError(f"the EMA momentum must be between 0 and 1, got {momentum}")
    averaged = _pairs(dict(teacher.named_parameters()), dict(student.named_parameters()))
    copied: list[tuple[Tensor, Tensor]] = []
    if buffers != "skip":
        for pair in _pairs(dict(teacher.named_buffers()), dict(student.named_buffers())):
            to_average = buffers == "average" and pair[0].is_floating_point()
            (averaged if to_average else copied).append(pair)
    if averaged:
        slow, fast = map(list, zip(*averaged, strict=True))
        torch._foreach_lerp_(slow, fast, 1.0 - momentum)
    if copied:
        old, new = map(list, zip(*copied, strict=True))
        torch._foreach_copy_(old, new)


def ema_step_(teacher: nn.Module, student: nn.Module, *, step: int, ema_momentum: float) -> None:
    """Move the teacher by min(1 - 1/(step+1), momentum): parameters only, no BatchNorm buffers.

    At step 0 it becomes the student. MMT, LF2 and CORE-ReID do so; `step` counts over all rounds.
    """
    ema_update(teacher, student, min(1 - 1 / (step + 1), ema_momentum), buffers="skip")


def _pairs(teacher: dict[str, Tensor], student: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return the tensors of both networks side by side."""
    if teacher.keys() != student.keys():
        name = min(teacher.keys() ^ student.keys())
        raise ValueError(
            f"teacher and student differ, first in {name}: make the teacher by ema_copy of the "
            "student, and pass the student without its distributed wrapper"
        )
    return [(value, student[name]) for name, value in teacher.items()]

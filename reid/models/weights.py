"""Weights: deterministic initialisation and strict loading."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_SHOWN = 3
"""How many tensors of each kind an error names."""

_STEP_COUNTER = ".num_batches_tracked"
"""BatchNorm's counter: absent from old files, and read by no layer that has a fixed momentum."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw the initial weights of modules built on the CPU inside this block from `seed` alone.

    torch's initialisers read the CPU's global generator; it is set here and given back unchanged.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def load_weights(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    missing: Sequence[str] = (),
    unexpected: Sequence[str] = (),
    resized: Sequence[str] = (),
) -> None:
    """Copy the tensors of `state` into `module` by name, and refuse anything not announced.

    `missing` lists prefixes of the module's tensors that may keep their values because `state` has
    none; `unexpected` lists prefixes of tensors of `state` that are left out, also where the module
    has one of that name (a classifier over other identities); `resized` lists prefixes of tensors
    that take whatever shape they find (memories). On an error nothing is copied.

    Raises:
        ValueError: a tensor is absent, in excess or of another shape; the first few are named.
    """
    own = module.state_dict()
    given = {name: value for name, value in state.items() if not _starts_with(name, unexpected)}
    absent = [
        name
        for name in own
        if name not in given
        and not _starts_with(name, missing)
        and not name.endswith(_STEP_COUNTER)
    ]
    excess = [name for name in given if name not in own]
    reshaped = [
        name
        for name, value in given.items()
        if name in own and value.shape != own[name].shape and not _starts_with(name, resized)
    ]
    if absent or excess or reshaped:
        raise ValueError(
            f"weights do not fit {type(module).__name__}: "
            + "; ".join(
                [
                    *_describe("missing", {name: str(_shape(own[name])) for name in absent}),
                    *_describe("unexpected", {name: str(_shape(given[name])) for name in excess}),
                    *_describe(
                        "of another shape",
                        {n: f"{_shape(given[n])}, needs {_shape(own[n])}" for n in reshaped},
                    ),
                ]
            )
            + _hint([*absent, *excess, *reshaped])
        )
    module.load_state_dict(given, strict=False)


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _starts_with(name: str, prefixes: Sequence[str]) -> bool:
    return name.startswith(tuple(prefixes))


def _shape(value: Tensor) -> tuple[int, ...]:
    return tuple(value.shape)


def _describe(kind: str, tensors: Mapping[str, str]) -> list[str]:
    """Return one phrase about the first tensors of a kind, or nothing where there are none."""
    if not tensors:
        return []
    shown = ", ".join(f"{name} {shape}" for name, shape in list(tensors.items())[:_SHOWN])
    rest = f" and {len(tensors) - _SHOWN} more" if len(tensors) > _SHOWN else ""
    return [f"{kind}: {shown}{rest}"]


def _hint(wrong: Sequence[str]) -> str:
    """Return what to do: differences inside a residual stage mean another depth or width."""
    if any(re.search(r"(^|\.)layer[1-4]\.\d+\.", name) for name in wrong):
        return ". The weights look like another backbone's: build the one they were trained with"
    return ". List what may differ by prefix in `missing` and `unexpected`"

"""The one seam between a clustering algorithm and the machines it runs on.

An algorithm is a few module-level functions of one `Shard` and a driver that calls them through
`ShardPool.map`; it does not know whether the shards are list entries or Ray actors.

All arithmetic over rows is done in blocks of `BLOCK` rows counted from row 0 of the whole table,
and the edges of shards fall on edges of blocks. So a block holds the same rows, and its matrix
products have the same shape and the same bits, however many shards there are.

Legend: N rows of the whole table, n rows of one shard, D feature dimensions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

BLOCK = 1024
"""Rows in the fixed unit of arithmetic; only the last block of a table may have fewer."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Shard:
    """Consecutive rows of the table, from row `start` (a multiple of `BLOCK`) on.

    `features` (n,D) float32, C-contiguous, possibly read-only; `state` is what an algorithm keeps
    with the rows between two calls of `map`, `derived` what follows from the rows alone: it is made
    once and shared by all algorithms.
    """

    start: int
    features: Float32[np.ndarray, "n D"]
    state: dict[str, Any] = field(default_factory=dict)
    derived: dict[str, Any] = field(default_factory=dict)

    def for_algorithm(self) -> "Shard":
        """Return the same rows with an empty state, for one more algorithm to work on them."""
        return replace(self, state={})

    def blocks(self) -> list[slice]:
        """Return the rows of each block, counted from the shard's first row; [] without rows."""
        size = len(self.features)
        return [slice(low, min(low + BLOCK, size)) for low in range(0, size, BLOCK)]


@runtime_checkable
class ShardPool(Protocol):
    """Rows of a feature matrix split over shards, in row order."""

    num_rows: int
    num_features: int

    def map(
        self, fn: Callable[Concatenate[Shard, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> list[T]:
        """Return `fn(shard, *args, **kwargs)` of every shard, in shard order.

        `fn` is a module-level function, changes nothing but `shard.state` and does not mutate its
        arguments, which all shards may share. Outside `run` the state is one for all callers: an
        algorithm that keeps something there runs alone, or in `run`.
        """

    def run(
        self, fn: Callable[Concatenate["ShardPool", P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return `fn(pool, *args, **kwargs)` of a pool of the same rows, worked out beside them.

        For a whole algorithm, whose many calls of `map` need not come from here one by one. `fn` is
        a module-level function that may be worked out several times at once, to the same result.
        The state of its shards is its own, so several may be under way, called from threads.
        """


@dataclass
class LocalShardPool:
    """A `ShardPool` in this process; the shards work one after another."""

    shards: Sequence[Shard]
    num_rows: int
    num_features: int

    def map(
        self, fn: Callable[Concatenate[Shard, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> list[T]:
        """Return `fn(shard, *args, **kwargs)` of every shard, in shard order."""
        return [fn(shard, *args, **kwargs) for shard in self.shards]

    def run(
        self, fn: Callable[Concatenate[ShardPool, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return `fn(pool, *args, **kwargs)` of the same rows with a state of its own."""
        shards = [shard.for_algorithm() for shard in self.shards]
        return fn(replace(self, shards=shards), *args, **kwargs)


def shard_bounds(num_rows: int, num_shards: int) -> list[tuple[int, int]]:
    """Return (first row, row after the last) of each shard, as even as whole blocks allow.

    More shards than blocks leaves some shards without rows. ValueError for fewer than one shard.
    """
    if num_shards < 1:
        raise ValueError(f"num_shards is {num_shards}: rows need at least one shard")
    num_blocks = -(-num_rows // BLOCK)
    edges = [
        min(num_blocks * shard // num_shards * BLOCK, num_rows) for shard in range(num_shards + 1)
    ]
    return list(pairwise(edges))


def as_rows(
    features: Float[np.ndarray, "..."] | Float[Tensor, "..."], *, start: int = 0
) -> Float32[np.ndarray, "N D"]:
    """Return features (N,D) of any device and float type as C-contiguous float32 numpy rows.

    No copy when they are that already. ValueError when they are not two-dimensional or a value is
    NaN or infinite: one such row would poison every centre. `start` is the first one's row in the
    table, for that message.
    """
    if features.ndim != 2:
        raise ValueError(
            f"features have shape {tuple(features.shape)}: expected (rows, dimensions); "
            "flatten or pool the trailing axes"
        )
    if isinstance(features, Tensor):
        features = features.detach().to("cpu", torch.float32).numpy()
    rows = np.ascontiguousarray(features, dtype=np.float32)
    bad = [  # by blocks: the mask stays small beside the features
        low + np.flatnonzero(~np.isfinite(rows[low : low + BLOCK]).all(axis=1))
        for low in range(0, len(rows), BLOCK)
    ]
    if any(map(len, bad)):
        faulty = np.concatenate(bad)
        raise ValueError(
            f"features of {len(faulty)} of {len(rows)} rows hold NaN or infinity in float32, row "
            f"{start + faulty[0]} the first: the network that made them diverged or overflowed; "
            "lower its learning rate or extract in float32"
        )
    return rows


def split(
    features: Float[np.ndarray, "..."] | Float[Tensor, "..."], num_shards: int
) -> LocalShardPool:
    """Return the rows of features (N,D), array or tensor, as a pool of `num_shards` local shards.

    The shards are views of one float32 array. ValueError as for `as_rows` and `shard_bounds`.
    """
    rows = as_rows(features)
    num_rows, num_features = rows.shape
    bounds = shard_bounds(num_rows, num_shards)
    shards = [Shard(start, rows[start:stop]) for start, stop in bounds]
    return LocalShardPool(shards, num_rows, num_features)

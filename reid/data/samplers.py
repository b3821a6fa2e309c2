"""Which rows a step reads: pure functions of (labels, seed, round, step, rank, world).

Any step is computed directly, without the ones before it; the batch of the whole job does not
depend on the number of ranks, which take consecutive slices of it.
Legend: N rows of a table, M rows with a label, U usable identities, P identities and K images of
each in a batch, B rows of a batch over all ranks, b of one rank, S steps drawn at once.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, Int64
from numpy.random import Generator, Philox
from numpy.typing import NDArray

from reid.compiled import compiled
from reid.types import OUTLIER

IDENTITY_ORDER, INSTANCES, ROW_ORDER, AUGMENTATION, COLOUR = range(5)
"""Purposes of randomness: each has its own Philox key, so that none repeats another's numbers."""

_STEPS = 1024  # steps of a pass drawn at once: numpy's cost of a call is shared among them


def counter_rng(purpose: int, *, seed: int, round: int, step: int, stream: int = 0) -> Generator:
    """Return the generator of one (purpose, seed, stream, round, step), at equal cost for any step.

    Philox4x64 is a function of a key and a counter (Salmon et al., SC 2011): seed and purpose are
    the key, the others the high words of the counter, each from 0 to 2**64 - 1.
    """
    key = np.array([seed, purpose], dtype=np.uint64)
    counter = np.array([0, step, round, stream], dtype=np.uint64)
    return Generator(Philox(key=key, counter=counter))


@dataclass(frozen=True, kw_only=True)
class PKIndex:
    """Labelled rows sorted by (label, camera), with where each identity begins.

    `rows` (M,) table rows; `camid` (M,) their cameras, in few bytes to stay in the processor's
    cache; `identity_start` (U+1,) offsets into both; `drawn` the last rows that were drawn and what
    was asked for, private to `pk_rows` and `list_rows`.
    """

    rows: Int64[np.ndarray, "M"]
    camid: Int32[np.ndarray, "M"]
    identity_start: Int64[np.ndarray, "U_plus_1"]
    drawn: dict[tuple[int, ...], NDArray[np.int64]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def num_identities(self) -> int:
        """Return U."""
        return len(self.identity_start) - 1


def pk_index(labels: Int64[np.ndarray, "N"], camid: Int64[np.ndarray, "N"]) -> PKIndex:
    """Sort a round's labels (N,) for `pk_rows`; outliers (-1) are never drawn.

    Raises `ValueError` when the lengths differ or fewer than two identities are left: a batch of
    one identity has no negative pair.
    """
    if len(labels) != len(camid):
        raise ValueError(f"{len(labels)} labels but {len(camid)} cameras: give one per image.")
    kept = np.flatnonzero(labels != OUTLIER)
    rows = kept[np.lexsort((camid[kept], labels[kept]))]
    _, first = np.unique(labels[rows], return_index=True)
    if len(first) < 2:
        raise ValueError(
            f"{len(labels)} images have {len(first)} usable identities, at least 2 are needed: "
            "cluster more loosely, or check that the labels are not all outliers."
        )
    return PKIndex(
        rows=rows,
        camid=camid[rows].astype(np.int32),
        identity_start=np.append(first, len(rows)),
    )


def pk_rows(
    index: PKIndex,
    *,
    num_identities: int,
    num_instances: int,
    seed: int,
    round: int,
    step: int,
    rank: int = 0,
    world: int = 1,
    stream: int = 0,
) -> Int64[np.ndarray, "b"]:
    """Return this rank's rows of one batch, (P*K/world,) int64, K of an identity in a row.

    A pass is U//P steps that name no identity twice; the U mod P left over wait for another pass.
    With fewer than P identities each step is a pass, and identities repeat in turn to fill P.
    Of each identity one image is drawn uniformly, the other K-1 from its other cameras; from the
    same camera if there is no other (RandomMultipleGallerySampler of the OpenReID family,
    core_reid.md 1c), in both cases without repetition if there are K-1. `stream` separates the
    draws of one step. Raises `ValueError` when P is not a multiple of `world`.
    NOTE: the released sampler yields a lone image once, which breaks the P x K batch; here it
    repeats, so a batch has exactly P*K rows. It also repeats images of exactly K-1 candidates.
    """
    _check_share(num_identities, world)
    steps_of_pass = max(index.num_identities // num_identities, 1)
    passing, position = divmod(step, steps_of_pass)
    first = position - position % _STEPS
    asked = (num_identities, num_instances, seed, round, passing, first, rank, world, stream)
    rows = index.drawn.get(asked)
    if rows is None:
        rows = _draw_steps(index, *asked)
        index.drawn.clear()
        index.drawn[asked] = rows
    batch: NDArray[np.int64] = rows[position - first].copy()
    return batch


def list_rows(
    index: PKIndex,
    *,
    num_identities: int,
    num_instances: int,
    seed: int,
    round: int,
    step: int,
    rank: int = 0,
    world: int = 1,
    stream: int = 0,
) -> Int64[np.ndarray, "b"]:
    """Return this rank's rows of one batch, (P*K/world,) int64, where a lone image comes once.

    A pass names every identity in random order, K of its images as `pk_rows` chooses them, but one
    of an identity that has only one; batches are cut from this list as it comes, its remainder
    waits for another pass. So SpCL meets its outliers, each alone in its label, as the released
    sampler shows them (spcl_inclr spec 0). With fewer rows than P*K they repeat in turn.
    Raises `ValueError` when P is not a multiple of `world`.
    """
    _check_share(num_identities, world)
    length = num_identities * num_instances
    sizes = np.where(np.diff(index.identity_start) == 1, 1, num_instances)
    passing, position = divmod(step, max(int(sizes.sum()) // length, 1))
    asked = (num_instances, seed, round, passing, stream)
    rows = index.drawn.get(asked)
    if rows is None:
        at: Any = {"seed": seed, "round": round, "stream": stream}
        available = index.num_identities
        order = _permutation(available, purpose=IDENTITY_ORDER, passing=passing, **at).copy()
        uniform = counter_rng(INSTANCES, step=passing, **at).random((available, num_instances))
        chosen = np.empty(uniform.shape, dtype=np.int64)
        _instances(index.rows, index.camid, index.identity_start, order, uniform, chosen)
        rows = chosen[np.arange(num_instances) < sizes[order, None]]
        index.drawn.clear()
        index.drawn[asked] = rows
    batch = np.resize(rows[position * length :][:length], length)
    return batch[_share(length, rank=rank, world=world)]


def _check_share(num_identities: int, world: int) -> None:
    if num_identities % world:
        raise ValueError(
            f"{num_identities} identities cannot be divided among {world} ranks: "
            "choose a number of identities that is a multiple of the ranks."
        )


def _draw_steps(
    index: PKIndex,
    num_identities: int,
    num_instances: int,
    seed: int,
    round: int,
    passing: int,
    first: int,
    rank: int,
    world: int,
    stream: int,
) -> Int64[np.ndarray, "S b"]:
    """Return the rows of up to `_STEPS` steps of a pass from step `first` of it on."""
    at: Any = {"seed": seed, "round": round, "stream": stream}
    available = index.num_identities
    order = _permutation(available, purpose=IDENTITY_ORDER, passing=passing, **at)
    in_pass = np.resize(order, max(available, num_identities))
    steps = min(_STEPS, len(in_pass) // num_identities - first)
    identities = in_pass[first * num_identities :][: steps * num_identities]
    counter = passing * (len(in_pass) // num_identities) + first
    uniform = counter_rng(INSTANCES, step=counter, **at).random(
        (steps, num_identities, num_instances)
    )
    share = _share(num_identities, rank=rank, world=world)
    mine = identities.reshape(steps, num_identities)[:, share].reshape(-1)
    rows = np.empty((len(mine), num_instances), dtype=np.int64)
    _instances(
        *(index.rows, index.camid, index.identity_start),
        *(mine, uniform[:, share].reshape(rows.shape), rows),
    )
    return rows.reshape(steps, -1)


def random_rows(
    num_rows: int,
    *,
    batch_size: int,
    seed: int,
    round: int,
    step: int,
    rank: int = 0,
    world: int = 1,
    stream: int = 0,
) -> Int64[np.ndarray, "b"]:
    """Return this rank's rows of one uniform batch, (batch_size/world,) int64.

    A pass is num_rows//batch_size steps that name no row twice; with fewer rows than the batch
    needs, each step is a pass and rows repeat in turn. Raises `ValueError` when `batch_size` is
    not a multiple of `world`.
    """
    if batch_size % world:
        raise ValueError(
            f"A batch of {batch_size} cannot be divided among {world} ranks: "
            "choose a batch size that is a multiple of the ranks."
        )
    passing, position = divmod(step, max(num_rows // batch_size, 1))
    order = _permutation(
        num_rows, purpose=ROW_ORDER, seed=seed, round=round, passing=passing, stream=stream
    )
    batch = np.resize(order[position * batch_size :][:batch_size], batch_size)
    return batch[_share(batch_size, rank=rank, world=world)]


def _share(count: int, *, rank: int, world: int) -> slice:
    """Return the part of a batch's `count` items that belongs to one rank."""
    return slice(rank * count // world, (rank + 1) * count // world)


@lru_cache(maxsize=8)  # still pure: saves the shuffle at each step of a pass, for several draws
def _permutation(
    length: int, *, purpose: int, seed: int, round: int, passing: int, stream: int
) -> NDArray[np.int64]:
    rng = counter_rng(purpose, seed=seed, round=round, step=passing, stream=stream)
    order: NDArray[np.int64] = rng.permutation(length)
    order.flags.writeable = False
    return order


@compiled
def _instances(
    rows: Int64[np.ndarray, "M"],
    camid: Int64[np.ndarray, "M"],
    identity_start: Int64[np.ndarray, "U_plus_1"],
    identities: Int64[np.ndarray, "n"],
    uniform: Float64[np.ndarray, "n K"],
    result: Int64[np.ndarray, "n K"],
) -> None:
    """Write each identity's anchor and companions into `result`.

    The candidates are the identity's span without a hole: the anchor's camera, or the anchor alone
    if that camera is all there is. Distinct ones are drawn by Floyd's algorithm (Bentley and Floyd,
    CACM 1987).
    """
    companions = uniform.shape[1] - 1
    chosen = np.empty(companions, np.int64)
    for i in range(len(identities)):
        start, stop = identity_start[identities[i]], identity_start[identities[i] + 1]
        anchor = start + int(uniform[i, 0] * (stop - start))
        result[i, 0] = rows[anchor]
        hole, after = anchor, anchor + 1
        while hole > start and camid[hole - 1] == camid[anchor]:
            hole -= 1
        while after < stop and camid[after] == camid[anchor]:
            after += 1
        if after - hole == stop - start:
            hole, after = anchor, anchor + 1
        candidates = stop - start - (after - hole)
        for column in range(companions):
            if candidates == 0:
                result[i, column + 1] = rows[anchor]
                continue
            if candidates < companions:  # with repetition
                drawn = int(uniform[i, column + 1] * candidates)
            else:
                last = candidates - companions + column
                drawn = int(uniform[i, column + 1] * (last + 1))
                for earlier in range(column):
                    if chosen[earlier] == drawn:
                        drawn = last
            chosen[column] = drawn
            place = start + drawn
            result[i, column + 1] = rows[place if place < hole else place + after - hole]

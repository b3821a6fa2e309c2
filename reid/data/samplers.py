"""Which rows a step reads: pure functions of (labels, seed, round, step, rank, world).

Any step is computed directly, without the ones before it; the batch of the whole job does not
depend on the number of ranks, which take consecutive slices of it.
Legend: N rows of a table, M rows with a label, U usable identities, P identities and K images of
each in a batch, B rows of a batch over all ranks.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int64
from numpy.random import Generator, Philox
from numpy.typing import NDArray

from reid.types import OUTLIER

IDENTITY_ORDER, INSTANCES, ROW_ORDER, AUGMENTATION, COLOUR = range(5)
"""Purposes of randomness: each has its own Philox key, so that none repeats another's numbers."""


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
    """Labelled rows sorted by (label, camera), with where each identity and camera begins.

    `rows` (M,) table rows; `identity_start` (U+1,) offsets into `rows`; `camera_start` and
    `camera_stop` (M,) the span in `rows` of the images that share identity and camera.
    """

    rows: Int64[np.ndarray, "M"]
    identity_start: Int64[np.ndarray, "U_plus_1"]
    camera_start: Int64[np.ndarray, "M"]
    camera_stop: Int64[np.ndarray, "M"]

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
    label, camera = labels[rows], camid[rows]
    _, first = np.unique(label, return_index=True)
    if len(first) < 2:
        raise ValueError(
            f"{len(labels)} images have {len(first)} usable identities, at least 2 are needed: "
            "cluster more loosely, or check that the labels are not all outliers."
        )
    changes = np.flatnonzero((np.diff(label) != 0) | (np.diff(camera) != 0)) + 1
    spans = np.concatenate(([0], changes, [len(rows)]))
    sizes = np.diff(spans)
    return PKIndex(
        rows=rows,
        identity_start=np.append(first, len(rows)),
        camera_start=np.repeat(spans[:-1], sizes),
        camera_stop=np.repeat(spans[1:], sizes),
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
    if num_identities % world:
        raise ValueError(
            f"{num_identities} identities cannot be divided among {world} ranks: "
            "choose a number of identities that is a multiple of the ranks."
        )
    available = index.num_identities
    passing, position = divmod(step, max(available // num_identities, 1))
    order = _permutation(
        available, purpose=IDENTITY_ORDER, seed=seed, round=round, passing=passing, stream=stream
    )
    in_pass = np.resize(order, max(available, num_identities))
    rng = counter_rng(INSTANCES, seed=seed, round=round, step=step, stream=stream)
    uniform = rng.random((num_identities, num_instances))
    share = _share(num_identities, rank=rank, world=world)
    identities = in_pass[position * num_identities :][:num_identities][share]
    return index.rows[_instances(index, identities, uniform[share])].reshape(-1)


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


def _instances(
    index: PKIndex, identities: NDArray[np.int64], uniform: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return positions (p,K) in `index.rows` of each identity's anchor and companions.

    The candidates are the identity's span without a hole: the anchor's camera, or the anchor alone
    if that camera is all there is. Distinct ones are drawn by Floyd's algorithm (Bentley and Floyd,
    CACM 1987), K-1 vectorised steps over all identities at once.
    """
    num_companions = uniform.shape[1] - 1
    start = index.identity_start[identities]
    size = index.identity_start[identities + 1] - start
    anchor = start + (uniform[:, 0] * size).astype(np.int64)
    camera_start, camera_stop = index.camera_start[anchor], index.camera_stop[anchor]
    other_cameras = camera_stop - camera_start < size
    hole = np.where(other_cameras, camera_start, anchor)
    hole_size = np.where(other_cameras, camera_stop - camera_start, 1)
    candidates = size - hole_size
    distinct = candidates >= num_companions
    chosen = np.empty((len(identities), num_companions), dtype=np.int64)
    for column in range(num_companions):
        last = candidates - num_companions + column
        bound = np.where(distinct, last + 1, candidates)
        drawn = (uniform[:, column + 1] * bound).astype(np.int64)
        taken = distinct & (chosen[:, :column] == drawn[:, None]).any(axis=1)
        chosen[:, column] = np.where(taken, last, drawn)
    companions = start[:, None] + chosen
    companions += np.where(companions >= hole[:, None], hole_size[:, None], 0)
    companions = np.where(candidates[:, None] == 0, anchor[:, None], companions)
    return np.concatenate((anchor[:, None], companions), axis=1)

"""Guard rails around a clustering: what it is given, and what it made.

What cannot be clustered, or leaves nothing to train on, is a ValueError; what trains but looks
wrong is a warning in the log, because a bad start may recover in later rounds. Both name the value
and a way on.

Legend: N rows, D feature dimensions.
"""

import hashlib
import itertools
import logging
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt64

from reid.clustering.seeding import check_num_distinct
from reid.clustering.shards import Shard, ShardPool
from reid.types import OUTLIER

log = logging.getLogger(__name__)

GIANT_SHARE = 0.5
"""share of the labelled images in one cluster above which it is called a giant"""
LARGEST_SQ_NORM = 1e36
"""of a row: four times as much, the squared distance of two, is still a float32"""


@dataclass(frozen=True, kw_only=True)
class _Bad:
    """Rows of one shard with a fault: how many, and the first in the table (-1 without any)."""

    num_rows: int
    first: int


def check_features(pool: ShardPool, *, name: str) -> None:
    """Look at the rows of a pool before they are clustered; `name` says whose they are.

    ValueError where rows hold NaN or infinity (or are longer than 1e18) and where all rows are
    zero; a warning where some are zero.
    """
    infinite, zero = (_total(parts) for parts in zip(*pool.map(_faults), strict=True))
    if infinite.num_rows:
        raise ValueError(
            f"{name}: features of {infinite.num_rows} of {pool.num_rows} rows hold NaN, infinity "
            f"or values too large to square in float32, row {infinite.first} the first: the "
            "network that made them diverged or overflowed; go back to an earlier checkpoint, "
            "lower its learning rate, or extract in float32"
        )
    if not zero.num_rows:
        return
    if zero.num_rows == pool.num_rows:
        raise ValueError(
            f"{name}: all {pool.num_rows} features are zero: the network is dead or its weights "
            "were not loaded; look at the checkpoint it started from"
        )
    log.warning(
        "%s: %d of %d features are zero, row %d the first; they are equally far from everything "
        "and end up in one cluster: look at those images, and leave out the empty ones",
        name, zero.num_rows, pool.num_rows, zero.first,
    )  # fmt: skip


def check_distinct(pool: ShardPool, num_clusters: int) -> None:
    """Raise ValueError where the pool's rows hold fewer distinct ones than clusters are asked for.

    A shard reads its rows only until it has found enough; their digests (8 bytes each) travel.
    """
    found = np.unique(np.concatenate(pool.map(_distinct, num_clusters)))
    check_num_distinct(num_clusters, pool.num_rows, len(found))


def check_labels(labels: Int64[np.ndarray, "N"], *, name: str, num_identities: int = 2) -> None:
    """Look at the labels a clustering made before they train anything; `name` says whose they are.

    `num_identities` is what a batch draws from them. ValueError with fewer than two clusters, for
    then no image has a negative; warnings for a cluster above `GIANT_SHARE`, and where fewer
    clusters than a batch draws have two images, which a positive pair takes.
    """
    kept = labels[labels != OUTLIER]
    counts = np.bincount(kept)
    num_clusters = np.count_nonzero(counts)
    if num_clusters == 0:
        raise ValueError(
            f"{name}: all {len(labels)} images are outliers, there is nothing to train on: cluster "
            "more loosely (larger eps, smaller min_samples), or start from better features"
        )
    if num_clusters == 1:
        raise ValueError(
            f"{name}: one cluster holds all {len(kept)} labelled images, no pair of them differs: "
            "cluster more finely (more clusters, smaller eps), or start from better features"
        )
    share = counts.max() / len(kept)
    if share > GIANT_SHARE:
        log.warning(
            "%s: the largest cluster holds %d of %d labelled images (%.0f %%, above %.0f %%): the "
            "features hardly tell identities apart; if the next rounds do not break it up, cluster "
            "more finely (more clusters, smaller eps) or start from better features",
            name, counts.max(), len(kept), 100 * share, 100 * GIANT_SHARE,
        )  # fmt: skip
    num_usable = np.count_nonzero(counts > 1)
    if num_usable < num_identities:
        log.warning(
            "%s: %d of %d clusters have two images or more and a batch draws %d identities: it "
            "will repeat identities, or single images; lower --num-identities, or cluster into "
            "more or larger clusters",
            name, num_usable, num_clusters, num_identities,
        )  # fmt: skip


def _total(parts: tuple[_Bad, ...]) -> _Bad:
    firsts = [part.first for part in parts if part.num_rows]
    return _Bad(num_rows=sum(part.num_rows for part in parts), first=min(firsts, default=-1))


# What runs on a shard. Each function sees one shard and the arguments of `pool.map`.


def _faults(shard: Shard) -> tuple[_Bad, _Bad]:
    """Return the shard's rows that are not finite or too large, and those that are zero."""
    sq_norms = np.empty(len(shard.features), dtype=np.float32)
    for block in shard.blocks():
        rows = shard.features[block]
        with np.errstate(over="ignore", invalid="ignore"):
            np.einsum("nd,nd->n", rows, rows, out=sq_norms[block])
    return _bad(shard, ~(sq_norms <= LARGEST_SQ_NORM)), _bad(shard, sq_norms == 0)


def _bad(shard: Shard, faulty: np.ndarray) -> _Bad:
    count = int(np.count_nonzero(faulty))
    return _Bad(num_rows=count, first=shard.start + int(faulty.argmax()) if count else -1)


def _distinct(shard: Shard, wanted: int) -> UInt64[np.ndarray, "m"]:
    """Return digests of up to `wanted` distinct rows."""
    digests: set[bytes] = set()
    blocks = (shard.features[block] + 0.0 for block in shard.blocks())  # -0 and 0 are equal
    for row in itertools.chain.from_iterable(blocks):
        if len(digests) == wanted:
            break
        digests.add(hashlib.blake2b(row.tobytes(), digest_size=8).digest())
    return np.frombuffer(b"".join(digests), dtype=np.uint64)

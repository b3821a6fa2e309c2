"""Jaccard distances between k-reciprocal neighbourhoods, sparse and over a pool of shards.

A row is encoded by weights of its k-reciprocal neighbours, averaged with its nearest neighbours'
encodings. Only rows whose encodings share an entry are less than 1 apart, so only these are met:
through lists of the rows that hold an entry. Rows are worked on by the shard that owns them; the
neighbour lists and encodings of all rows (8 bytes an entry, some hundred entries a row) travel.

Sources: Zhong et al. 2017, "Re-ranking person re-identification with k-reciprocal encoding";
spcl_inclr.md, section 5.1, for its form in SpCL's and others' code; Chen et al. 2024, "CA-Jaccard:
camera-aware Jaccard distance for person re-identification".

Legend: N rows of the table, n rows of one shard, w neighbours in a list, m rows of one tile,
D feature dimensions, q rows averaged, M entries.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int, Int32, Int64
from scipy import sparse

from reid.clustering.encoding import expanded, mutual, overlaps
from reid.clustering.listing import Neighbors, Wanted
from reid.clustering.neighbor_candidates import OTHER, SAME
from reid.clustering.neighbors import Rows, as_pool
from reid.clustering.pairs import Pairs, tiles
from reid.clustering.search import search
from reid.clustering.shards import Shard, ShardPool

Definition = Literal["spcl", "zhong", "torchreid"]

_STATE = "jaccard"


@dataclass
class _Entries:
    """The neighbours that a shard's rows are encoded by.

    `row` (counted from the shard's first, ascending) and `column` (M,) with their squared
    `distance`; `unknown` are those still to be measured, at the places `measured`.
    """

    row: Int32[np.ndarray, "M"]
    column: Int32[np.ndarray, "M"]
    distance: Float32[np.ndarray, "M"]
    measured: Int64[np.ndarray, "unknown"]
    unknown: Pairs


def jaccard_distance(
    rows: Rows,
    *,
    k1: int = 30,
    k2: int = 6,
    max_distance: float = 1.0,
    definition: Definition = "spcl",
) -> sparse.csr_array:
    """Return the k-reciprocal Jaccard distances (N,N) below `max_distance` of features or a pool.

    float32, the diagonal as explicit zeros; what is not stored is 1, or at least `max_distance`.
    `k1` neighbours make the sets, the encodings of the first `k2` (the row itself included) are
    averaged. A neighbour at squared distance d of a row, whose farthest is at m, weighs

    - "spcl": exp(-d), in lists of k1 rows, the row itself included: the code of SpCL, OpenUnReID,
      Cluster-Contrast and PPLR, whose search asks for one neighbour fewer than their sets are for;
    - "zhong": exp(-d / m), in lists of k1 rows besides the row itself: Zhong et al.;
    - "torchreid": exp(-(d / m)^2), likewise: its code squares distances that are squares already.

    NOTE: "spcl" code takes 2 - 2 x.y for d, the same for rows of unit length, as they should be.
    NOTE: equal distances are ordered by index here, at random in released code.
    Bit-identical for any number of shards. ValueError as for `split`, without rows, when k1 or k2
    is below 1 or k2 above k1, and for a `max_distance` outside (0, 1].
    """
    pool = as_pool(rows)
    if not 1 <= k2 <= k1:
        raise ValueError(f"k1 is {k1} and k2 is {k2}: choose 1 <= k2 <= k1")
    _check(pool, max_distance)
    return pool.run(_jaccard, k1, k2, max_distance, definition)


def camera_jaccard_distance(
    rows: Rows,
    camid: Int[np.ndarray, "N"],
    *,
    k1_intra: int = 5,
    k1_inter: int = 20,
    k2_intra: int = 2,
    k2_inter: int = 4,
    max_distance: float = 1.0,
) -> sparse.csr_array:
    """Return camera-aware Jaccard distances (N,N), stored as those of `jaccard_distance`.

    A row's set is the union of its k-reciprocal neighbours within its camera (`k1_intra` besides
    itself) and among the other cameras (`k1_inter` + 1), not expanded, weighed as by "spcl"; the
    encodings of the first `k2_intra` of its camera, itself included, and of the first `k2_inter` of
    the others are averaged. ValueError as for `jaccard_distance`, except that k2_inter may be 0.

    Source: Chen et al. 2024, with the one neighbour more than k that their released code takes.
    NOTE: where a camera holds too few rows their code fills lists with rows that do not belong
    there; here lists are short, and averages over what there is.
    """
    pool = as_pool(rows)
    if k1_inter < 1 or not 1 <= k2_intra <= k1_intra or not 0 <= k2_inter <= k1_inter:
        raise ValueError(
            f"k1_intra is {k1_intra}, k1_inter {k1_inter}, k2_intra {k2_intra} and k2_inter "
            f"{k2_inter}: choose k1_inter from 1 on, 1 <= k2_intra <= k1_intra and 0 <= k2_inter "
            "<= k1_inter"
        )
    if len(camid) != pool.num_rows:
        raise ValueError(f"{len(camid)} cameras for {pool.num_rows} rows: give one for each")
    _check(pool, max_distance)
    k1, k2 = (k1_intra, k1_inter), (k2_intra, k2_inter)
    return pool.run(_camera_jaccard, camid, k1, k2, max_distance)


def _check(pool: ShardPool, max_distance: float) -> None:
    if pool.num_rows == 0:
        raise ValueError("there are no rows: give the features of one image at least")
    if not 0 < max_distance <= 1:
        raise ValueError(
            f"max_distance is {max_distance}: choose above 0 and up to 1, which stores all "
            "distances that are not 1"
        )


def _jaccard(
    pool: ShardPool, k1: int, k2: int, max_distance: float, definition: Definition
) -> sparse.csr_array:
    scaled = definition != "spcl"
    found = search(pool, [Wanted(k=min(k1 + scaled, pool.num_rows))], farthest=scaled)
    (near,) = found.lists
    half = min(round(k1 / 2) + 1, near.indices.shape[1])  # to even, as numpy in released code
    pool.map(_encode, [_short(near)], [near.distances], half)
    power = 2 if definition == "torchreid" else 1
    return _distance(pool, _short(near)[:, :k2], max_distance, scale=found.farthest, power=power)


def _camera_jaccard(
    pool: ShardPool,
    camid: Int[np.ndarray, "N"],
    k1: tuple[int, int],
    k2: tuple[int, int],
    max_distance: float,
) -> sparse.csr_array:
    most = pool.num_rows
    wanted = [
        Wanted(k=min(k + 1, most), cameras=cameras)
        for k, cameras in zip(k1, (SAME, OTHER), strict=True)
    ]
    near = search(pool, wanted, camid=camid).lists
    lists = [_short(one) for one in near]
    pool.map(_encode, lists, [one.distances for one in near], 0)
    averaged = np.concatenate([one[:, :k] for one, k in zip(lists, k2, strict=True)], axis=1)
    return _distance(pool, averaged, max_distance, scale=None, power=1)


def _short(near: Neighbors) -> Int32[np.ndarray, "N w"]:
    return near.indices.astype(np.int32)


def _distance(
    pool: ShardPool,
    averaged: Int32[np.ndarray, "N q"],
    max_distance: float,
    *,
    scale: Float32[np.ndarray, "N"] | None,
    power: int,
) -> sparse.csr_array:
    """Return the distances of the rows that `_encode` began with, averaged over `averaged`."""
    for low, tile in tiles(pool):
        pool.map(_measure, low, tile)
    encoding = _stacked(pool.map(_weigh, pool.num_rows, scale, power))
    encoding = _stacked(pool.map(_average, averaged, encoding))
    parts = pool.map(_overlap, encoding, encoding.tocsc(), max_distance)
    count, later, distance = (np.concatenate(part) for part in zip(*parts, strict=True))
    earlier = np.repeat(np.arange(pool.num_rows, dtype=np.int32), count)
    own = np.arange(pool.num_rows, dtype=np.int32)
    values = np.concatenate([distance, distance, np.zeros(len(own), np.float32)])
    where = (np.concatenate([earlier, later, own]), np.concatenate([later, earlier, own]))
    return sparse.coo_array((values, where), shape=(len(own), len(own))).tocsr()


def _stacked(parts: Sequence[sparse.csr_array]) -> sparse.csr_array:
    return parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr")


# What runs on a shard. Each function sees one shard and the arguments of `pool.map`.


def _encode(
    shard: Shard,
    lists: Sequence[Int32[np.ndarray, "N _"]],
    distances: Sequence[Float32[np.ndarray, "N _"]],
    half: int,
) -> None:
    """Find the k-reciprocal neighbours of the shard's rows in each list, and expand them.

    The lists have no neighbour in common.
    """
    rows, columns, known = [], [], []
    for near, far in zip(lists, distances, strict=True):
        stamp = np.full(len(near), -1, dtype=np.int32)
        both_of_half = mutual(near, 0, len(near), half)
        for block in shard.blocks():
            start, stop = shard.start + block.start, shard.start + block.stop
            count = np.empty(stop - start, dtype=np.int32)
            room = len(count) * near.shape[1] * (half + 1)
            column, distance = np.empty(room, np.int32), np.empty(room, np.float32)
            both = mutual(near, start, stop, near.shape[1])
            filled = expanded(
                near, far[start:stop], both, both_of_half, start, stamp, count, column, distance
            )
            rows.append(np.repeat(np.arange(block.start, block.stop, dtype=np.int32), count))
            columns.append(column[:filled].copy())
            known.append(distance[:filled].copy())
    empty = np.empty(0, dtype=np.int32)  # a shard without rows
    row = np.concatenate([empty, *rows])
    order = np.argsort(row, kind="stable")
    row, column = row[order], np.concatenate([empty, *columns])[order]
    distance = np.concatenate([empty.astype(np.float32), *known])[order]
    measured = np.flatnonzero(distance < 0)
    unknown = Pairs(row[measured], column[measured], np.empty(len(measured), np.float32))
    shard.state[_STATE] = _Entries(row, column, distance, measured, unknown)


def _measure(shard: Shard, tile_start: int, tile: Float32[np.ndarray, "m D"]) -> None:
    shard.state[_STATE].unknown.fill(shard.features, tile_start, tile)


def _weigh(
    shard: Shard, num_rows: int, scale: Float32[np.ndarray, "N"] | None, power: int
) -> sparse.csr_array:
    """Return the encodings of the shard's rows: softmax of -(distance / scale) ** power."""
    entries: _Entries = shard.state.pop(_STATE)
    entries.distance[entries.measured] = entries.unknown.distance
    exponent = entries.distance.astype(np.float64)
    n = len(shard.features)
    if scale is not None:
        own = scale[shard.start : shard.start + n]
        exponent /= np.where(own > 0, own, 1)[entries.row]  # 0: all rows are equal
    weight = np.exp(-(exponent**power))
    start = np.searchsorted(entries.row, np.arange(n + 1, dtype=np.int32))
    if n:  # no row is empty: each is its own neighbour
        weight /= np.add.reduceat(weight, start[:-1])[entries.row]
    encoding = sparse.csr_array(
        (weight.astype(np.float32), entries.column, start), shape=(n, num_rows)
    )
    encoding.eliminate_zeros()  # a neighbour so far that its weight is none
    return encoding


def _average(
    shard: Shard, averaged: Int32[np.ndarray, "N q"], encoding: sparse.csr_array
) -> sparse.csr_array:
    """Return the means of the encodings of each row's `averaged` (-1: none): a sparse product."""
    own = averaged[shard.start : shard.start + len(shard.features)]
    there = own >= 0
    number = there.sum(axis=1)
    weight = np.repeat(1 / number, number).astype(np.float32)
    start = np.concatenate([[0], np.cumsum(number)])
    mean = sparse.csr_array((weight, own[there], start), shape=(len(own), encoding.shape[0]))
    product: sparse.csr_array = mean @ encoding
    product.sort_indices()
    return product


def _overlap(
    shard: Shard, encoding: sparse.csr_array, columns: sparse.csc_array, max_distance: float
) -> tuple[Int32[np.ndarray, "n"], Int32[np.ndarray, "M"], Float32[np.ndarray, "M"]]:
    """Return the later rows nearer than `max_distance` to each row: how many, which, how near."""
    start, stop = shard.start, shard.start + len(shard.features)
    first, last = encoding.indptr[start], encoding.indptr[stop]
    passed = np.bincount(encoding.indices[:first], minlength=encoding.shape[1])
    return overlaps(
        (encoding.indptr[start : stop + 1] - first).astype(np.int64),
        encoding.indices[first:last],
        encoding.data[first:last],
        (columns.indptr[:-1] + passed).astype(np.int64),
        columns.indptr[1:].astype(np.int64),
        columns.indices,
        columns.data,
        max_distance,
    )

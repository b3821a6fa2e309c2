"""What a shard does while centres are drawn: count, draw candidates, meet them, sum their gains.

Sums over rows are of 64-bit integers, squared distances in steps of a power of two. They are exact,
so they are the same in any order and for any number of shards.

Legend: n rows of one shard, D feature dimensions, L candidates of a centre, M candidates of a
block of centres, K centres, m rows found on one shard, P pairs of a row and a candidate.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from reid.clustering.assignment import nothing_found, search
from reid.clustering.codes import coded_rows
from reid.clustering.distance import TILE, open_pairs
from reid.clustering.shards import Shard
from reid.compiled import compiled

NOBODY = -1
"""The winner before there is one."""

_STATE = "candidates"


@dataclass
class _Standing:
    """What a shard keeps.

    `weight` (n,) of the rows; `closest_dist_sq` (n,) to the centres so far; `steps` (n,) what a
    squared distance is multiplied by to be counted; `cumulative` (n,) running sum of the counts.
    `row` and `dist_sq` (P,): rows that a candidate of the block is nearer to than their closest
    centre was when the block began, candidate by candidate from `start` (M+1,) on.
    """

    weight: Float64[np.ndarray, "n"]
    closest_dist_sq: Float32[np.ndarray, "n"]
    steps: Float64[np.ndarray, "n"]
    cumulative: Int64[np.ndarray, "n"]
    start: Int64[np.ndarray, "M_plus_1"]
    row: Int32[np.ndarray, "P"]
    dist_sq: Float32[np.ndarray, "P"]


@dataclass(frozen=True, kw_only=True)
class Share:
    """A shard's first row, the sum of its counts and its largest squared distance to a centre."""

    start: int
    count: int
    largest: float


@dataclass(frozen=True, kw_only=True)
class Found:
    """Those of M wanted rows that one shard owns; `position` is their place among the M."""

    position: Int64[np.ndarray, "m"]
    row: Int64[np.ndarray, "m"]
    features: Float32[np.ndarray, "m D"]


@dataclass(frozen=True, kw_only=True)
class Met:
    """Candidates that one shard owns, by `position`: squared distances to centres and candidates.

    Those `to_candidates` are infinite unless below `closest_dist_sq`.
    """

    position: Int64[np.ndarray, "m"]
    closest_dist_sq: Float32[np.ndarray, "m"]
    to_candidates: Float32[np.ndarray, "m M"]


def begin(
    shard: Shard,
    weight: Float64[np.ndarray, "n"] | None = None,
    closest_dist_sq: Float32[np.ndarray, "n"] | None = None,
) -> None:
    """Start with no centre, or with `closest_dist_sq` (n,) to those there are.

    Rows count once unless `weight` (n,), whole numbers, says otherwise.
    """
    size = len(shard.features)
    nowhere = np.full(size, np.inf, dtype=np.float32)
    shard.state[_STATE] = _Standing(
        weight=np.ones(size) if weight is None else weight,
        closest_dist_sq=nowhere if closest_dist_sq is None else closest_dist_sq,
        steps=np.zeros(size),
        cumulative=np.zeros(size, dtype=np.int64),
        start=np.zeros(1, dtype=np.int64),
        row=np.zeros(0, dtype=np.int32),
        dist_sq=np.zeros(0, dtype=np.float32),
    )


def begin_from(shard: Shard, centers: Float32[np.ndarray, "K D"]) -> None:
    """Start with centres (K,D)."""
    found = nothing_found(len(shard.features))
    rows = coded_rows(shard)
    search(rows, rows.code(centers), np.arange(len(centers)), found)
    begin(shard, closest_dist_sq=found.dist_sq)


def end(shard: Shard) -> None:
    """Forget all."""
    shard.state.pop(_STATE, None)


def count(shard: Shard, winner: int, exponent: int | None) -> Share:
    """Make candidate `winner` a centre; count squared distances, or rows without an exponent."""
    state: _Standing = shard.state[_STATE]
    _make_center(state, winner)
    counts = state.weight
    if exponent is not None:
        state.steps = np.ldexp(state.weight, exponent)
        counts = state.closest_dist_sq * state.steps
    state.cumulative = np.cumsum(counts.astype(np.int64))
    return Share(
        start=shard.start,
        count=int(state.cumulative[-1]) if len(counts) else 0,
        largest=float(state.closest_dist_sq.max(initial=0)),
    )


def counts_of(shard: Shard) -> Int64[np.ndarray, "n"]:
    """Return each row's count (n,) as `count` left it."""
    state: _Standing = shard.state[_STATE]
    return np.diff(state.cumulative, prepend=0)


def draw(shard: Shard, before: dict[int, int], draws: Int64[np.ndarray, "M"]) -> Found:
    """Return the rows of the shard's own draws; `before` is the count before its first row."""
    state: _Standing = shard.state[_STATE]
    own = draws - before[shard.start]
    size = state.cumulative[-1] if len(state.cumulative) else 0
    position = np.flatnonzero((own >= 0) & (own < size))
    row = np.searchsorted(state.cumulative, own[position], side="right")
    return Found(position=position, row=shard.start + row, features=shard.features[row])


def meet(shard: Shard, rows: Int64[np.ndarray, "M"], candidates: Float32[np.ndarray, "M D"]) -> Met:
    """Work out which rows each candidate is nearer to than their closest centre."""
    state: _Standing = shard.state[_STATE]
    coded = coded_rows(shard)
    columns = coded.code(candidates)
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    for low in range(0, len(coded), TILE):
        limit = state.closest_dist_sq[low : low + TILE]
        for first in range(0, len(columns), TILE):
            some = columns[first : first + TILE]
            pairs = open_pairs(coded[low : low + TILE], some, limit, only_nearest=False)
            nearer = np.flatnonzero(pairs.dist_sq < limit[pairs.row])
            row, column = pairs.row[nearer] + low, pairs.column[nearer] + first
            found.append((row, column, pairs.dist_sq[nearer]))
    row, column, dist_sq = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(column.astype(np.uint32), kind="stable")
    state.start = np.searchsorted(column, np.arange(len(columns) + 1), sorter=order)
    state.row, state.dist_sq = row[order].astype(np.int32), dist_sq[order]

    local = rows - shard.start
    position = np.flatnonzero((local >= 0) & (local < len(coded)))
    candidate_at = np.full(len(coded), NOBODY)
    candidate_at[local[position]] = position  # of a row drawn several times, any
    met = np.full((len(rows), len(rows)), np.inf, dtype=np.float32)
    is_candidate = np.flatnonzero(candidate_at[row] != NOBODY)
    met[candidate_at[row[is_candidate]], column[is_candidate]] = dist_sq[is_candidate]
    return Met(
        position=position,
        closest_dist_sq=state.closest_dist_sq[local[position]],
        to_candidates=met[candidate_at[local[position]]],
    )


def gains(shard: Shard, winner: int, tried: Int64[np.ndarray, "L"]) -> Int64[np.ndarray, "L"]:
    """Make candidate `winner` a centre; return what each of some others would take off the sum."""
    state: _Standing = shard.state[_STATE]
    _make_center(state, winner)
    gained = np.zeros(len(tried), dtype=np.int64)
    pairs = (state.start, state.row, state.dist_sq)
    _sum_gains(tried, *pairs, state.closest_dist_sq, state.steps, gained)
    return gained


def _make_center(state: _Standing, winner: int) -> None:
    if winner != NOBODY:
        pairs = slice(state.start[winner], state.start[winner + 1])
        row = state.row[pairs]
        state.closest_dist_sq[row] = np.minimum(state.closest_dist_sq[row], state.dist_sq[pairs])


@compiled
def _sum_gains(
    tried: Int64[np.ndarray, "L"],
    start: Int64[np.ndarray, "M_plus_1"],
    row: Int32[np.ndarray, "P"],
    dist_sq: Float32[np.ndarray, "P"],
    closest_dist_sq: Float32[np.ndarray, "n"],
    steps: Float64[np.ndarray, "n"],
    gained: Int64[np.ndarray, "L"],
) -> None:
    for place in range(len(tried)):
        total = np.int64(0)
        for pair in range(start[tried[place]], start[tried[place] + 1]):
            r = row[pair]
            if dist_sq[pair] < closest_dist_sq[r]:
                before = np.int64(closest_dist_sq[r] * steps[r])
                total += before - np.int64(dist_sq[pair] * steps[r])
        gained[place] = total

"""Mean average precision, CMC and mINP of a ranking, by counting instead of sorting.

A query needs the ranks of its own matches only, and a match ranks one after the gallery rows closer
than it. Counting those is two passes over a tile of distances per match, on CPU and GPU alike.

Legend: Q queries, G gallery rows, D dimensions, M pairs of a query and a gallery row of its pid,
T queries of a tile, P most such pairs of one query in the tile.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray

from reid.types import Retrieval

JUNK_PID = -1  # gallery rows no query is ever scored on (bad detections)
MEMORY_BUDGET = 2**27  # bytes of distances held: many queries share a pass over the gallery
CACHED = 2**20  # distances compared at a time, in several passes: what a core's cache holds

QueryIds = Int[np.ndarray, "Q"] | Int[torch.Tensor, "Q"]
GalleryIds = Int[np.ndarray, "G"] | Int[torch.Tensor, "G"]
QueryFeatures = Float[np.ndarray, "Q D"] | Float[torch.Tensor, "Q D"]
GalleryFeatures = Float[np.ndarray, "G D"] | Float[torch.Tensor, "G D"]


def retrieval(
    query_features: QueryFeatures,
    gallery_features: GalleryFeatures,
    *,
    query_pids: QueryIds,
    query_camids: QueryIds,
    gallery_pids: GalleryIds,
    gallery_camids: GalleryIds,
    max_rank: int = 50,
    memory_budget: int = MEMORY_BUDGET,
) -> Retrieval:
    """Score the ranking of the gallery by L2 distance, without ever holding Q x G.

    Features are (Q,D) and (G,D), scored on their own device, half precision as float32. Junk
    (gallery pid -1, or the query's own pid *and* camera) is removed before ranking; any other
    identity, such as Market's distractors with pid 0, stays as a wrong result. Ties go to the lower
    gallery row. `memory_budget` (bytes) sets the queries per tile: only speed and memory follow it.

    Data without cameras: a camera shared by query and gallery would make every match junk. Pass
    `query_camids` that occur nowhere in the gallery (-1 throughout); only pid -1 is junk then.

    Queries without a match are left out of every mean and NaN in `ap`. ValueError when no query
    has one, when lengths differ, or when a distance is not finite.
    With r_1 < ... < r_n the ranks of a query's matches: AP = mean of j / r_j (Zheng et al., ICCV
    2015: Market-1501) and INP = n / r_n (Ye et al., TPAMI 2022); all means are taken in float64.
    """
    query, gallery = as_float(query_features), as_float(gallery_features)
    if query.shape[1] != gallery.shape[1]:
        dimensions = (query.shape[1], gallery.shape[1])
        raise ValueError(f"features of {dimensions} dimensions; extract both with one network")
    shape = (len(query), len(gallery))
    matches = _find_matches(shape, query_pids, query_camids, gallery_pids, gallery_camids)
    columns = torch.from_numpy(matches.kept).to(gallery.device)
    gallery = gallery if len(columns) == len(gallery) else gallery[columns]
    gallery_norms = gallery.square().sum(dim=1)

    def distances(rows: torch.Tensor) -> torch.Tensor:
        return ranking_distance(query[rows.to(query.device)], gallery, gallery_norms)

    return _score(distances, matches, max_rank=max_rank, memory_budget=memory_budget)


def retrieval_from_distance(
    distance: Float[np.ndarray, "Q G"] | Float[torch.Tensor, "Q G"],
    *,
    query_pids: QueryIds,
    query_camids: QueryIds,
    gallery_pids: GalleryIds,
    gallery_camids: GalleryIds,
    protocol: Literal["market", "sysu", "regdb"] = "market",
    max_rank: int = 20,
) -> Retrieval:
    """Score a ranking given as distances (Q,G), smallest first; for re-ranked distances.

    Junk, ties, data without cameras and errors as in `retrieval`; `distance` is left as it is.
    `protocol` other than "market" is a ValueError: the visible-infrared rules are not implemented.
    """
    if protocol != "market":
        raise ValueError(f"protocol {protocol!r} is not implemented; use protocol='market'")
    table = as_float(distance)
    matches = _find_matches(table.shape, query_pids, query_camids, gallery_pids, gallery_camids)
    columns = torch.from_numpy(matches.kept).to(table.device)

    def distances(rows: torch.Tensor) -> torch.Tensor:
        tile = table[rows.to(table.device)]
        return tile if len(columns) == table.shape[1] else tile[:, columns]

    return _score(distances, matches, max_rank=max_rank, memory_budget=MEMORY_BUDGET)


def as_float(values: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Return an array or tensor as a tensor without gradient, float32 at least."""
    tensor = torch.as_tensor(values).detach()
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def as_ids(values: np.ndarray | torch.Tensor) -> NDArray[np.int64]:
    """Return identities or cameras as an int64 array."""
    return np.asarray(values.cpu() if isinstance(values, torch.Tensor) else values, dtype=np.int64)


def ranking_distance(
    query: Float[torch.Tensor, "T D"],
    gallery: Float[torch.Tensor, "G D"],
    gallery_norms: Float[torch.Tensor, "G"],
) -> Float[torch.Tensor, "T G"]:
    """Return |g|^2 - 2 q.g, `gallery_norms` being |g|^2: orders each row as the L2 distance does.

    The query's norm shifts a whole row and the root is monotone: no rank changes, less is rounded.
    """
    return torch.addmm(gallery_norms[None], query, gallery.T, alpha=-2)


@dataclass(frozen=True, kw_only=True)
class _Matches:
    """Pairs of one identity: a query's matches, then its junk, each by ascending gallery row.

    `kept` are the gallery rows that are ranked and `column` (M,) counts in them. The pairs of
    query q begin at `start[q]`; `num_right[q]` matches come first, `num_same[q]` pairs in all.
    """

    kept: NDArray[np.int64]
    column: NDArray[np.int64]
    start: NDArray[np.int64]
    num_right: NDArray[np.int64]
    num_same: NDArray[np.int64]

    def padded(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the columns (T,P) of the queries' pairs, 0 past the last."""
        slot = np.arange(self.num_same[rows].max())
        real = slot < self.num_same[rows, None]
        columns = np.zeros(real.shape, dtype=np.int64)
        columns[real] = self.column[(self.start[rows, None] + slot)[real]]
        return columns


def _find_matches(
    shape: tuple[int, ...],
    query_pids: QueryIds,
    query_camids: QueryIds,
    gallery_pids: GalleryIds,
    gallery_camids: GalleryIds,
) -> _Matches:
    """Return all pairs of one identity, in O(M + G) memory."""
    query_pid, query_camid = as_ids(query_pids), as_ids(query_camids)
    gallery_pid, gallery_camid = as_ids(gallery_pids), as_ids(gallery_camids)
    lengths = (len(query_pid), len(query_camid), len(gallery_pid), len(gallery_camid))
    if lengths != (shape[0], shape[0], shape[1], shape[1]):
        raise ValueError(
            f"{shape[0]} queries and {shape[1]} gallery rows, but query pids, query cameras, "
            f"gallery pids and gallery cameras of lengths {lengths}; pass one of each per row"
        )
    kept = np.flatnonzero(gallery_pid != JUNK_PID)
    by_pid = np.argsort(gallery_pid[kept], kind="stable")
    ordered_pid = gallery_pid[kept][by_pid]
    first = np.searchsorted(ordered_pid, query_pid, side="left")
    num_same = np.searchsorted(ordered_pid, query_pid, side="right") - first
    start = np.cumsum(num_same) - num_same
    query = np.repeat(np.arange(len(query_pid)), num_same)
    column = by_pid[np.arange(len(query)) + np.repeat(first - start, num_same)]
    junk = gallery_camid[kept][column] == query_camid[query]
    return _Matches(
        kept=kept,
        column=column[np.lexsort((junk, query))],
        start=start,
        num_right=np.bincount(query[~junk], minlength=len(query_pid)),
        num_same=num_same,
    )


def _score(
    distances: Callable[[torch.Tensor], torch.Tensor],
    matches: _Matches,
    *,
    max_rank: int,
    memory_budget: int,
) -> Retrieval:
    """Score tile after tile; `distances(rows)` returns a fresh (T, kept gallery rows) tensor."""
    if max_rank < 1:
        raise ValueError(f"max_rank={max_rank} gives an empty CMC curve; use 1 or more")
    num_right = matches.num_right
    # Most matches first: the rows of a tile that have a j-th match are then its first rows.
    valid = np.argsort(-num_right, kind="stable")[: np.count_nonzero(num_right)]
    if not len(valid):
        reason = f"none of {len(num_right)} queries has a match in another camera of the gallery"
        raise ValueError(f"{reason}; for data without cameras pass query_camids of -1")
    ap, inp, first = np.full((3, len(num_right)), np.nan)
    step, part = (max(1, n // len(matches.kept)) for n in (memory_budget // 4, CACHED))
    tiles = (
        tile
        for computed in torch.from_numpy(valid).split(step)
        for tile in zip(computed.split(part), distances(computed).split(part), strict=True)
    )
    for tile_rows, tile in tiles:
        rows = tile_rows.numpy()
        rank = _match_ranks(tile, matches, rows)
        # A running sum, not sum(): its rounding does not depend on the width of the tile.
        precision = np.cumsum(np.arange(1, rank.shape[1] + 1) / rank, axis=1)
        ap[rows] = precision[:, -1] / num_right[rows]
        inp[rows] = num_right[rows] / rank[np.arange(len(rows)), num_right[rows] - 1]
        first[rows] = rank[:, 0]
    return Retrieval(
        mAP=float(ap[valid].mean()),
        cmc=(first[valid, None] <= np.arange(1, max_rank + 1)).mean(axis=0),
        mINP=float(inp[valid].mean()),
        num_valid_queries=len(valid),
        ap=ap,
    )


def _match_ranks(
    tile: torch.Tensor, matches: _Matches, rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the ranks of the matches of the tile's queries, ascending, inf past the last.

    `tile` (T,G) is overwritten where it is junk.
    """
    if not bool(torch.isfinite(tile).all()):
        raise ValueError("a distance is not finite; look for NaN or infinity in the features")
    columns, slot = matches.padded(rows), np.arange(matches.num_same[rows].max())
    num_right, num_same = matches.num_right[rows, None], matches.num_same[rows, None]
    at_row, at_slot = np.nonzero((slot >= num_right) & (slot < num_same))
    junk = (at_row, columns[at_row, at_slot])
    tile[tuple(torch.from_numpy(axis).to(tile.device) for axis in junk)] = torch.inf
    right = slot[: num_right.max()] < num_right
    column = torch.from_numpy(columns[:, : right.shape[1]]).to(tile.device)
    limit, before = tile.gather(1, column), torch.empty_like(column)
    # Comparing into floats and adding those up is several times faster than counting booleans,
    # and exact while counts fit the mantissa.
    buffer = torch.empty_like(tile, dtype=torch.float32 if tile.shape[1] < 2**24 else torch.float64)
    gallery_row = torch.arange(tile.shape[1], device=tile.device)
    for j, active in enumerate(right.sum(axis=0).tolist()):
        part, bound, hit = tile[:active], limit[:active, j : j + 1], buffer[:active]
        closer = torch.lt(part, bound, out=hit).sum(dim=1)
        if bool((torch.le(part, bound, out=hit).sum(dim=1) > closer + 1).any()):
            closer += ((part == bound) & (gallery_row < column[:active, j : j + 1])).sum(dim=1)
        before[:active, j] = closer
    rank = np.where(right, before.cpu().numpy() + 1.0, np.inf)
    rank.sort(axis=1)
    return rank

"""The nearest centre of each row, found anew or after some centres moved.

Legend: n rows, m centres searched, K all centres, D feature dimensions.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from reid.clustering.codes import CodedRows, code_rows
from reid.clustering.distance import TILE, open_pairs

NOTHING = -1  # the label of a row that no centre was compared with


@dataclass(kw_only=True)
class Assignment:
    """The nearest centre of each of n rows among those searched.

    `label` (n,) int64, the lowest of equally near ones; `dist_sq` (n,) float32 its squared
    distance; no other centre has a squared distance below `others` (n,) float32.
    """

    label: Int64[np.ndarray, "n"]
    dist_sq: Float32[np.ndarray, "n"]
    others: Float32[np.ndarray, "n"]


def nothing_found(num_rows: int) -> Assignment:
    """Return the assignment before any search."""
    return Assignment(
        label=np.full(num_rows, NOTHING, dtype=np.int64),
        dist_sq=np.full(num_rows, np.inf, dtype=np.float32),
        others=np.full(num_rows, np.inf, dtype=np.float32),
    )


def nearest_centers(
    rows: Float32[np.ndarray, "n D"], centers: Float32[np.ndarray, "K D"]
) -> Int64[np.ndarray, "n"]:
    """Return for each row the closest centre in squared L2 distance, the lowest of equal ones.

    Distances are those of `distance.pair_dist_sq`: the same answer on every processor.
    """
    found = nothing_found(len(rows))
    coded = code_rows(rows)
    search(coded, coded.code(centers), np.arange(len(centers)), found)
    return found.label


def search(
    rows: CodedRows, centers: CodedRows, ids: Int64[np.ndarray, "m"], found: Assignment
) -> None:
    """Compare all rows with centres of labels `ids` (m,), ascending; update `found` in place."""
    for low in range(0, len(rows), TILE):
        part = slice(low, low + TILE)
        _search_tile(rows[part], centers, ids, _view(found, part))


def follow(
    rows: CodedRows,
    centers: Float32[np.ndarray, "K D"],
    moved: Int64[np.ndarray, "m"],
    found: Assignment,
) -> None:
    """Update, in place, the assignment to centres (K,D) of which those in `moved` (m,) are new.

    Rows are compared with the moved centres alone. That settles a row whose own centre stayed, and
    one whose nearest moved centre is nearer than all that stayed can be; others search everywhere.
    """
    everywhere = np.arange(len(centers))
    every_center = rows.code(centers)
    if len(moved) == len(centers):
        found.label[:], found.dist_sq[:], found.others[:] = NOTHING, np.inf, np.inf
        search(rows, every_center, everywhere, found)
        return
    is_moved = np.zeros(len(centers), dtype=bool)
    is_moved[moved] = True
    moved_centers = every_center[moved]
    for low in range(0, len(rows), TILE):
        part = slice(low, low + TILE)
        tile, view = rows[part], _view(found, part)
        lost = is_moved[view.label]
        view.label[lost] = NOTHING
        view.dist_sq[lost] = np.inf
        stayed = view.others.copy()
        _search_tile(tile, moved_centers, moved, view)
        unsure = np.flatnonzero(lost & (view.dist_sq >= stayed))
        if len(unsure):
            again = nothing_found(len(unsure))
            _search_tile(tile[unsure], every_center, everywhere, again)
            view.label[unsure], view.dist_sq[unsure] = again.label, again.dist_sq
            view.others[unsure] = again.others


def _view(found: Assignment, rows: slice) -> Assignment:
    return Assignment(
        label=found.label[rows], dist_sq=found.dist_sq[rows], others=found.others[rows]
    )


def _search_tile(
    rows: CodedRows, centers: CodedRows, ids: Int64[np.ndarray, "m"], found: Assignment
) -> None:
    """Compare the rows with some centres; change the arrays of `found` in place."""
    for low in range(0, len(ids), TILE):
        part = slice(low, low + TILE)
        pairs = open_pairs(rows, centers[part], found.dist_sq, only_nearest=True)
        np.minimum(found.others, pairs.beyond, out=found.others)
        if len(pairs.row) == 0:
            continue
        start = np.flatnonzero(np.diff(pairs.row, prepend=-1))
        row, count = pairs.row[start], np.diff(start, append=len(pairs.row))
        nearest = np.minimum.reduceat(pairs.dist_sq, start)
        is_nearest = np.flatnonzero(pairs.dist_sq == np.repeat(nearest, count))
        _, first = np.unique(pairs.row[is_nearest], return_index=True)
        winner = is_nearest[first]  # the lowest column of equal ones
        pairs.dist_sq[winner] = np.inf
        second = np.minimum.reduceat(pairs.dist_sq, start)
        label, before = ids[part][pairs.column[winner]], found.dist_sq[row]
        closer = (nearest < before) | ((nearest == before) & (label < found.label[row]))
        loser = np.where(closer, before, nearest)
        found.others[row] = np.minimum(found.others[row], np.minimum(second, loser))
        found.label[row] = np.where(closer, label, found.label[row])
        found.dist_sq[row] = np.where(closer, nearest, before)

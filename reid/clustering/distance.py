"""Squared distances between the rows of two tables, worked out where bounds leave them open.

`pair_dist_sq` defines the squared distance of two rows in float32: one order of additions on every
processor. Searches built on `open_pairs` return what comparing these numbers of all pairs would
return, bit for bit. So no result depends on tiles, shards, threads, the library of matrix products
or the kind of processor.

Legend: n rows, m columns (rows of the other table), D feature dimensions, P pairs.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int32, Int64
from torch import Tensor

from reid.clustering.codes import CodedRows, Codes, products
from reid.compiled import compiled

TILE = 1024
"""Rows and columns whose products are held at once."""

_SUMS = 128  # enough to hide the time of an addition
_WIDTH, _ONE = np.uint64(_SUMS), np.uint64(1)  # loops over indices without sign vectorise
_UP = 1 + 2.0**-20  # more than rounding to float32 takes away
_INFINITE = np.int32(0x7F800000)  # the bits of infinity, above those of every finite number


@compiled
def pair_dist_sq(
    rows: Float32[np.ndarray, "n D"],
    columns: Float32[np.ndarray, "m D"],
    row: Int64[np.ndarray, "P"],
    column: Int64[np.ndarray, "P"],
) -> Float32[np.ndarray, "P"]:
    """Return the squared distance (P,) of each pair of a row and a column.

    Term d is added to sum d mod 128, in order of d; then the upper half of the sums is added to the
    lower until one is left. Equal rows get exactly 0.
    """
    result = np.empty(len(row), np.float32)
    sums = np.empty(_SUMS, np.float32)
    num_features = rows.shape[1]
    whole = num_features // _SUMS
    for pair in range(len(row)):
        x, y = rows[row[pair]], columns[column[pair]]
        sums[:] = 0
        for part in range(np.uint64(whole)):
            for lane in range(_WIDTH):
                offset = x[part * _WIDTH + lane] - y[part * _WIDTH + lane]
                sums[lane] += offset * offset
        x, y = x[whole * _SUMS :], y[whole * _SUMS :]
        for lane in range(np.uint64(len(x))):
            offset = x[lane] - y[lane]
            sums[lane] += offset * offset
        width = _WIDTH
        while width > 1:
            width >>= _ONE
            for lane in range(width):
                sums[lane] += sums[lane + width]
        result[pair] = sums[0]
    return result


def _rounding(num_features: int) -> float:
    """Return a bound on the relative error of `pair_dist_sq`: D/128 + 7 additions reach a term."""
    return (num_features / _SUMS + 16) * 2.0**-24


@dataclass(frozen=True, kw_only=True)
class OpenPairs:
    """Pairs (P,) that bounds did not rule out, by row, then column, and their squared distance.

    Every other column is at a squared distance of at least `beyond` (n,) from the row.
    """

    row: Int64[np.ndarray, "P"]
    column: Int64[np.ndarray, "P"]
    dist_sq: Float32[np.ndarray, "P"]
    beyond: Float32[np.ndarray, "n"]


def open_pairs(
    rows: CodedRows,
    columns: CodedRows,
    limit: Float32[np.ndarray, "n"],
    *,
    only_nearest: bool,
) -> OpenPairs:
    """Work out the pairs whose squared distance may be as small as the row's `limit` (n,).

    With `only_nearest`, of these only pairs whose column may be the row's nearest. For tiles: the
    products of all rows and columns are held at once; there is at least one column.
    """
    a, b = rows.codes, columns.codes
    # The distance of two rows differs by at most `reach` from that of their points, whose square is
    # known up to `margin`; as `pair_dist_sq` gives it, squared, it is up to `loss` times off.
    reach = a.slack.astype(np.float64) + b.slack.max()
    margin = a.error * (a.sq_norms.astype(np.float64) + b.sq_norms.max())
    loss = 1 + 2 * _rounding(rows.features.shape[1])

    between, two = _between_points(a, b)
    most = limit.astype(np.float64)
    if only_nearest:
        most = np.minimum(most, loss * (np.sqrt(two[:, 0] + margin) + reach) ** 2)
    threshold = (_UP * ((np.sqrt(loss * most) + reach) ** 2 + margin)).astype(np.float32)
    if isinstance(between, Tensor):
        is_open = between <= torch.from_numpy(threshold).to(between.device)[:, None]
        place = is_open.flatten().nonzero()[:, 0].cpu().numpy()
    else:
        place = np.flatnonzero(between <= threshold[:, None])
    row, column = np.divmod(place, len(columns))

    count = np.bincount(row, minlength=len(rows))
    rest = np.where(count == 0, two[:, 0], np.where(count == 1, two[:, 1], threshold))
    gap = np.maximum(0, np.sqrt(np.maximum(0, rest - margin)) - reach)
    return OpenPairs(
        row=row,
        column=column,
        dist_sq=pair_dist_sq(rows.features, columns.features, row, column),
        beyond=(gap**2 / (loss * _UP)).astype(np.float32),
    )


def _between_points(
    rows: Codes, columns: Codes
) -> tuple[Float32[np.ndarray, "n m"] | Float32[Tensor, "n m"], Float32[np.ndarray, "n 2"]]:
    """Return the squared distances between the points of codes, and the two smallest of each row.

    The second of a single one is infinite.
    """
    product = products(rows, columns)
    if not isinstance(product, Tensor):
        between, two = np.empty(product.shape, np.float32), np.empty((len(product), 2), np.float32)
        row_side, column_side = (rows.sq_norms, rows.scale), (columns.sq_norms, columns.scale)
        _finish(product, *row_side, *column_side, between, two)
        return between, two

    def there(values: Float32[np.ndarray, "x"]) -> Float32[Tensor, "x"]:
        return torch.from_numpy(values).to(product.device)

    on_device = (-2 * there(rows.scale))[:, None] * there(columns.scale) * product
    on_device += there(rows.sq_norms)[:, None]
    on_device += there(columns.sq_norms)
    on_device.clamp_(min=0)
    smallest = torch.full((len(product), 2), torch.inf)
    count = min(2, product.shape[1])
    smallest[:, :count] = on_device.topk(count, dim=1, largest=False).values.cpu()
    return on_device, smallest.numpy()


@compiled
def _finish(
    product: Int32[np.ndarray, "n m"] | Float32[np.ndarray, "n m"],
    row_sq_norms: Float32[np.ndarray, "n"],
    row_scale: Float32[np.ndarray, "n"],
    column_sq_norms: Float32[np.ndarray, "m"],
    column_scale: Float32[np.ndarray, "m"],
    between: Float32[np.ndarray, "n m"],
    two: Float32[np.ndarray, "n 2"],
) -> None:
    """Turn products of codes into squared distances, and find the two smallest of each row.

    Numbers that are not negative are in the order of their bits, and minima of integers vectorise.
    """
    bits, bits_of_two = between.view(np.int32), two.view(np.int32)
    for r in range(len(product)):
        inner, out, out_bits = product[r], between[r], bits[r]
        base, factor = row_sq_norms[r], np.float32(-2) * row_scale[r]
        for c in range(len(out)):
            value = base + column_sq_norms[c] + factor * column_scale[c] * np.float32(inner[c])
            out[c] = value if value > 0 else np.float32(0)
        first = _INFINITE
        for c in range(len(out)):
            first = min(first, out_bits[c])
        second, equal = _INFINITE, np.int32(0)
        for c in range(len(out)):
            second = min(second, out_bits[c] if out_bits[c] != first else _INFINITE)
            equal += np.int32(out_bits[c] == first)
        bits_of_two[r, 0] = first
        bits_of_two[r, 1] = first if equal > 1 else second

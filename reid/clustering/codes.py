"""Rows as 8-bit integers: their products bound distances at a quarter of the price of float32's.

A code stands for the point shift + scale * values, at most `slack` away from the row it was made
of. By the triangle inequality the distance of two rows differs from that of their points by at most
the sum of their slacks, and the products of values are exact integers. The bounds only tell which
distances need computing: they never enter a result, so neither does the kind of processor.

A processor without instructions for 8-bit products (VNNI, AMX) takes the rows themselves as codes;
the rounding of their float32 products is then part of the bound.

Legend: n rows, D feature dimensions.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int8, Int64
from torch import Tensor
from torch.nn import functional as F

from reid.clustering.shards import Shard
from reid.compiled import compiled

CODED = "coded_rows"
"""Where a shard keeps its rows with their codes."""

_LARGEST = 127
_SMALLEST = np.float32(1e-30)  # of coordinates: a step has an inverse
_WITHOUT_SIGN = np.int32(0x7FFFFFFF)
_LANES = 64
_SAMPLE = 256  # rows whose mean becomes the shift: any shift will do, a central one is tight
_ROUNDING = 2.0**-17  # of squared distances of points worked out in float32; see `Codes.error`
_MAX_FEATURES = 2**31 // _LARGEST**2  # beyond, a product could need more than 32 bits
_ALIGNMENT = 32  # a GPU multiplies 8-bit matrices whose sizes are multiples of this

Values = Int8[np.ndarray, "n D"] | Float32[np.ndarray, "n D"] | Int8[Tensor, "n D"]


@dataclass(frozen=True, kw_only=True)
class Codes:
    """Codes of n rows: |row - point| <= `slack`, |point - shift|^2 = `sq_norms`.

    `values` (n,D) int8, or the float32 rows themselves; those of torch are padded with zeros. A
    squared distance of two points worked out from these in float32 is wrong by at most `error`
    times the sum of their `sq_norms`.
    """

    values: Values
    sq_norms: Float32[np.ndarray, "n"]
    scale: Float32[np.ndarray, "n"]
    slack: Float32[np.ndarray, "n"]
    error: float

    def __getitem__(self, rows: slice | Int64[np.ndarray, "m"]) -> "Codes":
        """Return the codes of some of the rows."""
        return replace(
            self,
            values=self.values[rows],
            sq_norms=self.sq_norms[rows],
            scale=self.scale[rows],
            slack=self.slack[rows],
        )


@dataclass(frozen=True, kw_only=True)
class CodedRows:
    """Rows `features` (n,D) float32 with their codes.

    `shift` (D,) is where the codes are counted from; `form` is "float32" for rows that are their
    own codes, "int8", or the torch device that holds the codes' values.
    """

    features: Float32[np.ndarray, "n D"]
    codes: Codes
    shift: Float32[np.ndarray, "D"]
    form: str

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: slice | Int64[np.ndarray, "m"]) -> "CodedRows":
        """Return some of the rows."""
        return replace(self, features=self.features[rows], codes=self.codes[rows])

    def code(self, features: Float32[np.ndarray, "m D"]) -> "CodedRows":
        """Return other rows coded alike, so that distances between both tables can be bounded."""
        return _code(features, self.shift, form=self.form)


def coded_rows(shard: Shard) -> CodedRows:
    """Return a shard's rows with their codes, which are made once and kept with it."""
    if CODED not in shard.derived:
        shard.derived[CODED] = code_rows(np.asarray(shard.features))
    coded: CodedRows = shard.derived[CODED]
    return coded


def code_rows(features: Float32[np.ndarray, "n D"], *, form: str | None = None) -> CodedRows:
    """Return rows with codes of a form (see `CodedRows`), by default the fastest there is.

    A GPU is preferred to a processor that multiplies 8-bit integers, this to float32.
    """
    if form is None:
        eight_bits = "cuda" if torch.cuda.is_available() else "int8" if has_int8_products() else ""
        form = eight_bits if features.shape[1] <= _MAX_FEATURES and eight_bits else "float32"
    sample = features[:: max(1, len(features) // _SAMPLE)]
    shift = sample.mean(axis=0) if len(sample) else np.zeros(features.shape[1], np.float32)
    return _code(features, shift, form=form)


@cache
def has_int8_products() -> bool:
    """Tell whether the processor multiplies 8-bit integers exactly, and faster than float32."""
    abilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(abilities.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))


def _code(
    features: Float32[np.ndarray, "n D"], shift: Float32[np.ndarray, "D"], *, form: str
) -> CodedRows:
    if form == "float32":
        codes, shift = _uncoded(features), np.zeros_like(shift)
    else:
        codes = _quantized(features, shift)
        if form != "int8":
            values = torch.from_numpy(codes.values).to(form)
            codes = replace(codes, values=F.pad(values, (0, -values.shape[1] % _ALIGNMENT)))
    return CodedRows(features=features, codes=codes, shift=shift, form=form)


def _uncoded(features: Float32[np.ndarray, "n D"]) -> Codes:
    """Return the rows as their own codes.

    A sum of D products in any order is wrong by at most D * 2^-24 * |x||y| (Higham 2002, equation
    3.5), twice that in the squared distance, and 2|x||y| <= |x|^2 + |y|^2.
    """
    count, num_features = features.shape
    return Codes(
        values=features,
        sq_norms=np.einsum("nd,nd->n", features, features),
        scale=np.ones(count, np.float32),
        slack=np.zeros(count, np.float32),
        error=_ROUNDING + 2 * num_features * 2.0**-24,
    )


def _quantized(features: Float32[np.ndarray, "n D"], shift: Float32[np.ndarray, "D"]) -> Codes:
    count, num_features = features.shape
    values = np.empty((count, num_features), np.int8)
    sq_norms, scale, rest_sq_norms = np.empty((3, count), np.float32)
    _quantize(features, shift, values, sq_norms, scale, rest_sq_norms)
    # A sum of D squares is wrong by a share of D * 2^-24 at most. Subtracting the shift, scaling
    # and subtracting again round by 2^-24 of the row or of the point.
    larger = 1 + 2.0**-10 + num_features * 2.0**-24
    slack = larger * (np.sqrt(rest_sq_norms) + 2.0**-21 * np.sqrt(sq_norms))
    return Codes(
        values=values,
        sq_norms=sq_norms,
        scale=scale,
        slack=slack.astype(np.float32),
        error=_ROUNDING,
    )


@compiled
def _quantize(
    features: Float32[np.ndarray, "n D"],
    shift: Float32[np.ndarray, "D"],
    values: Int8[np.ndarray, "n D"],
    sq_norms: Float32[np.ndarray, "n"],
    scale: Float32[np.ndarray, "n"],
    rest_sq_norms: Float32[np.ndarray, "n"],
) -> None:
    """Round each row to -127..127 steps of its own; write what the rounding leaves.

    Sums go to 64 lanes, and the largest of numbers without sign is that of their bits: so the
    loops vectorise.
    """
    rest = np.empty(features.shape[1], np.float32)
    bits = rest.view(np.int32)
    lanes = np.empty(_LANES, np.float32)
    peak_bits = np.empty(1, np.int32)
    peak = peak_bits.view(np.float32)
    for r in range(len(features)):
        row, value = features[r], values[r]
        largest = np.int32(0)
        for d in range(len(row)):
            rest[d] = row[d] - shift[d]
        for d in range(len(row)):
            largest = max(largest, bits[d] & _WITHOUT_SIGN)
        peak_bits[0] = largest
        step, steps = np.float32(0), np.float32(0)
        if peak[0] > _SMALLEST:
            step = peak[0] / np.float32(_LARGEST)
            steps = np.float32(1) / step
        total = np.int32(0)
        for d in range(len(row)):
            rounded = np.rint(rest[d] * steps)
            whole = np.int32(rounded)
            value[d] = whole
            total += whole * whole
            rest[d] -= step * rounded
        lanes[:] = 0
        for low in range(0, len(row), _LANES):
            part = rest[low : low + _LANES]
            for lane in range(len(part)):
                lanes[lane] += part[lane] * part[lane]
        scale[r] = step
        sq_norms[r] = np.float32(total) * step * step
        rest_sq_norms[r] = lanes.sum()


def products(rows: Codes, columns: Codes) -> np.ndarray | Tensor:
    """Return the products of all rows with all columns (n,m), int32 or float32, on their device."""
    a, b = rows.values, columns.values
    if isinstance(a, Tensor):
        assert isinstance(b, Tensor)
        wide, high = (
            F.pad(b, (0, 0, 0, -len(b) % _ALIGNMENT)),
            F.pad(a, (0, 0, 0, -len(a) % _ALIGNMENT)),
        )
        return torch._int_mm(high, wide.T)[: len(a), : len(b)]
    assert isinstance(b, np.ndarray)
    if a.dtype == np.float32:
        return a @ b.T
    return torch._int_mm(torch.from_numpy(a), torch.from_numpy(b).T).numpy()

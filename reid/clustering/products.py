"""Products of rows with rows in the fastest precision of a processor, and a bound on their error.

Legend: n, m rows of two tables, D feature dimensions.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

_UNIT = 2.0**-24  # unit roundoff of float32
_BFLOAT16_UNIT = 2.0**-8
PIECE = 128
"""Rows taken at a time where a copy of them is needed: few enough to stay in a core's cache."""

_ENOUGH = 1.3  # bfloat16 costs conversions and wider bounds: it must be faster by more than that


@dataclass(frozen=True, kw_only=True)
class Product:
    """A way to multiply rows with rows, and how far it can be from the truth.

    `prepare` rounds the difference of rows (n,D) and a center (D,) to an operand, `widen` turns
    that back into float32, exactly, and `multiply` returns the products (n,m) of two operands. The
    product of rounded rows x and y is wrong by at most (`growth(D)` + `output_error`) |x| |y|.
    """

    name: str
    prepare: Callable[[Float32[np.ndarray, "n D"], Float32[np.ndarray, "D"]], Any]
    widen: Callable[[Any], Float32[np.ndarray, "n D"]]
    multiply: Callable[[Any, Any], Float32[np.ndarray, "n m"]]
    output_error: float


def growth(num_features: int) -> float:
    """Return the bound on the error of a sum of D products in float32, over |x| |y|.

    Two roundings a term, whatever the order of the sum, with room for higher orders: Higham,
    "Accuracy and Stability of Numerical Algorithms", section 3.1.
    """
    return (2.1 * num_features + 16) * _UNIT


def sq_norm(rows: Float32[np.ndarray, "n D"]) -> Float32[np.ndarray, "n"]:
    """Return |x|^2 of rows, within `growth(D)` of it."""
    result: np.ndarray = np.einsum("nd,nd->n", rows, rows)
    return result


def _difference(
    rows: Float32[np.ndarray, "n D"], center: Float32[np.ndarray, "D"]
) -> Float32[np.ndarray, "n D"]:
    difference: np.ndarray = rows - center
    return difference


def _same(operand: Any) -> Any:
    return operand


def _multiply_float32(left: Any, right: Any) -> Float32[np.ndarray, "n m"]:
    product: np.ndarray = left @ right.T  # numpy's: a sixth faster than torch's on AMD processors
    return product


def _to_bfloat16(
    rows: Float32[np.ndarray, "n D"], center: Float32[np.ndarray, "D"]
) -> torch.Tensor:
    operand = torch.empty(rows.shape, dtype=torch.bfloat16)
    for low in range(0, len(rows), PIECE):
        part = slice(low, low + PIECE)
        operand[part] = torch.from_numpy(rows[part] - center)
    return operand


def _to_float32(operand: torch.Tensor) -> Float32[np.ndarray, "n D"]:
    rows: np.ndarray = operand.float().numpy()
    return rows


def _multiply_bfloat16(left: torch.Tensor, right: torch.Tensor) -> Float32[np.ndarray, "n m"]:
    return _to_float32(torch.mm(left, right.T))


FLOAT32 = Product(
    name="float32",
    prepare=_difference,
    widen=_same,
    multiply=_multiply_float32,
    output_error=0.0,
)
BFLOAT16 = Product(
    name="bfloat16",
    prepare=_to_bfloat16,
    widen=_to_float32,
    multiply=_multiply_bfloat16,
    output_error=1.01 * _BFLOAT16_UNIT,
)


@cache
def fastest_product() -> Product:
    """Return the product that a short trial on this processor finds to be the fastest.

    For results only that do not depend on the choice.
    """
    rows, center = np.ones((1024, 1024), dtype=np.float32), np.zeros(1024, dtype=np.float32)
    seconds = {}
    for product in (FLOAT32, BFLOAT16):
        # Two operands: numpy halves the work of a matrix with itself.
        left, right = product.prepare(rows[::2], center), product.prepare(rows[1::2], center)
        trials = []
        for _ in range(6):
            started = time.process_time()
            product.multiply(left, right)
            trials.append(time.process_time() - started)
        seconds[product.name] = min(trials)
    wins = _ENOUGH * seconds[BFLOAT16.name] < seconds[FLOAT32.name]
    return BFLOAT16 if wins else FLOAT32

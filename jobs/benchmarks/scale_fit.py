"""Power laws through measured rows, by least squares of logarithms.

Legend: M measurements, F factors.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs.planning.rates import Factor, PowerLaw

FACTORS: Mapping[str, Mapping[str, float]] = {
    "codes": {"num_rows": 1, "num_features": 1},
    "greedy": {"num_rows": 1, "num_features": 1, "num_clusters": 1},
    "parallel": {"num_rows": 1, "num_features": 1, "num_clusters": 1},
    "lloyd": {"num_rows": 1, "num_features": 1, "num_clusters": 1},
    "hierarchy": {"num_rows": 1, "num_features": 1, "num_clusters": 0.5},
    "neighbors": {"num_rows": 2, "num_features": 1},
    "jaccard": {"num_rows": 1, "num_features": 0},
    "dbscan": {"num_rows": 1, "num_features": 0},
}
"""what each stage's time may depend on, and the exponents of its counted operations"""

LAWS = ("greedy", "parallel", "lloyd", "hierarchy", "neighbors", "jaccard")
"""stages whose laws `jobs.plan` uses"""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """seconds = exp(level) * product of (factor / its geometric mean) ^ exponent.

    `errors` are standard errors of the exponents, NaN where no measurement is left over; `r2` is
    the share of the variance of the logarithms that the law explains.
    """

    exponents: Mapping[str, float]
    errors: Mapping[str, float]
    centers: Mapping[str, float]
    level: float
    r2: float
    num_points: int

    def __call__(self, **factors: float) -> float:
        """Return the seconds that the law says."""
        log = self.level + sum(
            exponent * math.log(factors[name] / self.centers[name])
            for name, exponent in self.exponents.items()
        )
        return math.exp(log)


def fit(factors: Mapping[str, Sequence[float]], seconds: Sequence[float]) -> Fit:
    """Return the power law of `factors`, each with M values, through M times.

    A factor that does not vary, or not apart from those before it, has no exponent. ValueError for
    fewer points than unknowns.
    """
    y = np.log(np.asarray(seconds, float))
    logs: dict[str, np.ndarray] = {}
    for name, values in factors.items():
        log = np.log(np.asarray(values, float))
        tried = np.stack([*logs.values(), log - log.mean()], 1)
        if np.linalg.matrix_rank(tried, tol=1e-6) > len(logs):
            logs[name] = log - log.mean()
    num_points, num_unknowns = len(y), len(logs) + 1
    if num_points < num_unknowns:
        raise ValueError(f"{num_points} measurements cannot tell {num_unknowns} unknowns")
    x = np.stack(list(logs.values()), 1)
    slope = np.linalg.lstsq(x, y - y.mean(), rcond=None)[0]
    rest = y - y.mean() - x @ slope
    left_over = num_points - num_unknowns
    variance = float(rest @ rest) / left_over if left_over else math.nan
    errors = np.sqrt(variance * np.diag(np.linalg.inv(x.T @ x)))
    total = float(np.square(y - y.mean()).sum())
    return Fit(
        exponents=dict(zip(logs, slope.tolist(), strict=True)),
        errors=dict(zip(logs, errors.tolist(), strict=True)),
        centers={name: float(np.exp(np.log(factors[name]).mean())) for name in logs},
        level=float(y.mean()),
        r2=1 - float(rest @ rest) / total,
        num_points=num_points,
    )


def of_one_shard(rows: Sequence[Mapping[str, Any]], stage: str) -> list[Mapping[str, Any]]:
    """Return the measured rows of a stage in one shard."""
    return [r for r in rows if r["stage"] == stage and r["num_shards"] == 1 and "cpu_s" in r]


def fits(rows: Sequence[Mapping[str, Any]]) -> dict[str, Fit]:
    """Return the law of each stage in its factors; stages with too few rows are left out."""
    found = {}
    for stage, names in FACTORS.items():
        own = of_one_shard(rows, stage)
        factors = {name: [row[name] for row in own] for name in names}
        varying = sum(len(set(values)) > 1 for values in factors.values())
        if varying and len(own) > varying + 1:
            found[stage] = fit(factors, [row["cpu_s"] for row in own])
    return found


def power_law(rows: Sequence[Mapping[str, Any]], stage: str) -> PowerLaw | None:
    """Return the law of a stage as `jobs.plan` uses it; None where too little was measured."""
    found = fits(rows).get(stage)
    if found is None or "num_features" not in found.exponents:
        return None
    own = of_one_shard(rows, stage)
    middles = {name: _three_digits(center) for name, center in found.centers.items()}
    factors = {
        name: Factor(
            middle=middles[name],
            exponent=round(found.exponents[name], 3),
            error=round(found.errors[name], 3),
            largest=max(row[name] for row in own),
            counted=FACTORS[stage][name],
        )
        for name in found.exponents
    }
    return PowerLaw(
        seconds=_three_digits(found(**middles)),
        rows=factors["num_rows"],
        features=factors["num_features"],
        clusters=factors.get("num_clusters"),
    )


def _three_digits(value: float) -> float:
    return float(f"{value:.3g}")

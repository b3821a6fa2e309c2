"""Pseudo-labels against what people use: scikit-learn, FAISS, and the released N x N code.

    python -m jobs.benchmark clustering

Parity is checked before any time counts; a failed check voids the row. Features are made: unit
length, identities of low rank, shifted by camera, noise.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import Group

from jobs.benchmarks import clustering_kmeans, clustering_sparse
from jobs.benchmarks.features import made_features
from jobs.benchmarks.timing import measured, tables_of_compared
from jobs.console import Show


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Clustering against its peers, in processor time."""

    num_images: int = 12_936
    """rows, as Market-1501's training set"""
    num_features: int = 2048
    """dimensions of a row"""
    num_clusters: int = 700
    """clusters of k-means"""
    repeats: int = 5
    """measured turns of every case"""
    only: str = ""
    """measure the cases whose name has these words"""
    json: str | None = None
    """file to write the rows to"""


def measure(options: Options, *, show: Show) -> list[dict[str, Any]]:
    """Check and time every case; return one row a case."""
    show("comparisons", 0, 1, "made features")
    features = made_features(options.num_images, options.num_features)
    cases = {
        "k-means": clustering_kmeans.cases(features, options.num_clusters),
        "clustering": clustering_sparse.cases(features),
    }
    named = [(group, case) for group, mine in cases.items() for case in mine]
    every = [(group, case) for group, case in named if options.only in case.name]
    if not every:
        names = ", ".join(case.name for _, case in named)
        raise ValueError(f"no case has {options.only!r} in its name; there are {names}")
    rows = []
    for done, (group, case) in enumerate(every):
        show("comparisons", done, len(every), case.name)
        row = measured(case, repeats=options.repeats)
        rows.append(row | {"case": f"{group}: {case.name}"})
    show("comparisons", len(every), len(every), "")
    return rows


def table_of(rows: Sequence[dict[str, Any]]) -> Group:
    """Return the rows, a table for each peer."""
    return tables_of_compared(rows)

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
from jobs.benchmarks.timing import tables_of_compared
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
    json: str | None = None
    """file to write the rows to"""


def measure(options: Options, *, show: Show) -> list[dict[str, Any]]:
    """Check and time every case; return one row a case."""
    rows = clustering_kmeans.measure(
        num_rows=options.num_images,
        num_features=options.num_features,
        num_clusters=options.num_clusters,
        repeats=options.repeats,
        show=show,
    )
    for row in rows:
        row["case"] = f"k-means: {row['case']}"
    features = clustering_sparse.made_features(options.num_images, options.num_features)
    return rows + clustering_sparse.rows(features, repeats=options.repeats, show=show)


def table_of(rows: Sequence[dict[str, Any]]) -> Group:
    """Return the rows, a table for each peer."""
    return tables_of_compared(rows)

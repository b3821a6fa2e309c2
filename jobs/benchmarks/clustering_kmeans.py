"""Processor time of k-means against scikit-learn's seeding and FAISS's iterations.

Made features have the structure of real ones: identities and cameras in a space of few dimensions,
spread within an identity, noise in all dimensions, unit length. Each pair is timed in turns, and
what the timed runs return must agree in quality, or the comparison is void (`parity`).

Legend: N rows, D feature dimensions, K clusters.
"""

import dataclasses
import statistics
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import numpy as np
from jaxtyping import Float32
from sklearn.cluster import kmeans_plusplus

from jobs.benchmarks.timing import compared, interleaved
from jobs.console import Show
from reid.clustering import greedy_kmeans_plusplus, split
from reid.clustering.assignment import nothing_found, search
from reid.clustering.codes import CODED, code_rows
from reid.clustering.lloyd import KMeansResult, lloyd
from reid.clustering.nearest import faiss_kmeans

_MOST_POTENTIAL = 1.005  # times the peer's median
_MOST_INERTIA = 1.001


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """Two ways to one result, and what makes them comparable.

    `units` are iterations, or 1; `parity` is asked after the runs and returns what it compared.
    """

    name: str
    peer: str
    ours: Callable[[], object]
    theirs: Callable[[], object]
    units: int
    parity: Callable[[], str]


def made_features(
    num_rows: int,
    num_features: int,
    *,
    num_identities: int = 751,
    num_cameras: int = 6,
    rank: int = 128,
    seed: int = 0,
) -> Float32[np.ndarray, "N D"]:
    """Return unit features (N,D) of low-rank identities, shifted by camera, with noise."""
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(rank, num_features)) / np.sqrt(rank)
    identity = rng.normal(size=(num_identities, rank))[rng.integers(num_identities, size=num_rows)]
    camera = 0.35 * rng.normal(size=(num_cameras, rank))[rng.integers(num_cameras, size=num_rows)]
    spread = 0.6 * rng.normal(size=(num_rows, rank))
    rows = (identity + camera + spread) @ basis
    rows += rng.normal(size=rows.shape)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


def potential(features: Float32[np.ndarray, "N D"], centers: Float32[np.ndarray, "K D"]) -> float:
    """Return the sum of squared distances of rows to their nearest centre."""
    rows, found = code_rows(features), nothing_found(len(features))
    search(rows, rows.code(centers), np.arange(len(centers)), found)
    return float(found.dist_sq.sum(dtype=np.float64))


def seeding_case(features: Float32[np.ndarray, "N D"], num_clusters: int) -> Case:
    """Return greedy k-means++ beside scikit-learn's; each run takes the next seed."""
    seed, peer_seed = count(), count()
    found: list[np.ndarray] = []
    peer_found: list[np.ndarray] = []

    def ours() -> None:
        found.append(greedy_kmeans_plusplus(split(features, 1), num_clusters, seed=next(seed)))

    def theirs() -> None:
        _, rows = kmeans_plusplus(features, num_clusters, random_state=next(peer_seed))
        peer_found.append(np.asarray(rows))

    def parity() -> str:
        mine, peers = (
            statistics.median(potential(features, features[rows]) for rows in runs)
            for runs in (found, peer_found)
        )
        return _compared("potential", mine / peers, at_most=_MOST_POTENTIAL)

    return Case(
        name=f"greedy k-means++, k={num_clusters}",
        peer="scikit-learn kmeans_plusplus, float32",
        ours=ours,
        theirs=theirs,
        units=1,
        parity=parity,
    )


def lloyd_cases(features: Float32[np.ndarray, "N D"], num_clusters: int) -> list[Case]:
    """Return Lloyd's iterations to the end beside as many of FAISS, from the same first centres.

    With the codes of this machine, which are made anew in each run, and with float32 products.
    """
    init = features[greedy_kmeans_plusplus(split(features, 1), num_clusters, seed=0)]
    result = lloyd(split(features, 1), init, max_iterations=100)
    theirs = partial(faiss_kmeans, features, init, iterations=result.iterations)

    def ours(form: str | None) -> KMeansResult:
        pool = split(features, 1)
        for shard in pool.shards:
            shard.derived[CODED] = code_rows(shard.features, form=form)
        return lloyd(pool, init, max_iterations=100)

    def parity() -> str:
        ratio = result.inertia / potential(features, theirs())
        return _compared("inertia", ratio, at_most=_MOST_INERTIA)

    return [
        Case(
            name=f"Lloyd iteration, k={num_clusters}, {name}",
            peer="faiss.Kmeans",
            ours=partial(ours, form),
            theirs=theirs,
            units=result.iterations,
            parity=parity,
        )
        for name, form in (("codes of this machine", None), ("float32 products", "float32"))
    ]


def _compared(what: str, ratio: float, *, at_most: float) -> str:
    if ratio > at_most:
        raise ValueError(f"{what} is {ratio:.4f} of the peer's, above {at_most}: no comparison")
    return f"{what} {ratio:.4f} of the peer's"


def measure(
    *,
    num_rows: int = 12_936,
    num_features: int = 2048,
    num_clusters: int = 700,
    repeats: int = 5,
    seed: int = 0,
    show: Show,
) -> list[dict[str, Any]]:
    """Run every case; return one row a case, of processor seconds a unit."""
    features = made_features(num_rows, num_features, seed=seed)
    cases = [seeding_case(features, num_clusters), *lloyd_cases(features, num_clusters)]
    rows = []
    for done, case in enumerate(cases):
        show("k-means", done, len(cases), case.name)
        seconds = interleaved({"ours": case.ours, "theirs": case.theirs}, repeats=repeats)
        rows.append(
            compared(
                case.name,
                seconds["ours"],
                peer=case.peer,
                theirs=seconds["theirs"],
                parity=case.parity(),
                per=case.units,
            )
        )
    show("k-means", len(cases), len(cases), "")
    return rows

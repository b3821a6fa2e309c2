"""k-means against scikit-learn's seeding and FAISS's iterations.

Seeds and centres differ, so parity is one of quality: potential, and inertia.

Legend: N rows, D feature dimensions, K clusters.
"""

import statistics
from collections.abc import Sequence
from functools import partial
from itertools import count

import numpy as np
from jaxtyping import Float32, Int64
from sklearn.cluster import kmeans_plusplus

from jobs.benchmarks.timing import Case
from reid.clustering import LocalShardPool, greedy_kmeans_plusplus, split
from reid.clustering.assignment import nothing_found, search
from reid.clustering.codes import CODED, code_rows
from reid.clustering.lloyd import KMeansResult, lloyd
from reid.clustering.nearest import faiss_kmeans

_MOST_POTENTIAL = 1.005  # times the peer's median
_MOST_INERTIA = 1.001
_SEEDS = 5  # whose median potentials are compared


def potential(features: Float32[np.ndarray, "N D"], centers: Float32[np.ndarray, "K D"]) -> float:
    """Return the sum of squared distances of rows to their nearest centre."""
    rows, found = code_rows(features), nothing_found(len(features))
    search(rows, rows.code(centers), np.arange(len(centers)), found)
    return float(found.dist_sq.sum(dtype=np.float64))


def cases(features: Float32[np.ndarray, "N D"], num_clusters: int) -> list[Case]:
    """Return all comparisons on features (N,D)."""
    seedings = [seeding_case(features, num_clusters, form) for form in FORMS]
    return seedings + lloyd_cases(features, num_clusters)


FORMS = {"codes of this machine": None, "float32 products": "float32"}
"""How distances are bounded: as fast as this machine can, or as any can."""


def pool_of(features: Float32[np.ndarray, "N D"], form: str | None) -> LocalShardPool:
    """Return the rows as a pool whose codes, made anew, are of a form."""
    pool = split(features, 1)
    for shard in pool.shards:
        shard.derived[CODED] = code_rows(shard.features, form=form)
    return pool


def seeding_case(features: Float32[np.ndarray, "N D"], num_clusters: int, form: str) -> Case:
    """Return greedy k-means++ beside scikit-learn's; each run takes the next seed."""
    seed, peer_seed = count(), count()

    def ours() -> Int64[np.ndarray, "K"]:
        pool = pool_of(features, FORMS[form])
        return greedy_kmeans_plusplus(pool, num_clusters, seed=next(seed))

    def theirs() -> Int64[np.ndarray, "K"]:
        _, rows = kmeans_plusplus(features, num_clusters, random_state=next(peer_seed))
        return np.asarray(rows, dtype=np.int64)

    def parity(*sides: Sequence[Int64[np.ndarray, "K"]]) -> str:
        mine, peers = (
            statistics.median(potential(features, features[rows]) for rows in side)
            for side in sides
        )
        return _compared("potential", mine / peers, at_most=_MOST_POTENTIAL)

    return Case(
        name=f"greedy k-means++, k={num_clusters}, {form}",
        peer="scikit-learn kmeans_plusplus, float32",
        ours=ours,
        theirs=theirs,
        parity=parity,
        tries=_SEEDS,
    )


def lloyd_cases(features: Float32[np.ndarray, "N D"], num_clusters: int) -> list[Case]:
    """Return Lloyd's iterations to the end beside as many of FAISS, from the same first centres."""
    init = features[greedy_kmeans_plusplus(split(features, 1), num_clusters, seed=0)]
    result = lloyd(split(features, 1), init, max_iterations=100)
    theirs = partial(faiss_kmeans, features, init, iterations=result.iterations)

    def ours(form: str) -> KMeansResult:
        return lloyd(pool_of(features, FORMS[form]), init, max_iterations=100)

    def parity(mine: Sequence[KMeansResult], peers: Sequence[np.ndarray]) -> str:
        ratio = mine[0].inertia / potential(features, peers[0])
        return _compared("inertia", ratio, at_most=_MOST_INERTIA)

    return [
        Case(
            name=f"Lloyd iteration, k={num_clusters}, {form}",
            peer="faiss.Kmeans",
            ours=partial(ours, form),
            theirs=theirs,
            parity=parity,
            units=result.iterations,
        )
        for form in FORMS
    ]


def _compared(what: str, ratio: float, *, at_most: float) -> str:
    if ratio > at_most:
        raise ValueError(f"{what} is {ratio:.4f} of the peer's, above {at_most}: no comparison")
    return f"{what} {ratio:.4f} of the peer's"

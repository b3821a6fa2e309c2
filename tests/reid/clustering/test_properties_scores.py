"""Figures of any small clustering: scikit-learn, counting, and one answer for all shards."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    adjusted_rand_score,
    normalized_mutual_info_score,
    silhouette_samples,
)

from reid.clustering.health import health
from reid.clustering.partitions import (
    adjusted_rand_index,
    contingency,
    mixing,
    normalized_mutual_information,
    purity,
)
from reid.clustering.scores import scores
from reid.types import OUTLIER, PseudoLabels
from tests.reid.clustering.references import neighbor_agreement
from tests.reid.clustering.strategies import answers, features, labels, tables, two_pools

pytestmark = pytest.mark.usefixtures("small_blocks")

two_labellings = st.integers(0, 40).flatmap(lambda n: st.tuples(labels(n), labels(n)))


@settings(max_examples=150)
@given(both=two_labellings)
def test_agreements_are_scikit_learns(both: tuple[np.ndarray, np.ndarray]) -> None:
    first, second = both
    ari, nmi = adjusted_rand_index(first, second), normalized_mutual_information(first, second)
    assert ari == pytest.approx(adjusted_rand_score(first, second), abs=1e-12)
    assert nmi == pytest.approx(normalized_mutual_info_score(first, second), abs=1e-12)


@settings(max_examples=100)
@given(both=two_labellings)
def test_figures_are_those_of_counting(both: tuple[np.ndarray, np.ndarray]) -> None:
    found, truth = both
    pairs = list(zip(found.tolist(), truth.tolist(), strict=True))
    sizes = contingency(found, truth)
    assert sorted(sizes.both.tolist()) == sorted(Counter(pairs).values())
    kept = [(cluster, value) for cluster, value in pairs if cluster != OUTLIER]
    clusters: dict[int, list[int]] = {}
    for cluster, value in kept:
        clusters.setdefault(cluster, []).append(value)
    main = sum(Counter(values).most_common(1)[0][1] for values in clusters.values())
    assert purity(found, truth) == (main / len(kept) if kept else None)

    def entropy(values: list[int]) -> float:
        return -sum(n / len(values) * math.log(n / len(values)) for n in Counter(values).values())

    over_all = entropy([value for _, value in kept]) if kept else 0
    within = sum(len(v) / len(kept) * entropy(v) for v in clusters.values())
    expected = within / over_all if over_all else None
    assert mixing(found, truth) == (
        None if expected is None else pytest.approx(expected, abs=1e-12)
    )

    figures = health(
        PseudoLabels(labels=found, centers=np.zeros((found.max(initial=-1) + 1, 1), np.float32))
    )
    counts = sorted(map(len, clusters.values()))
    assert figures["num_clusters"] == len(counts)
    assert figures["num_outliers"] == len(pairs) - len(kept)
    assert figures["singletons"] == counts.count(1)
    if counts:
        assert (figures["smallest_size"], figures["largest_size"]) == (counts[0], counts[-1])
        assert figures["median_size"] == np.median(counts)
        assert figures["largest_cluster"] == counts[-1] / len(kept)


@settings(max_examples=100)
@given(
    rows=st.one_of(tables(offsets=(0,)), features()),
    shards=two_pools,
    k=st.integers(1, 12),
    data=st.data(),
)
def test_scores_are_the_definitions(
    rows: np.ndarray, shards: tuple[int, int], k: int, data: st.DataObject
) -> None:
    named = data.draw(labels(len(rows)))
    centers = np.zeros((named.max() + 1, rows.shape[1]), dtype=np.float32)
    for label in set(named.tolist()) - {OUTLIER}:
        centers[label] = rows[named == label].mean(axis=0, dtype=np.float64)
    found = PseudoLabels(labels=named, centers=centers)
    ours, other = answers(
        rows, shards, lambda pool: scores(pool, found, num_sampled=len(rows), num_neighbors=k)
    )
    assert ours == other  # bit for bit
    expected: dict[str, Any] = {}
    kept = named != OUTLIER
    if len(set(named[kept])) > 1:
        each = np.zeros(int(kept.sum()))
        if len(set(named[kept])) < len(each):  # scikit-learn refuses nothing but single rows
            each = silhouette_samples(rows[kept], named[kept], metric="sqeuclidean")
        expected["silhouette"] = each.mean()
    if (share := neighbor_agreement(rows, named, np.arange(len(rows)), k)) is not None:
        expected["neighbor_agreement"] = share
    assert ours == pytest.approx(expected, abs=1e-5)

"""Jaccard distances: published vectors, the textbook's dense way, and sameness over shards."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import sparse

from reid.clustering import camera_jaccard_distance, jaccard_distance, split
from tests.reid.clustering.references import dense, squared

Golden = Callable[[str], dict[str, np.ndarray]]
Make = Callable[..., np.ndarray]
SHARDS = [2, 3, 8, 16]


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def assert_same(ours: sparse.csr_array, expected: sparse.csr_array) -> None:
    np.testing.assert_array_equal(ours.indptr, expected.indptr)
    np.testing.assert_array_equal(ours.indices, expected.indices)
    np.testing.assert_array_equal(ours.data, expected.data)


@pytest.mark.parametrize("name", ["jaccard_a", "jaccard_b", "jaccard_c"])
def test_published_distances(name: str, golden: Golden) -> None:
    vectors = golden(name)
    ours = jaccard_distance(vectors["features"], k1=int(vectors["k1"]), k2=int(vectors["k2"]))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(dense(ours), vectors["distance"], rtol=0, atol=2e-6)


def test_published_reranking(golden: Golden) -> None:
    vectors = golden("rerank_k_reciprocal")
    features = np.concatenate([vectors["query"], vectors["gallery"]])
    ours = jaccard_distance(
        features, k1=int(vectors["k1"]), k2=int(vectors["k2"]), definition="torchreid"
    )
    original = squared(features) ** 2
    original /= original.max(axis=1, keepdims=True)
    weight = float(vectors["lambda_value"])
    mixed = (1 - weight) * dense(ours) + weight * original
    num_queries = len(vectors["query"])
    np.testing.assert_allclose(
        mixed[:num_queries, num_queries:], vectors["distance"], rtol=0, atol=2e-6
    )


def test_equal_rows_are_at_no_distance_and_stored(identities: Make) -> None:
    features = identities(400, 16, 30, seed=5)
    features[350:] = features[:50]
    ours = jaccard_distance(features, k1=10)
    entries = ours.tocoo()
    stored = set(zip(entries.row, entries.col, strict=True))
    assert all((i, i) in stored for i in range(400))
    assert all((i, 350 + i) in stored for i in range(50))
    assert (ours.diagonal() == 0).all()
    assert (dense(ours)[np.arange(50), np.arange(350, 400)] < 0.5).all()


@pytest.mark.parametrize("num_shards", SHARDS)
def test_the_same_bits_for_any_number_of_shards(num_shards: int, identities: Make) -> None:
    features = identities(2500, 16, 90, seed=9)
    features[-70:] = features[:70]
    camid = generator(10).integers(6, size=2500)
    pool = split(features, num_shards)
    for options in ({}, {"definition": "zhong", "k1": 20, "max_distance": 0.7}):
        assert_same(jaccard_distance(pool, **options), jaccard_distance(features, **options))
    assert_same(camera_jaccard_distance(pool, camid), camera_jaccard_distance(features, camid))


def test_features_far_apart_keep_to_themselves(identities: Make) -> None:
    features = 1e4 * identities(200, 16, 20, seed=11)
    ours = jaccard_distance(features, k1=6, k2=1)
    np.testing.assert_array_equal(ours.toarray(), np.zeros((200, 200)))
    assert ours.nnz == 200


def test_bad_questions_are_refused(identities: Make) -> None:
    features = identities(30, 4, 5, seed=12)
    camid = np.zeros(30, dtype=np.int64)
    for k1, k2 in ((0, 0), (5, 6), (5, 0)):
        with pytest.raises(ValueError, match=f"k1 is {k1} and k2 is {k2}: choose"):
            jaccard_distance(features, k1=k1, k2=k2)
    for limit in (0.0, 1.5, np.nan):
        with pytest.raises(ValueError, match="max_distance is"):
            jaccard_distance(features, max_distance=limit)
    with pytest.raises(ValueError, match="no rows"):
        jaccard_distance(features[:0])
    with pytest.raises(ValueError, match="29 cameras for 30 rows"):
        camera_jaccard_distance(features, camid[1:])
    # More rows to average than a list holds once were cut off in silence.
    for wrong in ({"k1_intra": 0}, {"k2_intra": 6}, {"k2_inter": 21}, {"k2_inter": -1}):
        (named,) = (f"{name} is {k}|{name} {k}" for name, k in wrong.items())
        with pytest.raises(ValueError, match=f"({named}).*choose k1_inter from 1 on"):
            camera_jaccard_distance(features, camid, **wrong)

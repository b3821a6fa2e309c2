"""Cluster-Contrast against its formulas, recomputed from what the network says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.cluster import DBSCAN

from reid.clustering import DBSCANConfig, jaccard_distance, split
from reid.recipes import RUNS
from reid.recipes.cluster_contrast import ClusterContrastConfig
from reid.types import OUTLIER, Batch, PseudoLabels
from tests.reid.clustering.references import dense

K, C = 5, 512
LABELS = torch.tensor([0, 0, 0, 3, 3, 4, 4, 4])


@pytest.fixture
def make(tiny_configs, make_recipe):
    def go(**changes):
        recipe = make_recipe(replace(tiny_configs["cluster_contrast"], **changes))
        centers = drawn(K, C, seed=1).numpy()
        recipe.begin_round({"global": PseudoLabels(labels=np.zeros(64, int), centers=centers)})
        recipe.networks.train()
        return recipe

    return go


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(seed=0):
    zeros = torch.zeros(8, dtype=torch.int64)
    images = drawn(8, 3, 32, 16, seed=seed)
    labels = {"global": LABELS}
    return Batch(images=images, index=torch.arange(8), labels=labels, camid=zeros)


def unit(row):
    return row / np.linalg.norm(row)


def features_of(recipe, given):
    with torch.no_grad():  # in training mode: outputs do not depend on running statistics
        found = recipe.student(given.images).embedding
    return np.stack([unit(row) for row in found.double().numpy()])


def test_the_memory_begins_a_round_with_the_unit_means_of_clusters(make, identities_of):
    features = identities_of(64)
    recipe = make(dbscan=DBSCANConfig(k1=6, k2=2, eps=0.4, min_samples=3))
    found = recipe.label({"global": split(features, 1)}, round=0)["global"]
    search = DBSCAN(eps=0.4, min_samples=3, metric="precomputed")
    expected = search.fit_predict(dense(jaccard_distance(features, k1=6, k2=2)))
    np.testing.assert_array_equal(found.labels, expected)
    recipe.begin_round({"global": found})
    assert 2 <= found.num_clusters < 64
    assert (found.labels == OUTLIER).any()
    for cluster, row in enumerate(recipe.memory.centers.numpy()):
        members = features[found.labels == cluster].astype(np.float64)
        np.testing.assert_allclose(row, unit(members.mean(axis=0)), rtol=1e-5, atol=1e-6)


@pytest.fixture
def identities_of():
    def make(num_rows):
        rng = np.random.Generator(np.random.Philox(3))
        means = rng.normal(size=(10, C))
        rows = means[rng.integers(10, size=num_rows)] + 0.9 * rng.normal(size=(num_rows, C))
        rows[:4] = rng.normal(size=(4, C))  # like no other
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    return make


@pytest.mark.parametrize("temperature", [0.05, 0.2])
def test_the_loss_is_the_cross_entropy_with_all_clusters(temperature, make):
    recipe, given = make(temperature=temperature), batch()
    rows = recipe.memory.centers.double().numpy()
    terms = recipe.losses({"target": given})
    expected = 0.0
    for feature, label in zip(features_of(recipe, given), LABELS.tolist(), strict=True):
        scores = np.exp(rows @ feature / temperature)
        expected -= np.log(scores[label] / scores.sum()) / len(LABELS)
    assert terms.keys() == {"contrast"}
    assert terms["contrast"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("update", ["momentum", "hard"])
def test_rows_follow_their_features_after_the_gradient(update, make):
    recipe, given = make(memory_update=update, memory_momentum=0.3), batch()
    before = recipe.memory.centers.double().numpy().copy()
    terms = recipe.losses({"target": given})
    np.testing.assert_array_equal(recipe.memory.centers.numpy(), before.astype(np.float32))
    terms["contrast"].backward()
    recipe.after_step(step=0)
    expected, features = before.copy(), features_of(recipe, given)
    for label in sorted(set(LABELS.tolist())):
        own = [feature for feature, y in zip(features, LABELS.tolist(), strict=True) if y == label]
        if update == "hard":
            own = [min(own, key=lambda feature: before[label] @ feature)]
        for feature in own:
            expected[label] = unit(0.3 * expected[label] + 0.7 * feature)
    np.testing.assert_allclose(recipe.memory.centers.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert (expected[[1, 2]] == before[[1, 2]]).all()  # clusters the batch does not have


def test_gap_and_gem_pool_differently(make):
    given = batch()
    gem, gap = (features_of(make(pooling=name), given) for name in ("gem", "gap"))
    assert np.abs(gem - gap).max() > 1e-3
    powers = [
        [weight for weight, _ in make(pooling=name).student.named_parameters() if "power" in weight]
        for name in ("gem", "gap")
    ]
    assert powers == [["pool.power"], []]


def test_named_runs_are_the_published_settings():
    market, veri = RUNS["cluster_contrast-market1501"], RUNS["cluster_contrast-veri776"]
    assert isinstance(market, ClusterContrastConfig)
    assert (market.num_identities, market.num_instances, market.norm_group) == (16, 16, 64)
    assert (market.dbscan.k1, market.dbscan.k2, market.dbscan.eps) == (30, 6, 0.6)
    assert (market.steps_per_round, veri.steps_per_round) == (200, 400)
    assert (veri.height, veri.width) == (224, 224)
    assert (market.starts, market.reads_source) == ({}, False)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"temperature": 0.0}, "temperature is 0"), ({"memory_momentum": 1.5}, "momentum is 1.5")],
)
def test_settings_that_cannot_train_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        ClusterContrastConfig(**values)

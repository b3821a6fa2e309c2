"""SpCL: what fills the memory, what clusters it, what a step contrasts and moves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.cluster import DBSCAN
from torch.nn import functional as F

from reid.clustering import DBSCANConfig, jaccard_distance, self_paced_labels, split
from reid.models import one_domain, resnet
from reid.models.domain_norm import DomainNorm
from reid.recipes.contract import Sizes
from reid.recipes.spcl import SpCL, SpCLConfig
from reid.types import OUTLIER, Batch
from tests.reid.clustering.references import alone, dense, partition

CLASSES, IMAGES, WIDTH = 3, 40, 512
SIZES = Sizes(num_identities=CLASSES, num_images=IMAGES)


def images(seed, count=8):
    return torch.randn((count, 3, 32, 16), generator=torch.Generator().manual_seed(seed))


def batch(seed, index, labels):
    return Batch(
        images=images(seed, len(index)),
        index=torch.as_tensor(index),
        labels={"identity": torch.as_tensor(labels)},
        camid=torch.zeros(len(index), dtype=torch.int64),
    )


def unit(seed, count):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, WIDTH)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def config(tiny_configs) -> SpCLConfig:
    dbscan = DBSCANConfig(k1=12, k2=3, eps=0.5)
    return replace(tiny_configs["spcl"], dbscan=dbscan, eps_gap=0.05)


@pytest.fixture
def recipe(config) -> SpCL:
    made = SpCL(config, sizes=SIZES)
    made.memory.reset(torch.from_numpy(unit(0, CLASSES + IMAGES)), torch.arange(CLASSES + IMAGES))
    return made


def test_the_memory_starts_from_class_means_and_image_features(config, tiny_world):
    made = SpCL(config, sizes=tiny_world.sizes)
    made.networks.eval()
    values = {name: torch.from_numpy(unit(s, 64)) for s, name in enumerate(("source", "target"))}
    asked = []

    def extract(table, function):
        asked.append((table, function))
        return values[table]

    made.remember(extract, tiny_world.tables, round=0)
    labels = tiny_world.tables["source"].labels["identity"]
    for label in range(8):
        mean = values["source"].numpy()[labels == label].mean(axis=0)
        expected = mean / np.linalg.norm(mean)
        np.testing.assert_allclose(made.memory.bank[label], expected, atol=1e-6)
    torch.testing.assert_close(made.remembered()["global"], values["target"])
    assert all(function == made.embed for _, function in asked)


def test_rows_of_the_source_are_extracted_by_the_norms_it_trains(config, tiny_world):
    made = SpCL(config, sizes=tiny_world.sizes)
    made.networks.eval()
    with torch.no_grad():
        for layer in made.student.modules():
            if isinstance(layer, DomainNorm):
                layer.norms[0].running_mean += 0.3
    pictures = images(3, 64)
    made.remember(
        lambda _, function: torch.no_grad()(function)(pictures), tiny_world.tables, round=1
    )
    with torch.no_grad():
        target = made.embed(pictures)
        with one_domain(made.student, 0):
            source = made.embed(pictures)
    assert (source - target).abs().max() > 1e-3
    labels = torch.from_numpy(tiny_world.tables["source"].labels["identity"])
    means = torch.stack([source[labels == label].mean(0) for label in range(8)])
    torch.testing.assert_close(made.memory.bank[:8], F.normalize(means))
    torch.testing.assert_close(made.remembered()["global"], target)


@pytest.mark.parametrize("memory", ["kept", "extracted"])
def test_a_later_round_keeps_the_rows_or_extracts_them_anew(config, tiny_world, memory):
    made = SpCL(replace(config, memory=memory), sizes=tiny_world.sizes)
    rounds = [torch.from_numpy(unit(seed, 64)) for seed in range(2)]
    for round, rows in enumerate(rounds):
        made.remember(lambda _table, _of, rows=rows: rows, tiny_world.tables, round=round)
    last = rounds[0] if memory == "kept" else rounds[1]
    torch.testing.assert_close(made.remembered()["global"], last)


def test_a_source_run_gives_the_first_weights(config):
    assert replace(config, initial=None).starts == {}
    trained = replace(config, initial="a run")
    assert trained.starts == {"initial": "a run"}
    weights = resnet("resnet18", weights=None, last_stride=1, seed=9).state_dict()
    starts = {"initial": {f"backbone.{name}": value for name, value in weights.items()}}
    made = SpCL(trained, sizes=SIZES, starts=starts)
    torch.testing.assert_close(made.student.backbone.conv1.weight, weights["conv1.weight"])


def test_labels_are_self_paced_and_the_threshold_is_the_first_rounds(config, identities):
    features = identities(300, 16, 20, seed=0)
    recipe = SpCL(config, sizes=Sizes(num_identities=CLASSES, num_images=300))
    distance = jaccard_distance(features, k1=12, k2=3)

    def expected(threshold=None, eps_gap=0.05):
        return self_paced_labels(
            distance, eps=0.5, eps_gap=eps_gap, independence_threshold=threshold
        )

    pools = {"global": split(features, 1)}
    found = recipe.label(pools, round=0)["global"]
    classes = found.extras["images"]
    np.testing.assert_array_equal(classes, expected().labels)
    assert (classes != expected(eps_gap=0.0).labels).any()
    np.testing.assert_array_equal(partition(alone(found.labels)), partition(classes))
    np.testing.assert_array_equal(found.labels == OUTLIER, np.bincount(classes)[classes] == 1)
    assert 1 < found.num_clusters < classes.max()
    for cluster, center in enumerate(found.centers):
        mean = features[found.labels == cluster].mean(axis=0)
        np.testing.assert_allclose(center, mean, atol=1e-6)
    recipe.begin_round({"global": found})
    assert float(recipe.memory.threshold) == expected().independence_threshold
    recipe.memory.threshold.fill_(0.9)  # of an earlier round
    later = recipe.label(pools, round=1)["global"].extras
    assert float(later["threshold"]) == 0.9
    np.testing.assert_array_equal(later["images"], expected(threshold=0.9).labels)
    assert (later["images"] != classes).any()


def test_without_the_criterion_labels_are_those_of_dbscan(config, identities):
    features = identities(300, 16, 20, seed=0)
    plain = SpCL(replace(config, self_paced=False), sizes=SIZES)
    found = plain.label({"global": split(features, 1)}, round=0)["global"]
    search = DBSCAN(eps=0.5, min_samples=4, metric="precomputed")
    expected = search.fit_predict(dense(jaccard_distance(features, k1=12, k2=3)))
    np.testing.assert_array_equal(found.labels, expected)
    np.testing.assert_array_equal(found.extras["images"], alone(expected))
    assert found.num_clusters > 1
    assert (expected == OUTLIER).any()


@pytest.mark.parametrize("centroids", ["each", "mean"])
def test_a_step_is_the_loss_of_equation_1_and_the_updates_of_2_and_3(config, centroids):
    recipe = SpCL(replace(config, centroids=centroids), sizes=SIZES)
    bank = torch.from_numpy(unit(0, CLASSES + IMAGES))
    recipe.memory.reset(bank, torch.arange(len(bank)))
    classes = np.arange(IMAGES) // 4
    classes[30:] = 100 + np.arange(10)
    labels = torch.cat([torch.arange(CLASSES), torch.from_numpy(classes) + CLASSES])
    recipe.memory.relabel(labels)
    recipe.networks.train()
    source, target = batch(1, range(4), [0, 0, 2, 2]), batch(2, [0, 1, 35, 4], [0] * 4)
    terms = recipe.losses({"source": source, "target": target})
    features = torch.cat([seen[0] for seen in recipe.seen.values()]).detach()
    torch.testing.assert_close(features.norm(dim=1), torch.ones(8))
    rows = torch.tensor([0, 0, 2, 2, *(CLASSES + np.array([0, 1, 35, 4]))])
    prototypes = {int(c): bank[labels == c].mean(0) for c in labels.unique()}
    names = list(prototypes)
    logits = features @ torch.stack(list(prototypes.values())).T / 0.05
    wanted = torch.tensor([names.index(int(labels[row])) for row in rows])
    expected = F.cross_entropy(logits, wanted, reduction="none")
    torch.testing.assert_close(terms["source"].detach(), expected[:4].mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(terms["target"].detach(), expected[4:].mean(), rtol=1e-4, atol=1e-5)

    sum(terms.values()).backward()
    recipe.after_step(step=0)
    after = bank.clone()
    if centroids == "mean":
        for label in (0, 2):
            mean = features[:4][torch.tensor([0, 0, 2, 2]) == label].mean(0)
            after[label] = F.normalize(0.2 * after[label] + 0.8 * mean, dim=0)
    for feature, row in zip(features, rows, strict=True):
        if centroids == "each" or row >= CLASSES:
            after[row] = F.normalize(0.2 * after[row] + 0.8 * feature, dim=0)
    torch.testing.assert_close(recipe.memory.bank, after)


def test_each_domain_is_normalised_by_itself(recipe):
    """The source's statistics must not move the target's features."""
    recipe.networks.train()
    target = batch(2, [0, 1, 2, 3], [0] * 4)
    seen = []
    for seed in (1, 3):
        recipe.losses({"source": batch(seed, range(4), [0, 0, 1, 1]), "target": target})
        seen.append(recipe.seen["target"][0].detach())
    torch.testing.assert_close(*seen)


def test_radii_that_do_not_fit_are_refused():
    for eps, gap in ((0.01, 0.02), (0.99, 0.02), (0.6, 0.0)):
        with pytest.raises(ValueError, match=f"dbscan.eps is {eps} and eps_gap {gap}"):
            SpCLConfig(dbscan=DBSCANConfig(eps=eps), eps_gap=gap)

"""INCLR against its formulas, recomputed from what the networks say; its labels and distance."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reid.clustering import DBSCANConfig, cross_agreement, jaccard_dbscan, split
from reid.recipes.inclr import INCLRConfig
from reid.recipes.part_refinement import label_parts
from reid.types import OUTLIER, Batch, PseudoLabels

K, C, PARTS, N = 6, 512, 2, 64
LABELS = torch.tensor([0, 0, 3, 3, 5, 5, 2, 2])
ROWS = torch.tensor([9, 8, 7, 60, 3, 2, 31, 0])


@pytest.fixture
def make(tiny_configs, make_recipe):
    def go(**changes):
        recipe = make_recipe(replace(tiny_configs["inclr"], **changes))
        recipe.networks.train()
        return recipe

    return go


def batch(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images, second = torch.randn((2, 8, 3, 32, 16), generator=generator)
    labels = {"global": LABELS}
    return Batch(images=images, second=second, index=ROWS, labels=labels, camid=ROWS)


def labelled(views, *, aware: bool) -> dict[str, PseudoLabels]:
    """Return a round's labels with centres of each view's own."""
    rng = np.random.default_rng(0)
    agreement = rng.random((N, PARTS)).astype(np.float32)
    extras = {"global": {"agreement": agreement, "aware": np.array(aware)}}
    return {
        view: PseudoLabels(
            labels=np.arange(N) % K,
            centers=rng.normal(size=(K, C)).astype(np.float32),
            extras=extras.get(view, {}),
        )
        for view in views
    }


def different_teachers_(recipe):
    """Move the teachers away from their students, so that it matters which one teaches."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in recipe.teacher.parameters():
            value.mul_(1 + 0.1 * torch.randn(value.shape, generator=generator))


def cross_entropy(logits, target):
    return -(target * logits.log_softmax(1)).sum(1)


def margins(features, own):
    """Return d_an - d_ap, of the rows that are the hardest by `own`."""
    distance = torch.cdist(own, own)
    same = LABELS[:, None] == LABELS
    positive = distance.masked_fill(~same, -1).argmax(1)
    negative = distance.masked_fill(same, torch.inf).argmin(1)
    near = (features - features[positive]).norm(dim=1)
    return (features - features[negative]).norm(dim=1) - near


def expected_terms(recipe, given, labels, *, aware):
    """Return the terms by their formulas (spec 3.1, 3.3, 2.2), in float64."""
    config = recipe.config
    with torch.no_grad():
        outs = [
            net(images)
            for pair in (recipe.student, recipe.teacher)
            for net, images in zip(pair.nets, (given.images, given.second), strict=True)
        ]
    features = [out.views["global"].double() for out in outs]
    logits = [out.logits.double() for out in outs]
    parts = [torch.stack([x.double() for x in out.part_logits.values()], 2) for out in outs]
    agreement = torch.from_numpy(labels["global"].extras["agreement"]).double()[ROWS]
    onehot, w = F.one_hot(LABELS, K).double(), config.onehot_weight
    unit = [F.normalize(x) for x in features]
    centers = F.normalize(torch.from_numpy(labels["global"].centers).double())

    def probabilities(first, second):
        return (config.accuracy_scale * F.normalize(first + second) @ centers.T).softmax(1)

    student, teacher = probabilities(*unit[:2]), probabilities(*unit[2:])
    divergence = (teacher * (teacher.log() - student.log())).sum(1)
    accuracy = torch.exp(-divergence)
    terms = dict.fromkeys(("id", "id/parts", "triplet", "accuracy", "soft_id", "soft_triplet"), 0.0)
    for own, other in ((0, 3), (1, 2)):
        shares = agreement.softmax(1)
        ensemble = (parts[own].softmax(1) * shares[:, None]).sum(2)
        refined = w * onehot + (1 - w) * ensemble
        terms["id"] += cross_entropy(logits[own], refined).mean()
        for part in range(PARTS):
            mine = parts[own][:, :, part]
            if aware:
                c = agreement[:, part]
                uniform = torch.full((8, K), 1 / K, dtype=torch.float64)
                far = cross_entropy(mine, uniform) - np.log(K)  # KL(uniform || q)
                loss = c * cross_entropy(mine, onehot) + (1 - c) * far
            else:
                s = config.smoothing
                loss = cross_entropy(mine, (1 - s) * onehot + s / K)
            terms["id/parts"] += config.part_identity * loss.mean() / PARTS
        t = margins(features[own], features[own]).sigmoid()
        terms["triplet"] -= t.log().mean()
        external = config.accuracy_scale * unit[own] @ centers.T
        said = external if config.credibility == "external" else logits[own]
        terms["accuracy"] += config.accuracy * (accuracy * cross_entropy(said, onehot)).mean()
        soft = cross_entropy(logits[own], logits[other].softmax(1)).mean()
        terms["soft_id"] += config.soft_identity * soft
        aim = margins(features[other], features[own]).sigmoid()
        soft = -(aim * t.log() + (1 - aim) * (1 - t).log()).mean()
        terms["soft_triplet"] += config.soft_triplet * soft
    return terms


@pytest.mark.parametrize(
    ("changes", "aware"),
    [
        ({}, True),
        ({"accuracy": 0.7, "onehot_weight": 0.3, "part_identity": 2.0, "smoothing": 0.2}, False),
        ({"credibility": "external", "accuracy_scale": 10.0}, True),
    ],
)
def test_losses_are_the_formula(changes, aware, make):
    recipe = make(**changes)
    labels = labelled(recipe.views, aware=aware)
    recipe.begin_round(labels)
    different_teachers_(recipe)
    given = batch(0)
    terms = recipe.losses({"target": given})
    expected = expected_terms(recipe, given, labels, aware=aware)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(float(value), rel=1e-3, abs=1e-5), name


def test_soft_terms_can_be_left_out(make):
    recipe = make(mmt_soft=False)
    recipe.begin_round(labelled(recipe.views, aware=True))
    assert recipe.losses({"target": batch(0)}).keys() == {"id", "id/parts", "triplet", "accuracy"}


def test_defaults_are_the_published_ones():
    config = INCLRConfig(initial="a", second_initial="b")
    assert (config.accuracy, config.accuracy_scale, config.part_distance) == (0.5, 20.0, 0.2)
    assert (config.num_parts, config.num_rounds, config.cluster) == (3, 100, "dbscan")
    assert config.mmt_soft


def test_a_round_starts_from_unit_centres_in_every_classifier(make):
    recipe = make()
    labels = labelled(recipe.views, aware=True)
    recipe.begin_round(labels)
    for view in recipe.views:
        expected = F.normalize(torch.from_numpy(labels[view].centers))
        for net in (*recipe.student.nets, *recipe.teacher.nets):
            torch.testing.assert_close(net.classifier(view).weight[:K], expected)
    expected = F.normalize(torch.from_numpy(labels["global"].centers))
    torch.testing.assert_close(recipe.memory["centers"], expected)


@pytest.mark.parametrize("kappa", [0.0, 0.2, 1.0])
def test_retrieval_ranks_by_the_sum_of_squared_distances(kappa, make):
    recipe = make(part_distance=kappa, inference="second")
    recipe.networks.eval()
    images = batch(3).images
    with torch.no_grad():
        sides = [recipe.teacher.second(x).views for x in (images, images.flip(3))]
        embedding = recipe.embed(images).double()
    assert embedding.shape == (8, C * (1 + PARTS))
    total = torch.zeros(8, 8, dtype=torch.float64)
    for view in recipe.views:
        unit = F.normalize(sum(F.normalize(side[view].double()) for side in sides))
        total += (1.0 if view == "global" else kappa) * torch.cdist(unit, unit).square()
    found = torch.cdist(embedding, embedding).square()
    torch.testing.assert_close(found, total / (1 + kappa * PARTS), rtol=1e-4, atol=1e-6)


def rows(count: int, seed: int) -> np.ndarray:
    """Return unit rows in overlapping groups, the same groups for every seed."""
    means = np.random.default_rng(0).normal(size=(12, 16))
    rng = np.random.default_rng(seed)
    values = means[np.arange(count) % 12] + 0.7 * rng.normal(size=(count, 16))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("cluster", ["dbscan", "kmeans"])
def test_labels_come_from_the_whole_and_agreement_from_the_parts(cluster, make):
    dbscan = DBSCANConfig(k1=20, k2=4, eps=0.5)
    recipe = make(cluster=cluster, num_clusters=12, aals_from=2, dbscan=dbscan, max_clusters=1000)
    features = {view: rows(1200, seed) for seed, view in enumerate(recipe.views)}
    pools = {view: split(value, 1) for view, value in features.items()}
    found = recipe.label(pools, round=1)
    assert tuple(found) == recipe.views
    labels = found["global"].labels
    if cluster == "dbscan":
        expected = jaccard_dbscan(pools["global"], dbscan)
        np.testing.assert_array_equal(labels, expected.labels)
        assert expected.num_clusters > 1
        assert (labels == OUTLIER).any()
    for view, value in found.items():
        np.testing.assert_array_equal(value.labels, labels)
        mean = features[view][labels == 1].mean(axis=0)
        np.testing.assert_allclose(value.centers[1], mean, rtol=1e-4, atol=1e-6)
    parts = np.stack([features[view] for view in recipe.views[1:]], axis=2)
    expected = cross_agreement(features["global"], parts, k=20)
    np.testing.assert_allclose(found["global"].extras["agreement"], expected, rtol=1e-6)
    assert not found["global"].extras["aware"]
    shards = {view: split(value, 2) for view, value in features.items()}
    later = recipe.label(shards, round=2)["global"]
    assert later.extras["aware"]
    if cluster == "dbscan":
        np.testing.assert_array_equal(later.labels, labels)
        np.testing.assert_array_equal(later.centers, found["global"].centers)
    np.testing.assert_array_equal(later.extras["agreement"], found["global"].extras["agreement"])


def test_features_of_each_view_are_the_mean_of_both_teachers(make):
    recipe = make()
    recipe.networks.eval()
    images = batch(3).images
    with torch.no_grad():
        found = recipe.features(images)
        outs = [net(x).views for net in recipe.teacher.nets for x in (images, images.flip(3))]
    assert tuple(found) == recipe.views == ("global", "part0", "part1")
    for view, value in found.items():
        sides = [F.normalize(out[view]) for out in outs]
        first, second = sides[0] + sides[2], sides[1] + sides[3]
        torch.testing.assert_close(value, F.normalize(first + second))


def test_settings_that_cannot_train_are_refused(make):
    for name in ("num_parts", "agreement_neighbors"):
        with pytest.raises(ValueError, match=f"{name} is 0"):
            make(**{name: 0})
    with pytest.raises(ValueError, match=r"part_distance is -0\.1"):
        make(part_distance=-0.1)


def test_clusters_without_an_image_are_left_out():
    rng = np.random.default_rng(0)
    rows = {view: rng.normal(size=(6, 4)).astype(np.float32) for view in ("global", "part0")}
    labels, centers = np.array([3, 1, OUTLIER, 3, 1, 3]), np.arange(20, dtype=np.float32)
    found = label_parts(
        {view: split(torch.from_numpy(x), 2) for view, x in rows.items()},
        ("global", "part0"),
        labels=labels,
        centers=centers.reshape(5, 4),
        num_neighbors=2,
        aware=False,
    )
    for view in rows:
        np.testing.assert_array_equal(found[view].labels, [1, 0, OUTLIER, 1, 0, 1])
    np.testing.assert_array_equal(found["global"].centers, centers.reshape(5, 4)[[1, 3]])
    expected = [rows["part0"][labels == label].mean(0) for label in (1, 3)]
    np.testing.assert_allclose(found["part0"].centers, expected, rtol=1e-6)


def test_a_round_with_a_cluster_without_an_image_is_trained(make):
    recipe = make(cluster="kmeans", num_clusters=K)
    rng = np.random.default_rng(0)
    rows = {view: rng.normal(size=(N, C)).astype(np.float32) for view in recipe.views}
    found = label_parts(
        {view: split(torch.from_numpy(x), 1) for view, x in rows.items()},
        recipe.views,
        labels=np.arange(N) % (K - 1) + 1,  # none in the first
        centers=rng.normal(size=(K, C)).astype(np.float32),
        num_neighbors=2,
        aware=True,
    )
    recipe.begin_round(found)
    given = batch(0)
    given.labels["global"] = torch.from_numpy(found["global"].labels)[given.index]
    logits = recipe.student.first(given.images).logits
    assert logits.shape == (8, K - 1)
    assert all(torch.isfinite(term) for term in recipe.losses({"target": given}).values())

"""LF2, CORE-ReID V1 and V2 against their formulas, recomputed from what the networks say.

The mean teacher, which is one of them without fusion and parts, where it does the same.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reid.clustering import kmeans, split
from reid.recipes.contract import round_seed
from reid.recipes.core_parts import VIEWS
from reid.types import Batch, PseudoLabels
from tests.reid.recipes.references import identity, triplet

K, C = 8, 512
LABELS = {
    "global": torch.tensor([0, 0, 3, 3, 5, 5, 7, 7]),
    "top": torch.tensor([1, 1, 1, 2, 2, 4, 4, 4]),
    "bottom": torch.tensor([6, 0, 6, 0, 2, 2, 1, 1]),
}


METHODS = ["lf2", "core_reid_v1", "core_reid_v2"]
of_all_four = pytest.mark.parametrize("make", [*METHODS, "mean_teacher"], indirect=True)


@pytest.fixture(params=METHODS)
def make(request, tiny_configs, make_recipe):
    def go(**changes):
        recipe = make_recipe(replace(tiny_configs[request.param], **changes))
        recipe.networks.train()
        return recipe

    return go


def network(recipe):
    """Return the student without the fusion it feeds."""
    return getattr(recipe.student, "net", recipe.student)


def batch(seed: int) -> Batch:
    images = torch.randn((8, 3, 32, 16), generator=torch.Generator().manual_seed(seed))
    zeros = torch.zeros(8, dtype=torch.int64)
    return Batch(images=images, index=torch.arange(8), labels=LABELS, camid=zeros)


@pytest.mark.parametrize("fusion", ["released", "trained"])
@pytest.mark.parametrize("batches", ["three", "shared"])
def test_losses_are_the_formula(fusion, batches, make):
    weights = {"global_triplet": 0.7, "part_triplet": 0.3, "fused_triplet": 0.2, "smoothing": 0.2}
    recipe = make(fusion=fusion, batches=batches, **weights)
    drawn = VIEWS if batches == "three" else ("global",)
    assert tuple(draw.name for draw in recipe.draws) == drawn
    assert all((draw.table, draw.labels) == ("target", draw.name) for draw in recipe.draws)
    given = {name: batch(seed) for seed, name in enumerate(drawn)}
    with torch.no_grad():
        network(recipe).classifier.weight.mul_(100)  # fresh ones smooth all targets alike
    terms = recipe.losses(given)
    expected = {}
    for view in VIEWS:
        images = given[view if batches == "three" else "global"].images
        with torch.no_grad():  # outputs in training mode do not depend on running statistics
            out, fused = recipe.student(images, recipe.teacher(images).map)
        weight = 0.7 if view == "global" else 0.3
        expected[f"triplet/{view}"] = weight * triplet(out.views[view], LABELS[view])
        if fusion == "trained":
            expected[f"fused/{view}"] = 0.2 * triplet(fused[view], LABELS[view])
        if view == "global":
            expected["id"] = identity(out.logits, LABELS[view], 0.2)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-3, abs=1e-5), name


def test_defaults_are_the_published_weights(make):
    config = make().config
    assert (config.global_triplet, config.part_triplet, config.smoothing) == (1.0, 0.5, 0.1)


@of_all_four
def test_a_round_starts_from_unit_centres_in_both_classifiers(make):
    recipe = make()
    rng = np.random.default_rng(0)
    labels = {
        view: PseudoLabels(
            labels=np.arange(16) % K, centers=rng.normal(size=(K, C)).astype(np.float32)
        )
        for view in VIEWS
    }
    recipe.begin_round(labels)
    centers = torch.from_numpy(labels["global"].centers)
    for net in (network(recipe), recipe.teacher):
        torch.testing.assert_close(net.classifier.weight.norm(dim=1), torch.ones(K))
        cosines = F.cosine_similarity(net.classifier.weight, centers)
        torch.testing.assert_close(cosines, torch.ones(K))


@of_all_four
def test_the_teacher_follows_with_a_growing_momentum_and_keeps_its_own_statistics(make):
    recipe = make(ema_momentum=0.6)
    student, teacher = network(recipe), recipe.teacher
    generator = torch.Generator().manual_seed(0)
    recipe.losses({"global": batch(0)})
    for step, momentum in ((0, 0.0), (1, 0.5), (2, 0.6), (9, 0.6)):  # min(1 - 1/(t+1), 0.6)
        with torch.no_grad():
            for value in student.parameters():
                value.add_(0.01 * torch.randn(value.shape, generator=generator))
            for value in student.buffers():
                value.add_(1)
        before = {n: v.clone() for n, v in teacher.state_dict().items()}
        recipe.after_step(step=step)
        for name, value in student.named_parameters():
            expected = momentum * before[name] + (1 - momentum) * value
            found = teacher.get_parameter(name)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
            assert step > 0 or torch.equal(found, value)
        for name, value in teacher.named_buffers():
            assert torch.equal(value, before[name])


@of_all_four
def test_the_teachers_statistics_come_from_its_own_passes(make):
    recipe = make()
    net = recipe.teacher.backbone
    with torch.no_grad():
        net.conv1.weight.mul_(2)  # the student sees the same images, but other activations
        mean = net.conv1(batch(0).images).mean((0, 2, 3))
    recipe.losses({"global": batch(0)})
    torch.testing.assert_close(net.bn1.running_mean, 0.1 * mean, rtol=1e-4, atol=1e-6)
    student = network(recipe).backbone.bn1.running_mean
    torch.testing.assert_close(student, 0.05 * mean, rtol=1e-4, atol=1e-6)


def test_features_and_embedding_are_unit_length_mirror_means(make):
    recipe = make()
    recipe.networks.eval()
    images = batch(3).images
    with torch.no_grad():
        recipe.teacher.backbone.conv1.weight.neg_()  # no copy of the student any more
        features, mirrored = recipe.features(images), recipe.features(images.flip(3))
        embedding = recipe.embed(images)
        sides = [F.normalize(recipe.teacher(x).embedding) for x in (images, images.flip(3))]
    assert tuple(features) == VIEWS == recipe.views
    for view, value in features.items():
        assert value.shape == (8, C)
        torch.testing.assert_close(value.norm(dim=1), torch.ones(8))
        torch.testing.assert_close(mirrored[view], value, rtol=1e-4, atol=1e-6)
    assert embedding.shape == (8, 3 * C)
    torch.testing.assert_close(embedding, F.normalize(sum(sides) / 2))


@of_all_four
def test_each_view_is_clustered_by_its_own_features(make):
    recipe, rng = make(), np.random.default_rng(0)
    pools = {view: split(rng.normal(size=(500, 8)).astype(np.float32), 1) for view in recipe.views}
    found, later = (recipe.label(pools, round=round) for round in (3, 4))
    for number, view in enumerate(recipe.views):
        seed = round_seed(recipe.config.seed, 3, number)
        expected = kmeans(pools[view], K, seed=seed)
        np.testing.assert_array_equal(found[view].labels, expected.labels)
        np.testing.assert_array_equal(found[view].centers, expected.centers)
        assert (later[view].labels != found[view].labels).any()


def test_labels_do_not_depend_on_the_shards(make):
    recipe = make()
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2500, 8)).astype(np.float32)  # three blocks
    whole = recipe.label({view: split(rows, 1) for view in VIEWS}, round=3)
    shared = recipe.label({view: split(rows, 3) for view in VIEWS}, round=3)
    assert tuple(whole) == VIEWS
    for view, value in whole.items():
        np.testing.assert_array_equal(value.labels, shared[view].labels)
        np.testing.assert_array_equal(value.centers, shared[view].centers)
        assert value.centers.shape == (K, 8)
        np.testing.assert_array_equal(np.unique(value.labels), np.arange(K))
    # Each view and each round has seeds of its own, so the same rows are not labelled alike.
    later = recipe.label({view: split(rows, 1) for view in VIEWS}, round=4)
    assert not np.array_equal(whole["global"].labels, whole["top"].labels)
    assert not np.array_equal(whole["global"].labels, later["global"].labels)

"""The mean teacher against its formulas; test_core_parts.py has what it shares with CORE-ReID."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from reid.types import Batch
from tests.reid.recipes.references import identity, triplet

K, C = 8, 512
LABELS = torch.tensor([0, 0, 3, 3, 5, 5, 7, 7])


@pytest.fixture
def make(tiny_configs, make_recipe):
    def go(**changes):
        recipe = make_recipe(replace(tiny_configs["mean_teacher"], **changes))
        with torch.no_grad():
            recipe.teacher.backbone.conv1.weight.neg_()  # no copy of the student any more
        recipe.networks.train()
        return recipe

    return go


def batch() -> Batch:
    images = torch.randn((8, 3, 32, 16), generator=torch.Generator().manual_seed(0))
    zeros = torch.zeros(8, dtype=torch.int64)
    labels = {"global": LABELS}
    return Batch(images=images, index=torch.arange(8), labels=labels, camid=zeros)


def test_both_losses_are_of_the_students_feature_after_the_neck(make):
    recipe, given = make(smoothing=0.2), batch()
    (draw,) = recipe.draws
    assert (draw.name, draw.table, draw.labels) == ("global", "target", "global")
    with torch.no_grad():
        recipe.student.classifier.weight.mul_(100)  # fresh ones smooth all targets alike
    terms = recipe.losses({"global": given})
    with torch.no_grad():  # outputs in training mode do not depend on running statistics
        values = recipe.student(given.images).map.double().flatten(2)
        pooled = values.mean(2) + values.amax(2)
        neck = (pooled - pooled.mean(0)) / (pooled.var(0, unbiased=False) + 1e-5).sqrt()
        logits = neck @ recipe.student.classifier.weight.double().T
    assert terms.keys() == {"id", "triplet"}
    assert terms["id"].item() == pytest.approx(identity(logits, LABELS, 0.2), rel=1e-3)
    assert terms["triplet"].item() == pytest.approx(triplet(neck, LABELS), rel=1e-3)


def test_the_teacher_is_what_is_clustered_and_searched_with(make):
    recipe, images = make(), batch().images
    recipe.networks.eval()
    with torch.no_grad():
        features, embedding = recipe.features(images), recipe.embed(images)
        sides = [F.normalize(recipe.teacher(x).embedding) for x in (images, images.flip(3))]
    assert tuple(features) == recipe.views == ("global",)
    assert embedding.shape == (8, C)
    torch.testing.assert_close(embedding, F.normalize(sum(sides)))
    torch.testing.assert_close(features["global"], embedding)

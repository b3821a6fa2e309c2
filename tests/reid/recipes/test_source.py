"""The source stage: its losses from its outputs, and what a target batch does and does not do."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reid.losses import softmax_triplet
from reid.recipes.contract import Sizes
from reid.recipes.source import Source
from reid.types import Batch

LABELS = torch.tensor([0, 0, 3, 3, 5, 5, 7, 7])


def batch(seed: int, *, labels=None) -> Batch:
    images = torch.randn((8, 3, 32, 16), generator=torch.Generator().manual_seed(seed))
    return Batch(
        images=images,
        index=torch.arange(8),
        labels={} if labels is None else {"identity": labels},
        camid=torch.zeros(8, dtype=torch.int64),
    )


@pytest.fixture
def recipe(tiny_configs) -> Source:
    made = Source(
        replace(tiny_configs["source"], mix_target=True),
        sizes=Sizes(num_identities=8, num_images=64),
    )
    made.networks.train()
    return made


def statistics(recipe):
    return {n: b.clone() for n, b in recipe.networks.named_buffers() if "running" in n}


def test_the_target_batch_moves_statistics_and_nothing_else(recipe, tiny_configs):
    alone = Source(tiny_configs["source"], sizes=Sizes(num_identities=8, num_images=64))
    alone.networks.train()
    source, target = batch(0, labels=LABELS), batch(1)
    with_target = recipe.losses({"source": source, "target": target})
    without = alone.losses({"source": source})
    assert with_target.keys() == without.keys() == {"id", "triplet"}
    for name, term in without.items():  # in training mode a batch is normalised by itself
        assert torch.equal(with_target[name], term)
    sum(with_target.values()).backward()
    sum(without.values()).backward()
    other = dict(alone.student.named_parameters())
    for name, value in recipe.student.named_parameters():
        if value.requires_grad:
            assert torch.equal(value.grad, other[name].grad), name
    mixed, plain = statistics(recipe), statistics(alone)
    assert all(not torch.equal(mixed[name], plain[name]) for name in plain)


def test_statistics_are_two_updates_target_first(recipe):
    """running <- 0.9 running + 0.1 batch, once for each of the two batches."""
    source, target = batch(0, labels=LABELS), batch(1)
    convolution, norm = recipe.student.backbone.conv1, recipe.student.backbone.bn1
    expected = norm.running_mean.clone()
    with torch.no_grad():
        for images in (target.images, source.images):
            expected = 0.9 * expected + 0.1 * convolution(images).mean((0, 2, 3))
    recipe.losses({"source": source, "target": target})
    torch.testing.assert_close(norm.running_mean, expected, rtol=1e-4, atol=1e-6)


def test_the_triplet_sees_the_mean_of_the_map_before_the_neck(recipe):
    source = batch(0, labels=LABELS)
    out = recipe.student(source.images)
    terms = recipe.losses({"source": source})
    feature = out.map.mean((2, 3))
    torch.testing.assert_close(terms["triplet"], softmax_triplet(feature, LABELS))
    neck = (feature - feature.mean(0)) / (feature.var(0, unbiased=False) + 1e-5).sqrt()
    assert not torch.allclose(terms["triplet"], softmax_triplet(neck, LABELS), rtol=1e-2)
    # Cross entropy with 1 - s on the label and s / K on all, on the neck's output.
    logits = neck @ recipe.student.classifier.weight.T
    smoothing = recipe.config.smoothing
    target = (1 - smoothing) * F.one_hot(LABELS, 8) + smoothing / 8
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(terms["id"], expected, rtol=1e-4, atol=1e-5)


def test_draws_follow_mix_target(tiny_configs):
    mixed = Source(
        replace(tiny_configs["source"], mix_target=True),
        sizes=Sizes(num_identities=8, num_images=64),
    )
    plain = Source(
        replace(tiny_configs["source"], mix_target=False),
        sizes=Sizes(num_identities=8, num_images=64),
    )
    assert [(d.table, d.labels) for d in plain.draws] == [("source", "identity")]
    assert [(d.table, d.labels) for d in mixed.draws] == [
        ("source", "identity"),
        ("target", None),
    ]


def test_embedding_is_the_feature_after_the_neck_with_its_mirror(recipe):
    recipe.networks.eval()
    images = batch(2).images
    with torch.no_grad():
        found = recipe.embed(images)
        sides = [recipe.student(x).embedding for x in (images, images.flip(3))]
    mean = sum(F.normalize(side, dim=1) for side in sides) / 2
    torch.testing.assert_close(found, F.normalize(mean, dim=1))
    assert found.shape == (8, 512)


def test_labels_are_given(recipe):
    assert recipe.views == ()
    assert recipe.features(batch(0).images) == {}
    assert recipe.label({}, round=0) == {}
    before = {n: v.clone() for n, v in recipe.networks.state_dict().items()}
    recipe.begin_round({})
    recipe.after_step(step=0)
    after = recipe.networks.state_dict()
    assert all(np.array_equal(value, after[name]) for name, value in before.items())


def test_a_source_run_begins_with_another_ones_backbone(recipe, tiny_configs):
    weights = recipe.student.backbone.state_dict()
    config = replace(tiny_configs["source"], initial="first", seed=tiny_configs["source"].seed + 1)
    assert config.starts == {"initial": "first"}
    sizes = Sizes(num_identities=8, num_images=64)
    starts = {"initial": {f"backbone.{name}": value for name, value in weights.items()}}
    made = Source(config, sizes=sizes, starts=starts)
    drawn = Source(replace(config, initial=None), sizes=sizes)
    for name, value in made.student.backbone.state_dict().items():
        assert torch.equal(value, weights[name]), name
    name = "conv1.weight"
    assert not torch.equal(drawn.student.backbone.state_dict()[name], weights[name])

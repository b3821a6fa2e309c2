"""LF2: its Fusion Module, its ablation without, its settings."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from reid.recipes import RUNS
from reid.recipes.lf2 import GATES

IMAGES = torch.randn((6, 3, 32, 16), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def make(tiny_configs, make_recipe):
    return lambda **changes: make_recipe(replace(tiny_configs["lf2"], **changes))


def test_the_gates_network_has_one_hidden_layer(make):
    recipe = make()
    for block in recipe.student.net.attention.values():
        weights = [tuple(weight.shape) for weight in block.parameters()]
        assert weights == [(128, 512), (512, 128)]
    assert recipe.student.fusion.global_attention is None


@pytest.mark.parametrize("gate", ["released", "slides", "faded"])
def test_both_gates_are_their_formulas(gate, make):
    recipe = make(gate=gate)
    recipe.networks.eval()
    with torch.no_grad():
        out = recipe.student.net(IMAGES)
        gates = GATES[gate](recipe.student.net, out)
        teacher_map = recipe.teacher(IMAGES).map
        fused = recipe.student(IMAGES, teacher_map)[1]
        for part, strip in zip(("top", "bottom"), out.map.chunk(2, dim=2), strict=True):
            shrink, expand = recipe.student.net.attention[part].parameters()
            mean, maximum = strip.mean((2, 3)), strip.amax((2, 3))
            score = sum((value @ shrink.T).relu() @ expand.T for value in (mean, maximum))
            pooled = mean + maximum
            expected = {
                "released": torch.sigmoid(score) * pooled,
                "slides": torch.sigmoid(score * pooled),
                "faded": pooled / 2,
            }[gate]
            torch.testing.assert_close(gates[part].flatten(1), expected, rtol=1e-4, atol=1e-6)
            weighted = (teacher_map * expected[:, :, None, None]).flatten(2)
            theta = (weighted.mean(2) + weighted.amax(2)) / (1 + 1e-5) ** 0.5  # a fresh BatchNorm
            torch.testing.assert_close(fused[part], theta, rtol=1e-4, atol=1e-6)


def test_without_the_fusion_module_the_teachers_features_are_clustered(make):
    recipe = make(fusion="none")
    recipe.networks.eval()
    with torch.no_grad():
        found = recipe.features(IMAGES)
        sides = [recipe.teacher(images).views for images in (IMAGES, IMAGES.flip(3))]
    assert tuple(found) == recipe.views
    for view, value in found.items():
        torch.testing.assert_close(value, F.normalize(sides[0][view] + sides[1][view]))


def test_published_settings():
    runs = {
        name: run for name, run in RUNS.items() if name.startswith("lf2-") and "demo" not in name
    }
    assert {name: run.num_clusters for name, run in runs.items()} == {
        "lf2-dukemtmc-market1501": 700,
        "lf2-market1501-dukemtmc": 900,
    }
    for run in runs.values():
        start = RUNS[run.initial]
        assert (run.num_rounds, run.steps_per_round, start.num_rounds) == (80, 400, 80)
        for one in (run, start):
            assert one.norm_group == 32  # a GPU's half of a batch
            assert (one.backbone, one.num_identities * one.num_instances) == ("resnet50", 64)
            assert (one.augment.pad, one.augment.pad_mode) == (10, "zero")
            assert (one.augment.local_grayscale, one.augment.global_grayscale) == (0.0, 0.0)
        assert (run.augment.erasing, start.augment.erasing) == (0.5, 0.0)

"""CORE-ReID V1: its two published switches, and what makes it differ from V2."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from reid.recipes import RUNS
from reid.recipes.core_reid_v1 import max_gates

IMAGES = torch.randn((6, 3, 32, 16), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def make(tiny_configs, make_recipe):
    return lambda **changes: make_recipe(replace(tiny_configs["core_reid_v1"], **changes))


def test_the_teachers_map_is_not_attended_to(make):
    recipe = make()
    assert recipe.student.fusion.global_attention is None
    recipe.networks.eval()
    with torch.no_grad():
        teacher_map = recipe.teacher(IMAGES).map
        fused = recipe.student(IMAGES, teacher_map)[1]["global"]
    pooled = teacher_map.flatten(2).mean(2) + teacher_map.flatten(2).amax(2)
    torch.testing.assert_close(fused, pooled / (1 + 1e-5) ** 0.5)  # a fresh BatchNorm


def test_without_ecab_the_gate_is_the_maximum_times_maximum_and_mean(make):
    recipe = make(ecab=False)
    recipe.networks.eval()
    with torch.no_grad():
        out = recipe.student.net(IMAGES)
        gates = max_gates(recipe.student.net, out)
        teacher_map = recipe.teacher(IMAGES).map
        fused = recipe.student(IMAGES, teacher_map)[1]
    height = out.map.shape[2]
    strips = {"top": out.map[:, :, : height // 2], "bottom": out.map[:, :, height // 2 :]}
    for part, strip in strips.items():
        maximum, mean = strip.amax((2, 3)), strip.mean((2, 3))
        expected = maximum * (maximum + mean)
        torch.testing.assert_close(gates[part], expected[:, :, None, None])
        weighted = (teacher_map * gates[part]).flatten(2)
        pooled = weighted.mean(2) + weighted.amax(2)
        torch.testing.assert_close(fused[part], pooled / (1 + 1e-5) ** 0.5)
    assert not any(value.requires_grad for value in recipe.student.net.attention.parameters())


def test_without_bmfn_features_are_of_the_image_alone(make):
    recipe, usual = make(bmfn=False), make()
    for one in (recipe, usual):
        one.networks.eval()
    with torch.no_grad():
        found = {**recipe.features(IMAGES), "embed": recipe.embed(IMAGES)}
        mirrored = {**recipe.features(IMAGES.flip(3)), "embed": recipe.embed(IMAGES.flip(3))}
        fused = recipe.student(IMAGES, recipe.teacher(IMAGES).map)[1]
        mean = usual.embed(IMAGES)
    assert tuple(found) == (*recipe.views, "embed")
    for name, value in found.items():
        torch.testing.assert_close(value.norm(dim=1), torch.ones(6))
        assert not torch.allclose(value, mirrored[name], atol=1e-3)
        if name != "embed":
            torch.testing.assert_close(value, F.normalize(fused[name]))
    torch.testing.assert_close(mean, F.normalize(found["embed"] + mirrored["embed"]))


def test_published_settings():
    run = RUNS["core_reid_v1-market1501-cuhk03_np"]
    assert (run.num_clusters, run.num_rounds, run.steps_per_round) == (900, 80, 400)
    assert (run.num_identities, run.num_instances) == (32, 4)
    assert (run.optim.lr, run.optim.weight_decay) == (3.5e-4, 5e-4)
    assert (run.augment.local_grayscale, run.augment.global_grayscale) == (0.4, 0.0)
    assert {
        name.removeprefix("core_reid_v1-"): config.num_clusters
        for name, config in RUNS.items()
        if name.startswith("core_reid_v1-") and config.backbone == "resnet101"
    } == {
        "market1501-cuhk03_np": 900,
        "cuhk03_np-market1501": 900,
        "market1501-msmt17": 2500,
        "cuhk03_np-msmt17": 2500,
        "market1501-dukemtmc": 900,
        "dukemtmc-market1501": 700,
        "dukemtmc-msmt17": 2500,
        "vehicleid_800-veri776": 500,
        **{f"vehicleid_800-veriwild_{size}": 30_000 for size in (3000, 5000, 10_000)},  # ours
        **{f"veri776-vehicleid_{size}": 700 for size in (800, 1600, 2400)},
    }
    vehicle = RUNS["core_reid_v1-vehicleid_800-veri776"]
    assert (vehicle.height, vehicle.width, vehicle.num_rounds) == (256, 256, 15)
    assert vehicle.optim.lr == 7e-5

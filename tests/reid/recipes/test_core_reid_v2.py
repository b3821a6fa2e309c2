"""CORE-ReID V2: attention on the teacher's map, and the published settings."""

from dataclasses import replace

import torch

from reid.override import flatten
from reid.recipes import RUNS


def test_the_teachers_map_is_weighted_by_secab(tiny_configs, make_recipe):
    recipe = make_recipe(tiny_configs["core_reid_v2"])
    recipe.networks.eval()
    images = torch.randn((6, 3, 32, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        teacher_map = recipe.teacher(images).map
        fused = recipe.student(images, teacher_map)[1]["global"]
        weighted = (teacher_map * recipe.student.fusion.global_attention(teacher_map)).flatten(2)
    pooled = weighted.mean(2) + weighted.amax(2)
    torch.testing.assert_close(fused, pooled / (1 + 1e-5) ** 0.5)  # a fresh BatchNorm


def test_without_secab_it_is_core_reid_v1(tiny_configs, make_recipe):
    first, second = flatten(RUNS["core_reid_v1-demo"]), flatten(RUNS["core_reid_v2-demo"])
    shared = first.keys() & second.keys()
    assert (first.keys() ^ shared, second.keys() ^ shared) == ({"bmfn", "ecab"}, {"secab"})
    assert {name: first[name] for name in shared} == {name: second[name] for name in shared}
    images = torch.randn((6, 3, 32, 16), generator=torch.Generator().manual_seed(0))
    found = []
    for config in (
        tiny_configs["core_reid_v1"],
        replace(tiny_configs["core_reid_v2"], secab=False),
        tiny_configs["core_reid_v2"],
    ):
        recipe = make_recipe(config)
        with torch.no_grad():
            recipe.features(images)  # in training: the fusion's statistics move
            recipe.networks.eval()
            found.append({**recipe.features(images), "embed": recipe.embed(images)})
    v1, without, v2 = found
    for name, value in v1.items():
        assert torch.equal(without[name], value)
        assert torch.equal(v2[name], value) == (name == "embed")


def test_published_settings():
    person, vehicle = (
        RUNS[f"core_reid_v2-{pair}"] for pair in ("market1501-cuhk03_np", "vehicleid_800-veri776")
    )
    assert (person.height, person.width, person.num_rounds, person.optim.lr) == (
        256,
        128,
        80,
        3.5e-4,
    )
    assert (vehicle.height, vehicle.width, vehicle.num_rounds, vehicle.optim.lr) == (
        *(256, 256, 15),
        7e-5,
    )
    assert {
        name.removeprefix("core_reid_v2-"): config.num_clusters
        for name, config in RUNS.items()
        if name.startswith("core_reid_v2-") and config.backbone == "resnet101"
    } == {
        "market1501-cuhk03_np": 900,
        "cuhk03_np-market1501": 900,
        "market1501-msmt17": 2000,
        "cuhk03_np-msmt17": 2000,
        "vehicleid_800-veri776": 500,
        **{f"vehicleid_800-veriwild_{size}": 30_000 for size in (3000, 5000, 10_000)},  # ours
        "veri776-vehicleid_800": 700,
        "veri776-vehicleid_1600": 700,
        "veri776-vehicleid_2400": 700,
    }


def test_backbones_18_to_152_have_runs_of_their_own():
    for depth in (18, 34, 50, 152):
        run = RUNS[f"core_reid_v2-market1501-cuhk03_np-resnet{depth}"]
        assert run.backbone == f"resnet{depth}"
        assert run.stride == (2 if depth < 50 else 1)

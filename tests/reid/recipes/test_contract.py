"""What every recipe owes the loop: `check_recipe`, over all methods and their variants."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from reid.checkpoint import from_bytes, to_bytes
from reid.data import normalise, torch_loader
from reid.data.datasets import DATASETS
from reid.fit import fit
from reid.models import ema_copy
from reid.override import config_hash, flatten
from reid.recipes import METHODS, RUNS, restore
from reid.recipes.contract import OptimConfig, Recipe, RunConfig, check_teacher, round_seed
from reid.recipes.core_reid_v2 import CoreReIDV2Config

CPU = torch.device("cpu")
CORE_VARIANTS = [(f, b) for f in ("released", "trained") for b in ("three", "shared")]


def check_recipe(
    config: RunConfig, *, world, make_recipe: Callable[[RunConfig], Recipe], make_hooks
) -> None:
    """Assert what the loop relies on, by training a recipe twice for one short round."""
    first, hooks = _train(config, world, make_recipe, make_hooks)
    second, _ = _train(config, world, make_recipe, make_hooks)
    _check_losses(hooks.reports)
    _check_labels(first, hooks.labellings, num_rows=len(world.tables["target"].store))
    _assert_same(first.networks.state_dict(), second.networks.state_dict())
    _check_gradients(second, _batches(second, world, hooks.labellings))
    _check_outputs(first, world)
    _check_state(first, hooks)


def _train(config, world, make_recipe, make_hooks):
    config = replace(config, num_rounds=1, steps_per_round=2)
    recipe, hooks = make_recipe(config), make_hooks(keep_at=[(1, 0)])
    fit(recipe, world.tables, test=world.test, hooks=hooks, device=CPU)
    return recipe, hooks


def _batches(recipe, world, labellings) -> Iterator:
    tables = dict(world.tables)
    if labellings:
        found = labellings[0].labels
        labels = {name: of for view in found for name, of in found[view].named(view).items()}
        tables["target"] = replace(tables["target"], labels=labels)
    config = recipe.config
    steps = {"seed": config.seed, "round": 0, "steps": range(1), "device": CPU}
    return next(torch_loader(tables, recipe.draws, augment=config.augment, **steps))


def _check_losses(reports) -> None:
    terms = {name: value for r in reports for name, value in r.series.items() if name != "lr"}
    assert terms
    for name, values in terms.items():
        assert len(values) == 2
        assert all(math.isfinite(value) and value > 0 for value in values), name


def _check_labels(recipe, labellings, *, num_rows: int) -> None:
    assert len(labellings) == bool(recipe.views)
    for labelling in labellings:
        assert set(labelling.labels) <= set(recipe.views)
        for value in labelling.labels.values():
            assert value.labels.shape == (num_rows,)
            assert len(np.unique(value.labels)) > 1
            assert value.labels.max() < value.num_clusters


def _check_gradients(recipe, batches) -> None:
    """Every weight that wants a gradient gets one (DDP fails otherwise), a teacher none."""
    recipe.networks.train()
    recipe.student.zero_grad(set_to_none=True)
    sum(recipe.losses(batches).values()).backward()
    for name, value in recipe.student.named_parameters():
        if value.requires_grad:
            assert value.grad is not None, name
            assert torch.isfinite(value.grad).all(), name
        else:
            assert value.grad is None, name
    trained = {id(value) for value in recipe.student.parameters()}
    others = [value for value in recipe.networks.parameters() if id(value) not in trained]
    assert not any(value.requires_grad or value.grad is not None for value in others)
    assert bool(others) == ("teacher" in recipe.networks)


def _check_outputs(recipe, world) -> None:
    recipe.networks.eval()
    pixels = torch.from_numpy(world.tables["target"].store.read(np.arange(6)))
    images = normalise(pixels)
    with torch.no_grad():
        outputs = {**recipe.features(images), "embed": recipe.embed(images)}
        mirrored = {**recipe.features(images.flip(3)), "embed": recipe.embed(images.flip(3))}
    assert tuple(outputs) == (*recipe.views, "embed")
    for name, value in outputs.items():
        torch.testing.assert_close(value.norm(dim=1), torch.ones(6))
        torch.testing.assert_close(mirrored[name], value, rtol=1e-4, atol=1e-5)


def _check_state(recipe, hooks) -> None:
    assert hooks.saved_at == [(1, 0)]
    state = from_bytes(hooks.states[0], name="memory")
    _assert_same(state.networks, recipe.networks.state_dict())
    assert state.config == flatten(recipe.config)
    assert state.config_hash == config_hash(recipe.config)
    _assert_same(restore(state).networks.state_dict(), recipe.networks.state_dict())
    again = from_bytes(to_bytes(state), name="memory")
    _assert_same(again.networks, state.networks)


def _assert_same(first: Mapping, second: Mapping) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize(
    "method", ["source", "mean_teacher", "cluster_contrast", "pplr", "spcl", "spcl_usl"]
)
def test_recipe(method, tiny_configs, tiny_world, make_recipe, make_hooks):
    check_recipe(
        tiny_configs[method], world=tiny_world, make_recipe=make_recipe, make_hooks=make_hooks
    )


@pytest.mark.parametrize(("fusion", "batches"), CORE_VARIANTS)
def test_core_reid_v2(fusion, batches, tiny_configs, tiny_world, make_recipe, make_hooks):
    config = replace(tiny_configs["core_reid_v2"], fusion=fusion, batches=batches)
    check_recipe(config, world=tiny_world, make_recipe=make_recipe, make_hooks=make_hooks)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("cluster_contrast", {"memory_update": "hard", "pooling": "gap", "norm_group": 4}),
        ("pplr", {"camera_weight": 0.5, "norm_group": 4, "aals_from": 0}),
        ("core_reid_v1", {}),
        ("core_reid_v1", {"fusion": "trained", "batches": "three"}),
        ("lf2", {}),
        ("core_reid_v1", {"ecab": False, "fusion": "trained"}),
        ("lf2", {"fusion": "none"}),
        ("lf2", {"gate": "slides", "fusion": "trained", "batches": "three"}),
    ],
)
def test_variants(method, changes, tiny_configs, tiny_world, make_recipe, make_hooks):
    config = replace(tiny_configs[method], **changes)
    check_recipe(config, world=tiny_world, make_recipe=make_recipe, make_hooks=make_hooks)


@pytest.mark.parametrize(
    ("method", "fusion"),
    [
        ("core_reid_v2", "released"),
        ("core_reid_v2", "trained"),
        ("core_reid_v1", "trained"),
        ("lf2", "trained"),
    ],
)
def test_attention_and_fusion_learn_only_when_trained(
    method, fusion, tiny_configs, tiny_world, make_recipe, make_hooks
):
    config = replace(tiny_configs[method], fusion=fusion)
    before = ema_copy(make_recipe(config).student)
    recipe, _ = _train(config, tiny_world, make_recipe, make_hooks)
    first = dict(before.named_parameters())
    moved = {
        name: not torch.equal(value, first[name])
        for name, value in recipe.student.named_parameters()
        if "attention" in name or name.startswith("fusion.")
    }
    assert {"net.attention.top", "net.attention.bottom", "fusion.necks.global"} <= {
        ".".join(name.split(".")[:3]) for name in moved
    }
    has_secab = any("fusion.global_attention" in name for name in moved)
    assert has_secab == (method == "core_reid_v2")
    # A neck's bias is 0 by definition, whatever is trained.
    assert all(
        is_moved == (fusion == "trained" and "bias" not in n) for n, is_moved in moved.items()
    )


@pytest.mark.parametrize("name", RUNS)
def test_named_runs_have_a_whole_number_of_images_on_1_2_4_workers(name):
    assert all(RUNS[name].num_identities % world == 0 for world in (1, 2, 4))


@pytest.mark.parametrize(
    "values",
    [
        {"height": 0},
        {"num_rounds": 0},
        {"steps_per_round": -1},
        {"eval_every_rounds": 0},
        {"num_identities": 1},
        {"num_instances": 1},
    ],
)
def test_settings_that_cannot_train_are_refused(values):
    with pytest.raises(ValueError, match=str(next(iter(values.values())))):
        RunConfig(**values)


def test_optimizer_settings_that_cannot_train_are_refused():
    with pytest.raises(ValueError, match=r"optim.lr is 0"):
        OptimConfig(lr=0.0)
    with pytest.raises(ValueError, match=r"optim.weight_decay is -1"):
        OptimConfig(weight_decay=-1.0)


def test_teacher_settings_that_cannot_train_are_refused():
    check_teacher(num_clusters=2, ema_momentum=1.0)
    with pytest.raises(ValueError, match="num_clusters is 1"):
        check_teacher(num_clusters=1, ema_momentum=0.5)
    with pytest.raises(ValueError, match=r"ema_momentum is 1\.5"):
        CoreReIDV2Config(initial="", num_clusters=2, ema_momentum=1.5)


@pytest.mark.parametrize(
    ("backbone", "asked", "expected"),
    [
        ("resnet18", None, 2),
        ("resnet34", None, 2),
        ("resnet18_ibn", None, 2),
        ("resnet50", None, 1),
        ("resnet50_ibn", None, 1),
        ("resnet18", 1, 1),
    ],
)
def test_the_last_stride_follows_the_backbone_unless_given(backbone, asked, expected):
    assert RunConfig(backbone=backbone, last_stride=asked).stride == expected


def test_round_seeds_are_streams_of_their_own():
    seeds = [round_seed(s, r, v) for s in range(3) for r in range(20) for v in range(3)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert round_seed(1, 2, 0) == round_seed(1, 2, 0)


@pytest.mark.parametrize("name", [name for name, run in RUNS.items() if hasattr(run, "initial")])
def test_adaptations_start_from_a_source_run_of_the_same_pair(name):
    start = RUNS[RUNS[name].initial]
    for field in ("source", "backbone", "height", "width", "last_stride"):
        assert getattr(start, field) == getattr(RUNS[name], field)
    assert training_images(start.target) == training_images(RUNS[name].target)


def training_images(dataset: str) -> str:
    """Return a name for what the set trains on: VehicleID's test sizes share it."""
    return "vehicleid" if dataset.startswith("vehicleid_") else dataset


@pytest.mark.parametrize("name", [name for name in RUNS if not name.endswith("-demo")])
def test_named_runs_name_data_sets_there_are(name):
    assert {RUNS[name].source, RUNS[name].target} <= set(DATASETS)


@pytest.mark.parametrize(("name", "method"), METHODS.items())
def test_published_figures_are_of_named_runs_in_percent(name, method):
    assert set(method.published) <= set(method.runs)
    for figure in method.published.values():
        assert 1 < figure.mAP < 100
        assert 1 < figure.rank1 < 100
        assert figure.where

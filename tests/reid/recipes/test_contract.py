"""What every recipe owes the loop: `check_recipe`, over all methods and their variants."""

import re
import sys
from dataclasses import replace

import pytest
import torch

from reid.data.datasets import DATASETS
from reid.models import ema_copy
from reid.recipes import METHODS, RUNS, method_of
from reid.recipes.contract import OptimConfig, RunConfig, check_teacher, round_seed
from reid.recipes.core_reid_v1 import CoreReIDV1Config
from reid.recipes.core_reid_v2 import CoreReIDV2Config
from reid.recipes.lf2 import LF2Config
from tests.reid.conftest import tiny

CPU = torch.device("cpu")
CORE_VARIANTS = [(f, b) for f in ("released", "trained") for b in ("three", "shared")]


@pytest.mark.parametrize("demo", [name for name in RUNS if name.endswith("-demo")])
def test_recipe(demo, tiny_configs, check_recipe):
    check_recipe(tiny_configs[demo.removesuffix("-demo").replace("-", "_")])


def form_of(run):
    """Return a named run for the tiny world, without what tells its data, sizes and starts."""
    config = tiny(run)
    ibn = config.backbone.endswith("_ibn")
    same = {
        "source": "synthetic_b" if run.source == run.target else "synthetic_a",
        "target": "synthetic_b",
        "seed": 1,
        "optim": OptimConfig(),
        "weights": None,
        "backbone": config.backbone if ibn else "resnet18",
        "norm_group": config.norm_group and 4,
        **dict.fromkeys(run.starts, "a run"),
    }
    return replace(config, **same)


NAMED = {form_of(run): name for name, run in RUNS.items() if not name.endswith("-demo")}


@pytest.mark.parametrize("form", [pytest.param(form, id=name) for form, name in NAMED.items()])
def test_every_form_of_named_runs(form, check_recipe):
    check_recipe(form)


def test_every_method_has_a_demo_run():
    methods = {method_of(run) for name, run in RUNS.items() if name.endswith("-demo")}
    assert methods == METHODS.keys()


@pytest.mark.parametrize(("fusion", "batches"), CORE_VARIANTS)
def test_core_reid_v2(fusion, batches, tiny_configs, check_recipe):
    check_recipe(replace(tiny_configs["core_reid_v2"], fusion=fusion, batches=batches))


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("cluster_contrast", {"memory_update": "hard", "pooling": "gap", "norm_group": 4}),
        ("pplr", {"camera_weight": 0.5, "norm_group": 4, "aals_from": 0}),
        ("mmt", {"norm_group": 4, "mining": "local", "inference": "second"}),
        ("mmt_dbscan", {"neck": "source", "norm_group": 4}),
        ("inclr", {"neck": "source", "part_distance": 0.0}),
        ("inclr", {"cluster": "kmeans", "credibility": "external", "aals_from": 0}),
        ("spcl", {"centroids": "mean", "norm_group": 4, "self_paced": False}),
        ("core_reid_v1", {"fusion": "trained", "batches": "three", "norm_group": 4}),
        ("core_reid_v1", {"ecab": False, "fusion": "trained"}),
        ("lf2", {"fusion": "none", "gate": "faded"}),
        ("lf2", {"fusion": "trained", "gate": "faded"}),
        ("mean_teacher", {"norm_group": 4}),
        ("source", {"norm_group": 4}),
        ("lf2", {"gate": "slides", "fusion": "trained", "batches": "three"}),
    ],
)
def test_variants(method, changes, tiny_configs, check_recipe):
    check_recipe(replace(tiny_configs[method], **changes))


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
    method, fusion, tiny_configs, make_recipe, train
):
    config = replace(tiny_configs[method], fusion=fusion)
    before = ema_copy(make_recipe(config).student)
    recipe, _ = train(config)
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
        {"extract_batch": 0},
        {"num_identities": 1},
        {"num_instances": 1},
    ],
)
def test_settings_that_cannot_train_are_refused(values):
    with pytest.raises(ValueError, match=str(next(iter(values.values())))):
        RunConfig(**values)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lr", 0.0),
        ("weight_decay", -1.0),
        ("clip_norm", 0.0),
        ("clip_norm", -1.0),  # would turn gradients round
        ("warmup_rounds", -1),
    ],
)
def test_optimizer_settings_that_cannot_train_are_refused(field, value):
    with pytest.raises(ValueError, match=f"optim.{field} is {value}; it must "):
        OptimConfig(**{field: value})


def test_teacher_settings_that_cannot_train_are_refused():
    check_teacher(CoreReIDV2Config(initial="", num_clusters=2, ema_momentum=1.0, smoothing=0.0))
    for field, value in (("num_clusters", 1), ("ema_momentum", 1.5), ("smoothing", -0.1)):
        with pytest.raises(ValueError, match=f"{field} is {value}; it must "):
            CoreReIDV2Config(**{"initial": "", "num_clusters": 2, field: value})


@pytest.mark.parametrize("config", [CoreReIDV1Config, CoreReIDV2Config, LF2Config])
@pytest.mark.parametrize("field", ["global_triplet", "part_triplet", "fused_triplet"])
def test_negative_weights_are_refused(config, field):
    with pytest.raises(ValueError, match=f"{field} is -0.5; it must be at least 0"):
        config(**{"initial": "", "num_clusters": 2, field: -0.5})


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


STARTS = [(name, start) for name, run in RUNS.items() for start in run.starts.values()]


@pytest.mark.parametrize(("name", "start"), STARTS)
def test_adaptations_start_from_source_runs_of_the_same_pair(name, start):
    start = RUNS[start]
    for field in ("source", "backbone", "height", "width", "last_stride"):
        assert getattr(start, field) == getattr(RUNS[name], field)
    assert training_images(start.target) == training_images(RUNS[name].target)


@pytest.mark.parametrize("name", [name for name, run in RUNS.items() if len(run.starts) > 1])
def test_two_students_start_from_runs_of_two_seeds_that_share_a_space(name):
    first, second = (RUNS[start] for start in RUNS[name].starts.values())
    assert (first.seed, second.seed) == (1, 2)
    assert replace(second, seed=1, initial=None, num_rounds=first.num_rounds) == first
    # Both begin with pre-trained weights, or else with the same rounds; updates are as many.
    shared = 0
    if first.weights is None:
        begun = RUNS[second.initial]
        assert replace(begun, num_rounds=first.num_rounds) == first
        shared = begun.num_rounds
    assert (second.initial is None) == (shared == 0)
    assert shared + second.num_rounds == first.num_rounds


def training_images(dataset: str) -> str:
    """Return a name for what the set trains on: test sets of several sizes share it."""
    several = dataset.startswith(("vehicleid_", "veriwild_"))
    return dataset.partition("_")[0] if several else dataset


@pytest.mark.parametrize("name", [name for name in RUNS if not name.endswith("-demo")])
def test_named_runs_name_data_sets_there_are(name):
    assert {RUNS[name].source, RUNS[name].target} <= set(DATASETS)


@pytest.mark.parametrize(("name", "method"), METHODS.items())
def test_a_recipe_says_its_paper_its_command_and_what_is_published(name, method):
    said = sys.modules[method.recipe.__module__].__doc__
    commands = re.findall(r"^ {4}python -m jobs\.train (\S+)$", said, flags=re.MULTILINE)
    assert commands
    assert {method_of(RUNS[command]) for command in commands} == {name}
    assert re.search(r"arXiv \d{4}\.\d{5}|paper \d{3}", said)
    assert "Published" in said


@pytest.mark.parametrize(("name", "method"), METHODS.items())
def test_published_figures_are_of_named_runs_in_percent(name, method):
    assert set(method.published) <= set(method.runs)
    for figure in method.published.values():
        assert 1 < figure.mAP < 100
        assert 1 < figure.rank1 < 100
        assert figure.where

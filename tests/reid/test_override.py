"""Configs as values, and every named run through its flat form and back."""

import json
from dataclasses import dataclass, fields, is_dataclass, replace

import pytest
import torch

from reid.checkpoint import RunState
from reid.fit import snapshot
from reid.optim import make_optimizer
from reid.override import config_hash, differences, flatten, override, override_all
from reid.recipes import RUNS, from_flat, method_of, restore


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5
    milestones: tuple[int, ...] = (4, 7)


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str = "a"
    weights: str | None = None
    inner: Inner = Inner()


@dataclass(frozen=True, kw_only=True)
class Other(Outer):
    """The same fields under another name."""


def test_a_dotted_path_replaces_one_value():
    config = Outer()
    assert override(config, "inner.rate", 0.25) == Outer(inner=Inner(rate=0.25))
    assert override(config, "name", "b") == Outer(name="b")
    assert config == Outer()


@pytest.mark.parametrize(
    ("path", "owner", "near"),
    [("inner.rat", "Inner", "rate"), ("namme", "Outer", "name"), ("iner.rate", "Outer", "inner")],
)
def test_a_wrong_path_names_the_nearest_right_one(path, owner, near):
    with pytest.raises(KeyError, match=f"{owner} has no field .*did you mean '{near}'"):
        override(Outer(), path, 1)


def test_a_path_like_nothing_lists_the_fields():
    with pytest.raises(KeyError, match="it has name, weights, inner"):
        override(Outer(), "zzz", 1)


def test_flatten_lists_every_leaf_once_in_field_order():
    assert list(flatten(Outer()).items()) == [
        ("name", "a"),
        ("weights", None),
        ("inner.rate", 0.5),
        ("inner.milestones", [4, 7]),
    ]


def leaves(config, prefix=""):
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


@pytest.mark.parametrize("name", RUNS)
def test_a_run_survives_its_flat_form_and_json(name):
    config = RUNS[name]
    flat = flatten(config)
    assert list(flat) == [path for path, _ in leaves(config)]
    stored = json.loads(json.dumps(flat))
    back = from_flat(type(config).__name__, stored)
    assert back == config
    assert type(back) is type(config)
    assert config_hash(back) == config_hash(config)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_named_after_its_method(name):
    assert name.startswith(
        (f"{method_of(RUNS[name])}-", f"{method_of(RUNS[name])}_usl-", "supervised")
    )


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("cluster_contrast-demo", {"dbscan.k1": 5, "dbscan.k2": 3}),
        ("mmt-dbscan-demo", {"k1": 5, "k2": 3}),
        ("spcl-demo", {"dbscan.eps": 0.99, "eps_gap": 0.001}),
    ],
)
def test_values_that_only_go_together_survive_the_flat_form(name, values):
    config = override_all(RUNS[name], values)
    assert from_flat(type(config).__name__, flatten(config)) == config


def test_from_flat_refuses_what_this_version_lacks():
    config = RUNS["source-demo"]
    with pytest.raises(ValueError, match="no method has a config called Nonsense"):
        from_flat("Nonsense", {})
    with pytest.raises(ValueError, match=r"another version.*'lrr'"):
        from_flat(type(config).__name__, {**flatten(config), "optim.lrr": 1.0})


def test_the_hash_names_the_class_and_every_value():
    config = Outer()
    changed = [
        replace(config, name="b"),
        replace(config, weights="None"),
        replace(config, inner=Inner(rate=0.5000001)),
        replace(config, inner=Inner(milestones=(4,))),
        Other(),
    ]
    hashes = [config_hash(value) for value in (config, *changed)]
    assert len(set(hashes)) == len(hashes)
    assert all(len(value) == 12 and int(value, 16) >= 0 for value in hashes)
    assert config_hash(Outer(inner=Inner())) == config_hash(config)
    by_hash = {config_hash(run): run for run in RUNS.values()}
    assert len(by_hash) == len(RUNS)


def test_differences_are_one_line_a_path():
    mine, other = flatten(Outer(inner=Inner(rate=1.0))), flatten(Outer(name="b"))
    assert differences(mine, other) == ["inner.rate: 0.5 -> 1.0", "name: 'b' -> 'a'"]
    assert differences(mine, mine) == []
    assert differences({"new": 1}, {"old": 2}) == ["new: (absent) -> 1", "old: 2 -> (absent)"]


@pytest.mark.parametrize(
    "method", ["source", "core_reid_v2", "mean_teacher", "cluster_contrast", "pplr"]
)
def test_a_restored_recipe_embeds_as_the_original(method, tiny_configs, make_recipe):
    recipe = make_recipe(tiny_configs[method])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # weights that no config alone leads to
        for value in recipe.networks.parameters():
            value.add_(0.01 * torch.randn(value.shape, generator=generator))
    optimizer = make_optimizer(recipe.student, recipe.config.optim)
    state: RunState = snapshot(recipe, optimizer, round=1, step=0, labels={})
    found = restore(state)
    recipe.networks.eval()
    images = torch.randn((3, 3, 32, 16), generator=generator)
    with torch.no_grad():
        assert torch.equal(found.embed(images), recipe.embed(images))
    assert found.config == replace(recipe.config, weights=found.config.weights)

"""What every recipe owes the loop: `check_recipe` trains one for a short round and looks."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from reid.checkpoint import from_bytes, to_bytes
from reid.data import normalise, torch_loader
from reid.fit import fit
from reid.override import config_hash, flatten
from reid.recipes import restore
from reid.recipes.contract import RunConfig
from reid.recipes.mining import MiningConfig

CPU = torch.device("cpu")


@pytest.fixture
def train(tiny_world, make_recipe, make_hooks) -> Callable[[RunConfig], tuple]:
    """Return a function that trains a config for two steps and returns recipe and hooks."""

    def train(config: RunConfig) -> tuple:
        config = replace(config, num_rounds=1, steps_per_round=2)
        recipe, hooks = make_recipe(config), make_hooks(keep_at=[(1, 0)])
        fit(recipe, tiny_world.tables, test=tiny_world.test, hooks=hooks, device=CPU)
        return recipe, hooks

    return train


@pytest.fixture
def check_recipe(tiny_world, train) -> Callable[[RunConfig], None]:
    """Return a function that asserts what the loop relies on, by training a recipe twice."""

    def check(config: RunConfig) -> None:
        first, hooks = train(config)
        second, _ = train(config)
        _check_losses(hooks.reports)
        _check_mining(config, hooks.reports[0].series)
        _check_labels(first, hooks.labellings, num_rows=len(tiny_world.tables["target"].store))
        _assert_same(first.networks.state_dict(), second.networks.state_dict())
        _check_gradients(second, _batches(second, tiny_world, hooks.labellings))
        _check_outputs(first, tiny_world)
        _check_state(first, hooks)

    return check


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


def _check_mining(config, terms) -> None:
    """Triplets come with a say in where they are sought; who has none knows no such option."""
    has_triplets = any("triplet" in name for name in terms)
    assert has_triplets == isinstance(config, MiningConfig) == hasattr(config, "mining")


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
    torch.testing.assert_close(dict(first), dict(second), rtol=0, atol=0, equal_nan=True)

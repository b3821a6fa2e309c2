"""The loop: exact resumption, schedule, clipping, what is reported and what is saved."""

import hashlib
import math
import time
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from reid.checkpoint import from_bytes
from reid.data import loaders, torch_loader
from reid.fit import fit, stretches
from reid.optim import learning_rate, update
from reid.recipes.contract import OptimConfig

CPU = torch.device("cpu")
RESET = OptimConfig(lr=1e-3, optimizer_reset=True)


@pytest.fixture(scope="module")
def run(tiny_world, make_recipe, make_hooks):
    """Return a function that trains a tiny config and returns (recipe, hooks)."""

    def go(config, *, recipe=None, state=None, save_every_steps=None, loader="torch", **options):
        recipe, hooks = recipe or make_recipe(config), make_hooks(**options)
        fit(
            recipe,
            tiny_world.tables,
            test=tiny_world.test,
            hooks=hooks,
            device=CPU,
            loader=loader,
            state=state,
            save_every_steps=save_every_steps,
        )
        return recipe, hooks

    return go


def digest(recipe):
    """Return a hash of every network tensor, by name."""
    found = hashlib.sha256()
    for name, value in recipe.networks.state_dict().items():
        found.update(name.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()


def series(reports):
    """Return {name: one value a step} of consecutive stretches."""
    names = reports[0].series
    return {name: [v for r in reports for v in r.series[name]] for name in names}


RESUMED = {
    "source": [(1, 2)],
    "mean_teacher": [(1, 0), (1, 2)],
    "core_reid_v2": [(1, 2)],
    "core_reid_v1": [(0, 2)],
    "lf2": [(1, 0)],
    "mmt": [(1, 2)],
    "mmt_dbscan": [(0, 2)],
    "inclr": [(1, 2)],
    "spcl": [(1, 2)],
    "spcl_kept": [(1, 0), (1, 2)],
    "spcl_usl": [(0, 2)],
    "cluster_contrast": [(0, 2), (1, 2)],
    "pplr": [(1, 0), (1, 2)],
}
"""Stops (round, step within it) of a demo run, from each of which it goes on."""


@pytest.mark.parametrize(("method", "stops"), RESUMED.items())
def test_a_resumed_run_ends_with_the_same_bits(method, stops, tiny_configs, run):
    config = tiny_configs[method.removesuffix("_kept")]
    if method == "core_reid_v2":
        config = replace(config, optim=RESET, batches="three")
    if method == "spcl_kept":
        config = replace(config, memory="kept")
    if method == "pplr":  # what is remembered of a round differs in shape and kind
        config = replace(config, camera_weight=0.5, aals_from=1)
    whole, hooks = run(config, save_every_steps=2, keep_at=stops)
    assert hooks.saved_at == [(0, 2), (1, 0), (1, 2), (2, 0)]
    for stop, data in zip(stops, hooks.states, strict=True):
        state = from_bytes(data, name="memory")
        assert (state.round, state.step) == stop
        assert bool(state.labels) == (state.step > 0 and method != "source")
        resumed, after = run(config, state=state)  # with fewer saves than the first run made
        assert digest(resumed) == digest(whole)
        assert after.reports[-1].metrics == hooks.reports[-1].metrics
        before = hooks.reports[: hooks.saved_at.index(stop) + 1]
        assert series([*before, *after.reports]) == series(hooks.reports)
        if method == "mmt_dbscan":  # found in the first round, never again
            assert state.networks["memory.eps"] == whole.memory["eps"] > 0
        left = range(state.round + (state.step > 0), config.num_rounds)
        assert after.rounds == ([] if method == "source" else list(left))  # none clustered twice


def test_every_demo_run_is_resumed(tiny_configs):
    assert {name.removesuffix("_kept") for name in RESUMED} >= tiny_configs.keys() - {
        "supervised",  # the source run on other data
        "source_begun",
        "source_seed2",
        "pplr_camera",  # what "pplr" is changed to
    }


def test_either_loader_trains_and_is_kept_in_the_state(tiny_configs, run):
    config = replace(tiny_configs["source"], num_rounds=1)
    _, expected = run(config)
    _, hooks = run(config, loader="dali")
    assert (expected.last_state.loader, hooks.last_state.loader) == ("torch", "dali")
    found, wanted = series(hooks.reports)["id"], series(expected.reports)["id"]
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)  # before updates widen roundings
    assert found == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("method", ["source", "core_reid_v2"])
def test_a_hurried_save_lies_inside_a_round_and_changes_no_bit(
    method, tiny_configs, run, make_hooks, monkeypatch
):
    monkeypatch.setattr("reid.fit.CHECK_EVERY", 2)
    config = replace(tiny_configs[method], num_rounds=2)
    asked = []

    def hurried(hooks):
        asked.append(len(hooks.saved_at))
        return len(asked) == 2  # in the second round

    whole, _ = run(config)
    with monkeypatch.context() as patch:
        patch.setattr(type(make_hooks()), "hurried", hurried, raising=False)
        recipe, hooks = run(config, keep_at=[(1, 2)])
    assert asked == [0, 1]
    assert hooks.saved_at == [(1, 0), (1, 2), (2, 0)]
    assert [(r.round, r.first_step) for r in hooks.reports] == [(0, 0), (1, 3), (1, 5)]
    assert digest(recipe) == digest(whole)
    resumed, _ = run(config, state=from_bytes(hooks.states[0], name="memory"))
    assert digest(resumed) == digest(whole)


def test_a_finished_run_has_nothing_left_to_do(tiny_configs, run):
    config = replace(tiny_configs["source"], num_rounds=1, steps_per_round=1)
    _, first = run(config, keep_at=[(1, 0)])
    before = from_bytes(first.states[-1], name="memory")
    recipe, again = run(config, state=before)
    assert (before.round, before.step) == (config.num_rounds, 0)
    assert again.reports == again.saved_at == again.rounds == []
    torch.testing.assert_close(
        dict(recipe.networks.state_dict()), dict(before.networks), rtol=0, atol=0
    )


def test_reports_of_stretches(tiny_configs, run):
    config = replace(tiny_configs["mean_teacher"], eval_every_rounds=3, num_rounds=2)
    _, hooks = run(config, save_every_steps=2)
    reports = hooks.reports
    assert [(r.round, r.first_step) for r in reports] == [(0, 0), (0, 2), (1, 3), (1, 5)]
    assert hooks.saved_at == [(0, 2), (1, 0), (1, 2), (2, 0)]
    assert [len(r.series["lr"]) for r in reports] == [2, 1, 2, 1]
    assert all(r.series.keys() == {"id", "triplet", "lr"} for r in reports)
    health = {"global": {"num_clusters": 8.0}}
    assert [r.health for r in reports] == [health, {}, health, {}]
    assert ["extract" in r.seconds for r in reports] == [True, False, True, False]
    # Evaluated every third round and after the last one, which is the second.
    assert [r.metrics is None for r in reports] == [True, True, True, False]
    assert [round for round, _ in hooks.evaluations] == [1]
    assert ["evaluate" in r.seconds for r in reports] == [False, False, False, True]
    images = config.num_identities * config.num_instances
    for report in reports:
        expected = images * len(report.series["lr"]) / report.seconds["train"]
        assert report.images_per_s == pytest.approx(expected)
    rates = [learning_rate(config.optim, step, 3, 2) for step in range(6)]
    assert series(reports)["lr"] == rates


def test_waiting_for_batches_is_reported_apart_from_training(
    tiny_configs, make_recipe, run, monkeypatch
):
    config = replace(tiny_configs["source"], num_rounds=1)
    recipe, clock = make_recipe(config), [0.0]
    losses = recipe.losses

    def slow_loader(*args, **kwargs):
        for batches in torch_loader(*args, **kwargs):
            clock[0] += 2.0
            yield batches

    def slow_losses(batches):
        clock[0] += 5.0
        return losses(batches)

    recipe.losses = slow_losses
    monkeypatch.setattr(loaders, "by_name", lambda _: slow_loader)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    _, hooks = run(config, recipe=recipe, save_every_steps=2)
    assert [r.data_wait_s for r in hooks.reports] == [2 * 2.0, 1 * 2.0]
    assert [r.seconds["train"] for r in hooks.reports] == [2 * 7.0, 1 * 7.0]


@pytest.mark.parametrize("reset", [False, True])
def test_optimizer_reset_forgets_the_moments(reset, tiny_configs, run):
    optim = OptimConfig(lr=1e-3, optimizer_reset=reset)
    config = replace(tiny_configs["mean_teacher"], optim=optim, steps_per_round=1)
    _, hooks = run(config)
    counts = {float(of["step"]) for of in hooks.last_state.optimizer["state"].values()}
    assert counts == {1.0 if reset else 2.0}


def test_a_loss_that_is_not_finite_names_round_and_step(tiny_configs, make_recipe, run):
    config = replace(tiny_configs["source"], steps_per_round=2)
    recipe = make_recipe(config)
    losses, calls = recipe.losses, []

    def broken(batches):
        calls.append(batches)
        terms = losses(batches)
        is_last = len(calls) == 2 * config.steps_per_round
        return {**terms, "id": terms["id"] * (math.nan if is_last else 1.0)}

    recipe.losses = broken
    with pytest.raises(FloatingPointError, match=r"loss is nan in round 1, step 1: .*'id': nan"):
        run(config, recipe=recipe)


@pytest.mark.parametrize("first", [0, 1, 5, 9])
@pytest.mark.parametrize("every", [None, 1, 3, 5, 10, 12])
def test_stretches_cover_the_round_and_end_at_multiples(first, every):
    found = stretches(first, 10, every)
    assert [step for part in found for step in part] == list(range(first, 10))
    assert all(len(part) > 0 for part in found)
    inner = {part.stop for part in found[:-1]}
    assert inner == {step for step in range(first + 1, 10) if every and step % every == 0}


def test_rate_warms_up_linearly_from_a_hundredth():
    config = OptimConfig(lr=0.4, warmup_rounds=5)
    rates = [learning_rate(config, step, 10, 20) for step in range(51)]
    assert rates[0] == pytest.approx(0.004)
    assert rates[50] == 0.4
    gaps = [b - a for a, b in pairwise(rates)]
    assert gaps == pytest.approx([0.4 * 0.99 / 50] * 50)
    assert {learning_rate(config, step, 10, 20) for step in range(50, 200)} == {0.4}


def test_rate_falls_by_ten_at_each_milestone():
    config = OptimConfig(lr=0.4, warmup_rounds=1, milestones=(4, 7))
    for step in range(10, 100):
        passed = (step >= 40) + (step >= 70)
        assert learning_rate(config, step, 10, 10) == pytest.approx(0.4 / 10**passed)


def test_cosine_falls_to_zero_after_the_warm_up():
    config = OptimConfig(lr=0.4, warmup_rounds=2, lr_decay="cosine")
    assert learning_rate(config, 20, 10, 12) == 0.4
    assert learning_rate(config, 70, 10, 12) == pytest.approx(0.2)  # half way from 20 to 120
    assert learning_rate(config, 120, 10, 12) == pytest.approx(0.0, abs=1e-15)
    for step in range(20, 120):
        angle = math.pi * (step - 20) / 100
        expected = 0.4 * math.cos(angle / 2) ** 2  # (1 + cos x) / 2 = cos^2 (x/2)
        assert learning_rate(config, step, 10, 12) == pytest.approx(expected)


@pytest.mark.parametrize("clip_norm", [None, 0.5, 1e6])
def test_a_step_follows_the_sum_of_the_terms_up_to_the_clip_norm(clip_norm):
    layer = torch.nn.Linear(3, 2, bias=False)
    before = layer.weight.detach().clone()
    inputs = torch.arange(12.0).reshape(4, 3)
    outputs = layer(inputs)
    terms = {"a": outputs.sum(), "b": 2 * outputs.sum()}
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    update(layer, optimizer, terms, clip_norm=clip_norm)
    moved = before - layer.weight.detach()
    gradient = 3 * inputs.sum(0).expand(2, 3)  # of 3 * sum(W x)
    if clip_norm == 0.5:
        assert moved.norm() == pytest.approx(0.5, rel=1e-4)
        gradient = gradient * 0.5 / gradient.norm()
    torch.testing.assert_close(moved, gradient, rtol=1e-4, atol=1e-6)


def test_a_step_starts_without_old_gradients():
    layer = torch.nn.Linear(2, 1, bias=False)
    layer.weight.grad = torch.full((1, 2), 100.0)
    before = layer.weight.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    update(layer, optimizer, {"a": layer(torch.ones(1, 2)).sum()}, clip_norm=None)
    torch.testing.assert_close(layer.weight.detach(), before - 1)

"""The loop of every method: rounds of extract and cluster, train, evaluate. The only loop.

Any run resumes exactly: all randomness is a function of (seed, round, step, rank), so the state is
the weights, the optimizer's moments and two counters.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from reid import dist
from reid.checkpoint import RunState
from reid.data import loaders
from reid.data.loaders import LoaderName
from reid.data.steps import Table
from reid.evaluate import Evaluation, TestSplit, evaluate, metrics
from reid.extract import autocast, extract_all
from reid.optim import learning_rate, make_optimizer, update
from reid.override import config_hash, flatten
from reid.recipes.contract import CameraAware, Recipe, Remembering, RunConfig
from reid.types import PseudoLabels, Report

CHECK_EVERY = 10
"""steps between looks at the loss: each waits for the device"""


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """The labels of a round, the seconds of its parts, and each clustering's health."""

    labels: Mapping[str, PseudoLabels]
    seconds: Mapping[str, float]
    health: Mapping[str, Mapping[str, float]]


@runtime_checkable
class Hooks(Protocol):
    """What surrounds the loop: labels come in; reports, states and progress go out."""

    def label(self, recipe: Recipe, round: int) -> Labelling:
        """Return the round's labels, the same on every rank."""
        ...

    def evaluated(self, round: int, found: Evaluation) -> None:
        """Keep what the test split's queries found after a round (called on every rank)."""
        ...

    def report(self, report: Report) -> None:
        """Publish a stretch of a round (called on every rank)."""
        ...

    def save(self, state: RunState) -> None:
        """Keep the state (called on rank 0)."""
        ...

    def progress(self, what: str, done: int, total: int, *, note: str = "") -> None:
        """Show how far a part of a round is."""
        ...


def fit(
    recipe: Recipe,
    tables: Mapping[str, Table],
    *,
    test: TestSplit,
    hooks: Hooks,
    device: torch.device,
    loader: LoaderName = "torch",
    state: RunState | None = None,
    save_every_steps: int | None = None,
) -> None:
    """Train a recipe from `state` (or its first weights) to its last round.

    `save_every_steps` saves inside rounds too; a state is always saved after a round. Batches come
    from the loader of this name, which is kept in the states.
    """
    config = recipe.config
    recipe.networks.to(device).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(recipe.student, config.optim)
    first_round, step, labels = 0, 0, dict[str, PseudoLabels]()
    if state is not None:
        recipe.networks.load_state_dict(state.networks)
        optimizer.load_state_dict(dict(state.optimizer))
        first_round, step, labels = state.round, state.step, dict(state.labels)
    if isinstance(recipe, CameraAware):
        recipe.know_cameras(tables["target"].camid)
    recipe.student = dist.wrap(recipe.student)

    for round in range(first_round, config.num_rounds):
        labelling = Labelling(labels=labels, seconds={}, health={})
        if step == 0:
            if isinstance(recipe, Remembering):
                recipe.networks.eval()
                extract = partial(_whole, tables, config=config, device=device)
                recipe.remember(extract, tables, round=round)
            labelling = begin_round(recipe, hooks, round)
            if config.optim.optimizer_reset:
                optimizer = make_optimizer(recipe.student, config.optim)
        for steps in stretches(step, config.steps_per_round, save_every_steps):
            started = time.perf_counter()
            series = train(
                recipe,
                optimizer,
                _with_labels(tables, labelling.labels),
                round=round,
                steps=steps,
                hooks=hooks,
                device=device,
                loader=loader,
            )
            seconds = time.perf_counter() - started
            hooks.report(
                _report(recipe, test, hooks, labelling, round, steps, series, seconds, device)
            )
            if dist.rank() == 0:
                last = steps.stop == config.steps_per_round
                at = (round + 1, 0) if last else (round, steps.stop)
                kept = {} if last else labelling.labels
                hooks.save(
                    snapshot(recipe, optimizer, round=at[0], step=at[1], labels=kept, loader=loader)
                )
        step, labels = 0, {}


def begin_round(recipe: Recipe, hooks: Hooks, round: int) -> Labelling:
    """Label the round and let the recipe take the labels up; empty where labels are given."""
    labelling = Labelling(labels={}, seconds={}, health={})
    if recipe.views:
        recipe.networks.eval()
        labelling = hooks.label(recipe, round)
    recipe.begin_round(labelling.labels)
    return labelling


def stretches(first_step: int, steps_per_round: int, save_every_steps: int | None) -> list[range]:
    """Return the round's steps from `first_step` on, cut at multiples of `save_every_steps`."""
    every = save_every_steps or steps_per_round
    edges = [first_step, *range((first_step // every + 1) * every, steps_per_round, every)]
    return [range(a, b) for a, b in zip(edges, [*edges[1:], steps_per_round], strict=True)]


def train(
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    tables: Mapping[str, Table],
    *,
    round: int,
    steps: range,
    hooks: Hooks,
    device: torch.device,
    loader: LoaderName = "torch",
) -> dict[str, list[float]]:
    """Make the round's updates `steps`; return {loss term or "lr": one value a step}.

    Ends with BatchNorm statistics averaged over ranks. Raises FloatingPointError when the loss is
    not finite.
    """
    config = recipe.config
    made = loaders.by_name(loader)(
        tables,
        recipe.draws,
        augment=config.augment,
        seed=config.seed,
        round=round,
        steps=steps,
        rank=dist.rank(),
        world=dist.world_size(),
        device=device,
    )
    recipe.networks.train()
    history: list[dict[str, Tensor]] = []
    rates: list[float] = []
    for step, batches in zip(steps, made, strict=True):
        total_step = round * config.steps_per_round + step
        rates.append(
            learning_rate(config.optim, total_step, config.steps_per_round, config.num_rounds)
        )
        for group in optimizer.param_groups:
            group["lr"] = rates[-1]
        with autocast(device, config.precision):
            terms = recipe.losses(batches)
        update(recipe.student, optimizer, terms, clip_norm=config.optim.clip_norm)
        recipe.after_step(step=total_step)
        history.append({name: term.detach() for name, term in terms.items()})
        if (step + 1) % CHECK_EVERY == 0 or step == steps[-1]:
            total = _finite_total(history[-1], round=round, step=step)
            hooks.progress("train", step + 1, config.steps_per_round, note=f"loss {total:.2f}")
    dist.average_buffers(recipe.networks)
    columns = {name: torch.stack([row[name] for row in history]).tolist() for name in history[0]}
    return {**columns, "lr": rates}


def snapshot(
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    *,
    round: int,
    step: int,
    labels: Mapping[str, PseudoLabels],
    loader: LoaderName = "torch",
) -> RunState:
    """Return the run's state, ready to be saved; its tensors are still the live ones."""
    return RunState(
        networks=recipe.networks.state_dict(),
        optimizer=optimizer.state_dict(),
        round=round,
        step=step,
        labels=labels,
        loader=loader,
        config=flatten(recipe.config),
        config_hash=config_hash(recipe.config),
        kind=type(recipe.config).__name__,
        sizes=asdict(recipe.sizes),
    )


def _whole(
    tables: Mapping[str, Table],
    table: str,
    function: Callable[[Tensor], Tensor],
    *,
    config: RunConfig,
    device: torch.device,
) -> Tensor:
    """Return a function's values over all images of a table, on the device of every rank."""
    return extract_all(
        function,
        tables[table].store,
        batch_size=config.extract_batch,
        device=device,
        precision=config.precision,
    )


def _with_labels(
    tables: Mapping[str, Table], labels: Mapping[str, PseudoLabels]
) -> dict[str, Table]:
    """Return the tables with the target's labels replaced by the round's."""
    if not labels:
        return dict(tables)
    fresh = {name: of for view, value in labels.items() for name, of in value.named(view).items()}
    return {**tables, "target": replace(tables["target"], labels=fresh)}


def _report(
    recipe: Recipe,
    test: TestSplit,
    hooks: Hooks,
    labelling: Labelling,
    round: int,
    steps: range,
    series: Mapping[str, list[float]],
    train_seconds: float,
    device: torch.device,
) -> Report:
    """Return what a stretch did, evaluated where it ends a round that is to be."""
    config = recipe.config
    first, last = steps.start == 0, steps.stop == config.steps_per_round
    seconds = {"train": train_seconds, **(labelling.seconds if first else {})}
    scores = None
    if last and _is_evaluated(round, config):
        started = time.perf_counter()
        found = evaluate(recipe, test, device=device)
        hooks.evaluated(round, found)
        scores, seconds["evaluate"] = metrics(found.scores), time.perf_counter() - started
    return Report(
        round=round,
        first_step=round * config.steps_per_round + steps.start,
        series=series,
        health=labelling.health if first else {},
        metrics=scores,
        seconds=seconds,
        images_per_s=len(steps) * _images_per_step(recipe) / train_seconds,
    )


def _is_evaluated(round: int, config: RunConfig) -> bool:
    return (round + 1) % config.eval_every_rounds == 0 or round + 1 == config.num_rounds


def _finite_total(terms: Mapping[str, Tensor], *, round: int, step: int) -> float:
    values = {name: float(term) for name, term in terms.items()}
    total = sum(values.values())
    if not math.isfinite(total):
        raise FloatingPointError(
            f"the loss is {total} in round {round}, step {step}: {values}; lower --optim.lr or set "
            "--optim.clip-norm"
        )
    return total


def _images_per_step(recipe: Recipe) -> int:
    return len(recipe.draws) * recipe.config.num_identities * recipe.config.num_instances

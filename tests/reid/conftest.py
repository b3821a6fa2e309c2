"""A world small enough to train on in a second, and hooks that label it in this process."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reid import dist
from reid.checkpoint import RunState, to_bytes
from reid.clustering import DBSCANConfig, split
from reid.data import AugmentConfig, PixelStore, Table, open_pixels
from reid.data.datasets import load
from reid.data.synthetic import WorldConfig, write_world
from reid.evaluate import Evaluation, TestSplit
from reid.extract import features, rank_rows
from reid.fit import Labelling
from reid.models import BackboneName, GlobalNet, resnet
from reid.recipes import RUNS, RunConfig, build
from reid.recipes.contract import Recipe, Sizes
from reid.types import Report, Split

CPU = torch.device("cpu")
HEIGHT, WIDTH = 32, 16
TINY: dict[str, Any] = {
    "height": HEIGHT,
    "width": WIDTH,
    "last_stride": 1,
    "num_identities": 4,
    "num_instances": 2,
    "num_rounds": 2,
    "steps_per_round": 3,
    "eval_every_rounds": 1,
    "precision": "float32",
    "extract_batch": 16,
    "augment": AugmentConfig(pad=2),
}
TINY_DBSCAN = DBSCANConfig(k1=8, k2=2, eps=0.7, min_samples=2)


@dataclass(frozen=True)
class World:
    """What `fit` is given besides the recipe, and the target's true identities."""

    tables: Mapping[str, Table]
    test: TestSplit
    sizes: Sizes


@dataclass
class Recording:
    """Hooks that extract and cluster here (every rank solves the same problem) and keep all."""

    store: PixelStore
    keep_at: Sequence[tuple[int, int]] = ()
    rounds: list[int] = field(default_factory=list)
    labellings: list[Labelling] = field(default_factory=list)
    evaluations: list[tuple[int, Evaluation]] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    states: list[bytes] = field(default_factory=list)
    saved_at: list[tuple[int, int]] = field(default_factory=list)
    last_state: RunState | None = None
    shown: list[tuple[str, int, int]] = field(default_factory=list)

    def label(self, recipe: Recipe, round: int) -> Labelling:
        size, world = recipe.config.extract_batch, dist.world_size()
        rows = rank_rows(len(self.store), batch_size=size, rank=dist.rank(), world=world)
        mine = features(recipe, self.store, rows=rows, device=CPU)
        pools = {view: split(dist.all_gather_rows(value), 1) for view, value in mine.items()}
        found = recipe.label(pools, round=round)
        health = {view: {"num_clusters": float(v.num_clusters)} for view, v in found.items()}
        self.rounds.append(round)
        self.labellings.append(Labelling(labels=found, seconds={"extract": 1.0}, health=health))
        return self.labellings[-1]

    def evaluated(self, round: int, found: Evaluation) -> None:
        self.evaluations.append((round, found))

    def report(self, report: Report) -> None:
        self.reports.append(report)

    def save(self, state: RunState) -> None:
        self.saved_at.append((state.round, state.step))
        self.last_state = state
        if self.saved_at[-1] in self.keep_at:
            self.states.append(to_bytes(state))

    def progress(self, what: str, done: int, total: int, *, note: str = "") -> None:
        self.shown.append((what, done, total))


def _pixels(split: Split, folder: Path) -> PixelStore:
    return open_pixels(split.path, height=HEIGHT, width=WIDTH, cache_dir=folder)


def make_world(folder: Path) -> World:
    """Write the tiny world to a folder."""
    for domain in ("a", "b"):
        config = WorldConfig(
            domain=domain,
            num_train_identities=8,
            num_train_images=64,
            num_test_identities=4,
            num_test_images_per_identity=5,
            num_queries_per_identity=1,
            num_distractors=2,
            num_junk=2,
            num_cameras=4,
            height=HEIGHT,
            width=WIDTH,
        )
        write_world(folder / f"synthetic_{domain}", config)
    sets = {n: load(f"synthetic_{d}", folder / f"synthetic_{d}") for n, d in NAMES.items()}
    tables = {}
    for name, data in sets.items():
        identity = data.train.pid - data.train.pid.min()
        labels = {"identity": identity} if name == "source" else {}
        store = _pixels(data.train, folder / "pixels")
        tables[name] = Table(store=store, camid=data.train.camid, labels=labels)
    target = sets["target"]
    test = TestSplit(
        query=target.query,
        gallery=target.gallery,
        query_pixels=_pixels(target.query, folder / "pixels"),
        gallery_pixels=_pixels(target.gallery, folder / "pixels"),
    )
    sizes = Sizes(num_identities=8, num_images=len(target.train))
    return World(tables=tables, test=test, sizes=sizes)


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("worlds"))


NAMES = {"source": "a", "target": "b"}


def tiny(config: RunConfig) -> RunConfig:
    """Return a run for the tiny world."""
    of_some = {"num_clusters": 8, "dbscan": TINY_DBSCAN, "num_parts": 2}
    of_some |= {"k1": 6, "k2": 2, "min_samples": 2, "eps_share": 0.03}
    names = {field.name for field in fields(config)}
    return replace(config, **TINY, **{k: v for k, v in of_some.items() if k in names})


@pytest.fixture(scope="session")
def tiny_configs() -> dict[str, RunConfig]:
    """Return every demo run, for the tiny world: that of "mmt-dbscan-demo" is "mmt_dbscan"."""
    demos = {name: run for name, run in RUNS.items() if name.endswith("-demo")}
    return {name.removesuffix("-demo").replace("-", "_"): tiny(run) for name, run in demos.items()}


@pytest.fixture(scope="session")
def make_recipe(tiny_world: World) -> Callable[[RunConfig], Recipe]:
    """Return a function from a tiny config to its recipe with first weights."""

    @cache
    def trained(name: BackboneName, seed: int) -> dict[str, torch.Tensor]:
        backbone = resnet(name, weights=None, last_stride=1, seed=seed)
        return GlobalNet(backbone, None, seed=seed).state_dict()

    def make(config: RunConfig) -> Recipe:
        starts = {name: trained(config.backbone, i) for i, name in enumerate(config.starts)}
        return build(config, sizes=tiny_world.sizes, starts=starts)

    return make


@pytest.fixture(scope="session")
def make_hooks(tiny_world: World) -> Callable[..., Recording]:
    """Return a function that makes hooks for the tiny target."""
    return lambda **options: Recording(tiny_world.tables["target"].store, **options)


@pytest.fixture(scope="session")
def identities() -> Callable[..., np.ndarray]:
    """Return `make(num_rows, num_features, num_groups, seed=...)`: unit rows in overlapping groups.

    Features of a network are such.
    """

    def make(num_rows: int, num_features: int, num_groups: int, *, seed: int) -> np.ndarray:
        generator = np.random.Generator(np.random.Philox(seed))
        means = generator.normal(size=(num_groups, num_features))
        rows = means[generator.integers(num_groups, size=num_rows)]
        rows = rows + 0.8 * generator.normal(size=rows.shape)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    return make

"""Fixtures every test may use.

Nothing of the project is imported above the fixtures: the shape checks must be installed first.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from cluster.config import ClusterConfig

GOLDEN = Path(os.environ.get("REID_GOLDEN", Path(__file__).parent / "golden"))

TINY = {
    "height": 32,
    "width": 16,
    "last_stride": 1,
    "num_identities": 4,
    "num_instances": 4,
    "num_rounds": 2,
    "steps_per_round": 3,
    "eval_every_rounds": 1,
}


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Return a loader of one file of reference vectors: `golden(name) -> {array name: array}`."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
            return dict(arrays)

    return load


@pytest.fixture(scope="session")
def tiny_worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds synthetic_a and synthetic_b: 8 identities on 64 images each."""
    from reid.data.synthetic import WorldConfig, write_world

    root = tmp_path_factory.mktemp("worlds")
    for domain in ("a", "b"):
        config = WorldConfig(
            domain=domain,
            num_train_identities=8,
            num_test_identities=4,
            num_train_images=64,
            num_test_images_per_identity=6,
            num_distractors=4,
            num_junk=2,
            num_cameras=4,
            height=32,
            width=16,
        )
        write_world(root / f"synthetic_{domain}", config)
    return root


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., Any]:
    """Return `tiny_config(name, **changes)`: a named run's config at the size of tiny_worlds."""
    from reid.recipes import RUNS
    from reid.recipes.source import SourceConfig

    def shrink(name: str, **changes: Any) -> Any:
        small = TINY if isinstance(RUNS[name], SourceConfig) else {**TINY, "num_clusters": 8}
        return replace(RUNS[name], **{**small, **changes})

    return shrink


@pytest.fixture(scope="session")
def mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Return `mlflow_store(folder)`: the address of a new empty store in a folder.

    Making MLflow's tables takes seconds, so they are made once and the file is copied.
    """
    from mlflow import MlflowClient

    made = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{made}").search_experiments()

    def copy(folder: Path) -> str:
        shutil.copy(made, folder / "mlflow.db")
        return f"sqlite:///{folder}/mlflow.db"

    return copy


@dataclass(frozen=True, kw_only=True)
class TinyRuns:
    """A tiny adaptation that trained its source run first; both finished, in `place.storage`."""

    place: ClusterConfig
    source: str
    """folder of the source run"""
    name: str
    """name of the adaptation"""
    config: Any
    summary: dict[str, Any]


@pytest.fixture(scope="session")
def tiny_runs(
    tiny_worlds: Path,
    tiny_config: Callable[..., Any],
    mlflow_store: Callable[[Path], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[TinyRuns]:
    """Train source-demo and core_reid_v2-demo, tiny, in this process."""
    from cluster import pipeline
    from cluster.config import ClusterConfig
    from reid.recipes import RUNS

    storage = tmp_path_factory.mktemp("runs")
    place = ClusterConfig(
        num_workers=0,
        threads_per_worker=1,
        storage=str(storage),
        data_root=str(tiny_worlds),
        tracking_uri=mlflow_store(storage),
    )
    config = tiny_config("core_reid_v2-demo", initial="source-demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)  # no test cuts the power
        patch.setitem(RUNS, "source-demo", tiny_config("source-demo"))
        summary = pipeline.run("adapted", config, place, show=lambda *_: None)
    yield TinyRuns(
        place=place,
        source=str(storage / "source-demo"),
        name="adapted",
        config=config,
        summary=summary,
    )
    shutil.rmtree(storage)


@pytest.fixture
def place(tiny_runs: TinyRuns, tmp_path: Path) -> Iterator[ClusterConfig]:
    """Return where a test's own runs go; the decoded images and the MLflow store are tiny_runs'."""
    storage = tmp_path / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield replace(
            tiny_runs.place, storage=str(storage), cache=f"{tiny_runs.place.storage}/cache"
        )
    shutil.rmtree(storage, ignore_errors=True)  # a checkpoint has hundreds of megabytes

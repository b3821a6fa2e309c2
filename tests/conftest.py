"""Fixtures every test may use.

Nothing of the project is imported above the fixtures: the shape checks must be installed first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from cluster.config import ClusterConfig

# Property tests try the same examples every time, and keep none; each test says how many it tries.
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.load_profile("same")

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let `-n` hand out whole files, and all tests that start Ray to one process.

    A file's fixtures are made once so, and Ray's one cluster serves all who need it.
    """
    for item in items:
        group = "ray" if item.get_closest_marker("ray") else item.location[0]
        item.add_marker(pytest.mark.xdist_group(group))


@dataclass(frozen=True)
class S3Server:
    """An S3 server of the tests' own, in another process."""

    endpoint: str
    bucket: str = "s3://bucket"

    def fail(self, kind: str, count: int) -> None:
        """Let the next `count` requests fail: "slow_down", "broken" or "denied"."""
        self._ask(f"?fault={kind}&count={count}", method="PUT")

    def num_requests(self) -> int:
        """Return how many requests there have been."""
        return int(self._ask("?requests", method="GET"))

    def empty(self) -> None:
        """Delete all objects."""
        self.fail("", 0)
        self._ask("bucket", method="DELETE")
        self._ask("bucket", method="PUT")

    def _ask(self, what: str, *, method: str) -> bytes:
        with urlopen(Request(f"{self.endpoint}/{what}", method=method)) as answer:
            return bytes(answer.read())


def start_s3(*arguments: str) -> tuple[subprocess.Popen[str], S3Server]:
    """Start tests/s3_server.py; it ends with its standard input."""
    command = [sys.executable, str(Path(__file__).with_name("s3_server.py")), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, S3Server(f"http://127.0.0.1:{process.stdout.readline().strip()}")


@pytest.fixture(scope="session")
def start_s3_server() -> Callable[..., tuple[subprocess.Popen[str], S3Server]]:
    """Return `start_s3`, for tests of other files."""
    return start_s3


@pytest.fixture(scope="session")
def s3_process() -> Iterator[S3Server]:
    """Start the server of tests/s3_server.py."""
    process, server = start_s3()
    with process:
        assert process.stdin is not None
        yield server
        process.stdin.close()


@pytest.fixture
def s3_names(monkeypatch: pytest.MonkeyPatch) -> Callable[[S3Server], None]:
    """Return a function after which s3:// names are objects of a server."""
    from reid.data import files

    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(files, "PAUSE_S", 0.01)

    def point(server: S3Server) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        files.open_bucket.cache_clear()

    return point


@pytest.fixture
def s3(s3_process: S3Server, s3_names: Callable[[S3Server], None]) -> Iterator[S3Server]:
    """Return an S3 server that holds one empty bucket; s3:// names are objects in it."""
    from reid.data import files

    s3_process.empty()
    s3_names(s3_process)
    yield s3_process
    s3_process.fail("", 0)
    files.open_bucket.cache_clear()


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
        loader="torch",
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

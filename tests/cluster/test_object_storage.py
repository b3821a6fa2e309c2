"""Runs whose images and checkpoints are objects of an S3 server, which may go and return."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster import checkpoints
from cluster.config import ClusterConfig
from cluster.pipeline import run
from cluster.storage import Folder
from cluster.worker import Job
from reid.data import files
from reid.data.datasets import load
from reid.data.index import build_index
from reid.data.pack import pack

STEPS = 24
DOWN_S = 1.5


class Restarting:
    """A server that can be killed and started again with the objects it had."""

    def __init__(self, folder: Path, start: Callable[..., Any]) -> None:
        self.folder, self.start = folder, start
        self.process, self.server = start("0", str(folder))
        self.port = self.server.endpoint.rpartition(":")[2]
        self.back: list[threading.Thread] = []

    def kill(self) -> None:
        """Kill it now; another takes its place after a while."""
        self.process.kill()
        self.process.wait()
        thread = threading.Thread(target=self._start_later)
        self.back.append(thread)
        thread.start()

    def _start_later(self) -> None:
        time.sleep(DOWN_S)
        self.process, _ = self.start(self.port, str(self.folder))

    def stop(self) -> None:
        """End it for good."""
        for thread in self.back:
            thread.join()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def restarting(
    tmp_path: Path,
    start_s3_server: Callable[..., Any],
    s3_names: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Restarting]:
    folder = tmp_path / "objects"
    folder.mkdir()
    made = Restarting(folder, start_s3_server)
    s3_names(made.server)
    monkeypatch.setattr(files, "PAUSE_S", 0.5)  # as it is outside of tests
    made.server.empty()
    yield made
    made.stop()


@pytest.fixture
def job(
    tiny_config: Callable[..., Any], tiny_worlds: Path, place: ClusterConfig, tmp_path: Path
) -> Job:
    """A supervised run on a packed table; its images are read again at each step."""
    config = tiny_config("source-demo", source="table", target="table", steps_per_round=STEPS)
    pack(build_index(load("synthetic_a", tiny_worlds / "synthetic_a")), str(tmp_path / "d/table"))
    where = replace(place, data_root=str(tmp_path / "d"), cache_gb=0.0, num_workers=0)
    return Job(name="run", config=replace(config, num_rounds=2), where=where)


def to_objects(job: Job, server: Any) -> Job:
    """Return the job with data and run in object storage."""
    for file in Path(job.where.data_root, "table").iterdir():
        files.write(f"{server.bucket}/d/table/{file.name}", file.read_bytes())
    places = {"data_root": f"{server.bucket}/d", "storage": f"{server.bucket}/runs"}
    cache = str(Path(job.where.storage) / "cache")
    return replace(job, where=replace(job.where, cache=cache, **places))


def finish(job: Job, *, at: Callable[[str, int], None] = lambda *_: None) -> tuple[Any, Any]:
    """Train to the end; return the last state and the scores of every round."""
    run(job.name, job.config, job.where, show=lambda what, done, total, note: at(what, done))
    folder = Folder(job.where.storage) / job.name
    history = folder / "history"
    state = checkpoints.latest(folder)
    assert state is not None
    return state, [history.read_json(name)["metrics"] for name in history.names()]


def assert_same(found: tuple[Any, Any], wanted: tuple[Any, Any]) -> None:
    assert found[1] == wanted[1]
    assert len(found[1]) == 2
    assert found[0].networks.keys() == wanted[0].networks.keys()
    for name, tensor in wanted[0].networks.items():
        assert torch.equal(found[0].networks[name], tensor), name


def test_training_from_objects_has_the_bits_of_training_from_disk_though_the_server_restarts(
    job: Job, restarting: Restarting
) -> None:
    from_disk = finish(job)
    job = to_objects(job, restarting.server)
    killed = []

    def kill_in_mid_epoch(what: str, done: int) -> None:
        if what.endswith(": train") and 0 < done < STEPS and not killed:
            killed.append(done)
            restarting.kill()

    assert_same(finish(job, at=kill_in_mid_epoch), from_disk)
    assert killed == [10]
    assert len(restarting.back) == 1

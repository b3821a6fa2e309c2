"""Real runs on a private Ray cluster equal the in-process run, also when processes are killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
import torch
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError

from cluster import checkpoints, labels
from cluster.config import ClusterConfig
from cluster.launch import check_resources, connected, interruptible
from cluster.pipeline import run
from cluster.storage import Folder
from reid.checkpoint import RunState
from reid.data.synthetic import WorldConfig, write_world
from reid.recipes import RUNS, RunConfig
from tests.cluster.conftest import saved_reports

pytestmark = pytest.mark.ray

NUM_ROUNDS = 6
TINY: dict[str, Any] = {
    "height": 32,
    "width": 16,
    "last_stride": 1,
    "num_identities": 4,
    "num_instances": 4,
    "num_rounds": NUM_ROUNDS,
    "steps_per_round": 4,
    "eval_every_rounds": 2,
    "extract_batch": 16,
}
ADAPT: dict[str, Any] = {**TINY, "num_clusters": 8, "seed": 3}


def silent(what: str, done: int, total: int, note: str) -> None:
    """Show nothing."""


def adapt(initial: str) -> RunConfig:
    return replace(RUNS["core_reid_v2-demo"], **ADAPT, initial=initial)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> ClusterConfig:
    """Return where the runs of this file go, with both worlds drawn."""
    root = tmp_path_factory.mktemp("runs")
    for domain in ("a", "b"):
        sizes = {"num_train_identities": 8, "num_test_identities": 4, "num_train_images": 96}
        write_world(
            root / "data" / f"synthetic_{domain}",
            WorldConfig(domain=domain, height=32, width=16, num_distractors=4, num_junk=4, **sizes),
        )
    return ClusterConfig(
        storage=str(root), data_root=str(root / "data"), num_workers=0, threads_per_worker=1
    )


@pytest.fixture(scope="session")
def initial(place: ClusterConfig) -> str:
    """Return the folder of a pre-trained source run."""
    config = replace(RUNS["source-demo"], **{**TINY, "num_rounds": 2})  # type: ignore[arg-type]
    run("source", config, place, show=silent)
    return f"{place.storage}/source"


@pytest.fixture(scope="session")
def undisturbed(place: ClusterConfig, initial: str) -> tuple[dict[str, Any], RunState]:
    """Return summary and last state of the run in this process."""
    summary = run("undisturbed", adapt(initial), place, show=silent)
    return summary, last_state(place, "undisturbed")


def last_state(place: ClusterConfig, name: str) -> RunState:
    state = checkpoints.latest(Folder(place.storage) / name)
    assert state is not None
    return state


def assert_same_run(
    found: dict[str, Any], state: RunState, undisturbed: tuple[dict[str, Any], RunState]
) -> None:
    summary, expected = undisturbed
    assert found["adapted"] == summary["adapted"]
    assert [row["mAP"] for row in found["rounds"]] == [row["mAP"] for row in summary["rounds"]]
    assert state.round == expected.round == NUM_ROUNDS
    assert state.networks.keys() == expected.networks.keys()
    for name, tensor in expected.networks.items():
        assert torch.equal(state.networks[name], tensor), name


def test_two_workers_and_three_shards_give_the_same_first_labels(
    ray_cluster: str, place: ClusterConfig, initial: str, undisturbed: Any
) -> None:
    where = replace(place, num_workers=2, num_shards=3)
    config = replace(adapt(initial), num_rounds=1)

    run("two", config, where, show=silent)

    two, one = (labels.committed(Folder(place.storage) / n, 0) for n in ("two", "undisturbed"))
    assert two is not None
    assert one is not None
    for view in ("global", "top", "bottom"):
        np.testing.assert_array_equal(two.labels[view].labels, one.labels[view].labels)
        np.testing.assert_array_equal(two.labels[view].centers, one.labels[view].centers)


def kill_in_turn(
    titles: Mapping[str, int], history: Path, *, killed: dict[str, dict[str, bytes]]
) -> None:
    """Kill a Ray process of this session of each title once so many reports are in storage.

    `killed` takes the reports that a state was saved after by then.
    """
    for title, after in titles.items():
        deadline = time.monotonic() + 180
        while title not in killed and time.monotonic() < deadline:
            if len(list(history.glob("*.json"))) >= after:
                for process in psutil.Process().children(recursive=True):
                    if process.is_running() and process.name().startswith(title):
                        killed[title] = saved_reports(history)
                        os.kill(process.pid, signal.SIGKILL)
                        break
            time.sleep(0.02)


def test_a_ray_run_with_a_killed_actor_and_a_killed_worker_equals_the_run_in_process(
    ray_cluster: str, place: ClusterConfig, initial: str, undisturbed: Any
) -> None:
    titles = {"ray::ShardActor": 1, "ray::RayTrainWo": 3}
    history = Path(place.storage) / "killed" / "history"
    killed: dict[str, dict[str, bytes]] = {}
    killer = threading.Thread(
        target=kill_in_turn, args=(titles, history), kwargs={"killed": killed}
    )
    killer.start()

    found = run("killed", adapt(initial), replace(place, num_workers=1, num_shards=3), show=silent)

    killer.join()
    assert list(killed) == list(titles)
    kept = killed["ray::RayTrainWo"]
    assert len(kept) >= 2
    assert saved_reports(history).items() >= kept.items()
    assert_same_run(found, last_state(place, "killed"), undisturbed)


def wait_for(condition: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.05)


def test_a_killed_driver_goes_on_with_the_same_command(
    place: ClusterConfig, initial: str, undisturbed: Any, tmp_path: Path
) -> None:
    values = {**ADAPT, "initial": initial, "name": "driver"}
    options = [f"--{key.replace('_', '-')}={value}" for key, value in values.items()]
    where = [
        f"--cluster.storage={place.storage}",
        f"--cluster.data-root={place.data_root}",
        "--cluster.threads-per-worker=1",
    ]
    command = [sys.executable, "-m", "jobs.train", "core_reid_v2-demo", *options, *where]
    (tmp_path / "home").mkdir()
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "RAY_TMPDIR": "/tmp"}
    environment.pop("RAY_ADDRESS", None)
    history = Path(place.storage) / "driver" / "history"

    first = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    started = psutil.Process(first.pid)
    wait_for(lambda: len(list(history.glob("*.json"))) >= 2, seconds=240)
    workers = [p for p in started.children(recursive=True) if p.name().startswith("ray::RayTrain")]
    first.kill()
    first.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert workers
    assert not alive
    kept = saved_reports(history)
    assert 1 <= len(kept) < NUM_ROUNDS - 1

    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert second.returncode == 0, second.stderr
    assert saved_reports(history).items() >= kept.items()
    found = (Folder(place.storage) / "driver").read_json("summary.json")
    assert_same_run(found, last_state(place, "driver"), undisturbed)


def test_a_cluster_without_a_token_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own calls are refused here, of which Ray says that the actor never ran."""
    cause = ActorDiedErrorContext(class_name="A", actor_id=bytes(16), never_started=True)
    died = ActorDiedError(cause)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with (
        pytest.raises(ValueError, match=r"head:6379 starts no actor.*RAY_AUTH_MODE=token"),
        connected(ClusterConfig(address="head:6379")),
    ):
        raise died
    with pytest.raises(ActorDiedError), connected(ClusterConfig()):
        raise died


def test_a_run_that_asks_for_too_much_is_refused(ray_cluster: str, place: ClusterConfig) -> None:
    with pytest.raises(ValueError, match=r"reserves 101 CPUs.*has 4; add nodes"):
        check_resources(replace(place, num_workers=100))
    with pytest.raises(ValueError, match=r"reserves 2 GPUs.*has 0"):
        check_resources(replace(place, num_workers=2, use_gpu=True))


def test_ctrl_c_is_keyboard_interrupt_whatever_ray_train_makes_of_it() -> None:
    def fit() -> None:
        with interruptible():
            signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
            signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit()
    assert signal.getsignal(signal.SIGINT) is handler

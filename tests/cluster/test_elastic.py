"""Workers that come and go, and machines that say so before they do."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import ray.train
import torch

from cluster.config import ClusterConfig
from cluster.hooks import RunHooks
from cluster.inputs import open_inputs
from cluster.launch import scaling
from cluster.links import LocalLink, RayLink
from cluster.storage import Folder


def test_a_range_of_workers_is_rays_range() -> None:
    found = scaling(ClusterConfig(num_workers=1, max_workers=3, resize_every_s=5.0))
    assert (found.min_workers, found.max_workers) == (1, 3)
    assert found.elasticity_enabled
    assert found.elastic_resize_monitor_interval_s == 5.0
    fixed = scaling(ClusterConfig(num_workers=2))
    assert fixed.num_workers == 2
    assert not fixed.elasticity_enabled


def test_a_batch_must_be_shared_by_any_number_of_workers(tiny_config: Any) -> None:
    config = replace(tiny_config("source-demo"), num_identities=4)
    where = ClusterConfig(num_workers=1, max_workers=3)
    with pytest.raises(ValueError, match="num_identities is 4, which 3 workers cannot share"):
        open_inputs(config, where, show=lambda *_: None)


def test_a_notice_says_who_goes_and_when(monkeypatch: pytest.MonkeyPatch) -> None:
    link = RayLink(actors=[], board=None, timeout_s=1.0)
    notices = [None, ray.train.PreemptionInfo(1700, {"b": [1], "a": [0, 2]})]
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: notices.pop(0))
    assert link.notice() is None
    assert link.notice() == "ranks [0, 1, 2] on a, b will be gone by 1700 ms"
    assert LocalLink(num_shards=1, show=lambda *_: None).notice() is None


def test_each_notice_is_answered_by_one_save(tmp_path: Path) -> None:
    heard: list[str | None] = [None, "node a", "node a", "nodes a, b", "nodes a, b", None]
    link: Any = SimpleNamespace(notice=lambda: heard.pop(0))
    pixels: Any = SimpleNamespace()
    nobody = np.zeros(0, dtype=np.int64)
    hooks = RunHooks(
        Folder(str(tmp_path)), link, pixels=pixels, truth=nobody, camid=nobody,
        device=torch.device("cpu"), num_rounds=1, keep_best=False,
    )  # fmt: skip
    assert [hooks.hurried() for _ in range(6)] == [False, True, False, True, False, False]


def wait_for(what: str, condition: Callable[[], bool], run: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        if run.poll() is not None:
            raise AssertionError(f"the run ended before {what}: {run.communicate()}")
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.mark.ray
@pytest.mark.server
def test_a_run_grows_and_shrinks_with_its_cluster(tiny_runs: Any, place: ClusterConfig) -> None:
    """One of two nodes comes, says that it will go, and goes; no round is lost or counted twice."""
    from ray.cluster_utils import Cluster

    num_rounds = 25  # of three seconds each; Ray Train sees a new node within 20
    words = {
        **{"height": 32, "width": 16, "last-stride": 1, "num-identities": 4, "num-clusters": 8},
        **{"num-rounds": num_rounds, "steps-per-round": 25, "initial": tiny_runs.source},
        **{"name": "elastic", "cluster.num-workers": 1, "cluster.max-workers": 2},
        **{"cluster.resize-every-s": 1, "cluster.num-shards": 1, "cluster.cpus-per-worker": 1},
        **{"cluster.threads-per-worker": 1, "cluster.loader": "torch"},
        **{"cluster.storage": place.storage, "cluster.data-root": place.data_root},
        **{"cluster.cache": place.cache, "cluster.tracking-uri": place.tracking_uri},
    }
    options = [f"--{name}={value}" for name, value in words.items()]
    history = Path(place.storage, "elastic", "history")

    def num_reports() -> int:
        return len(list(history.glob("*.json")))

    def is_rank(process: psutil.Process) -> bool:
        with suppress(psutil.NoSuchProcess):
            return process.name().startswith("ray::RayTrainWo")
        return False

    def num_ranks() -> int:
        return sum(map(is_rank, psutil.Process().children(recursive=True)))

    env = {**os.environ, "RAY_AUTH_MODE": "disabled"}  # this process' Ray came without a token
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # a short name, for Unix sockets
    at = {"node_ip_address": ray.util.get_node_ip_address()}  # the driver's; Cluster's is localhost

    def has_hurried() -> bool:
        return any(not name.stem.endswith("step=000000") for name in history.parent.rglob("*.pt"))

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "temp_dir": folder, **at}
    )
    run = subprocess.Popen(
        [sys.executable, "-m", "jobs.train", "core_reid_v2-demo", *options,
         f"--cluster.address={cluster.address}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
    )  # fmt: skip
    try:
        wait_for("a round by one worker", lambda: num_reports() > 0 and num_ranks() == 1, run)
        node = cluster.add_node(num_cpus=2, **at)
        wait_for("two workers", lambda: num_ranks() == 2, run)
        before = num_reports()
        wait_for("a round by two workers", lambda: num_reports() > before, run)
        assert num_ranks() == 2
        subprocess.run(
            [Path(sys.executable).with_name("ray"), "drain-node", f"--address={cluster.address}",
             f"--node-id={node.node_id}", "--reason=DRAIN_NODE_REASON_PREEMPTION",
             "--reason-message=spot", "--deadline-remaining-seconds=60"],
            check=True, env=env, capture_output=True,
        )  # fmt: skip
        wait_for("a checkpoint within a round", has_hurried, run)
        cluster.remove_node(node)
        before = num_reports()
        wait_for("a round by the one that is left", lambda: num_reports() > before, run)
        assert num_ranks() == 1
        out, err = run.communicate(timeout=500)
        assert run.returncode == 0, err
    finally:
        run.kill()
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    summary = json.loads(out)
    assert [row["round"] for row in summary["rounds"]] == list(range(num_rounds))
    reports = [json.loads(path.read_bytes()) for path in sorted(history.glob("*.json"))]
    spans = [(row["first_step"], len(row["series"]["lr"])) for row in reports]
    assert [first for first, _ in spans] == list(accumulate((n for _, n in spans[:-1]), initial=0))
    assert sum(number for _, number in spans) == num_rounds * 25

"""Workers that come and go, and machines that say so before they do."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
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

"""Which loader a run's workers take."""

import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cluster import worker
from cluster.config import ClusterConfig
from reid.recipes import RUNS


@pytest.fixture
def pick(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return `pick(asked, kept)`: the loader of a run, on a machine where DALI is quicker."""
    shown: list[tuple[Any, ...]] = []
    monkeypatch.setattr(worker, "quickest", lambda *_, **__: ("dali", "dali_loader is quicker"))

    def choose(asked: str, kept: str | None) -> str:
        where = replace(ClusterConfig(), loader=asked)  # type: ignore[arg-type]
        job = worker.Job(name="a", config=RUNS["source-demo"], where=where)
        state = None if kept is None else SimpleNamespace(loader=kept)
        inputs, recipe = SimpleNamespace(tables={}), SimpleNamespace(draws=())
        link = SimpleNamespace(progress=lambda *line: shown.append(line))
        device = torch.device("cpu")
        return worker.pick_loader(job, recipe, inputs, state, link, device=device)  # type: ignore[arg-type]

    choose.shown = shown  # type: ignore[attr-defined]
    return choose


def test_a_gpu_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert worker.pick_device(ClusterConfig()) == torch.device("cpu")
    with pytest.raises(ValueError, match="a GPU is asked for and there is none here"):
        worker.pick_device(ClusterConfig(use_gpu=True))


@pytest.mark.parametrize(
    ("asked", "kept", "wanted"),
    [
        ("quickest", None, "dali"),
        ("quickest", "torch", "torch"),  # a run keeps what it began with
        ("torch", None, "torch"),
        ("torch", "dali", "torch"),
    ],
)
def test_a_run_takes(pick: Any, asked: str, kept: str | None, wanted: str) -> None:
    assert pick(asked, kept) == wanted


def test_the_reason_is_said(pick: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        pick("quickest", None)
    assert caplog.messages == ["dali_loader is quicker"]
    assert pick.shown == [("loader", 1, 1, "dali_loader is quicker")]

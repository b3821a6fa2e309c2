"""The demo's command: what it runs, where, and its words on what it found."""

import os
import shlex
from pathlib import Path
from unittest.mock import Mock

import pytest

from cluster.pipeline import tracking_uri
from jobs import demo
from reid.recipes import RUNS


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Return what hears of drawn worlds and of the run, in place of them."""
    made = Mock()
    monkeypatch.setattr(demo, "draw_worlds", made.draw_worlds)
    monkeypatch.setattr(demo, "run", made.run)
    return made


@pytest.mark.parametrize(
    ("cores", "num_workers", "threads"), [(8, 0, 8), (8, 1, 8), (8, 3, 2), (2, 4, 1)]
)
def test_workers_share_the_cores(
    cores: int, num_workers: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    where = demo.place(demo.Options(storage="s", num_workers=num_workers, num_shards=5))
    assert (where.storage, where.data_root) == ("s", "s/data")
    assert (where.num_workers, where.num_shards) == (num_workers, 5)
    assert where.threads_per_worker == threads


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (0.25, 0.5, "25.0 % before, 50.0 % after adaptation without labels (+25.0 points)"),
        (0.5, 0.375, "50.0 % before, 37.5 % after adaptation without labels (-12.5 points)"),
    ],
)
def test_both_worlds_are_drawn_then_adapted_and_the_gain_is_said(
    calls: Mock,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    before: float,
    after: float,
    words: str,
) -> None:
    config = RUNS["core_reid_v2-demo"]
    options = demo.Options(storage=f"{tmp_path}/two words", num_workers=0)
    where = demo.place(options)
    calls.run.return_value = {
        "run": "demo",
        "source": config.source,
        "target": config.target,
        "direct_transfer": {"mAP": before},
        "adapted": {"mAP": after},
        "rounds": [],
        "wall_seconds": 60.0,
    }
    demo.main(options)
    drawn, ran = calls.mock_calls
    worlds, size = ("synthetic_a", "synthetic_b"), {"height": config.height, "width": config.width}
    assert (drawn[0], drawn.args) == ("draw_worlds", (worlds, where.data_root))
    assert drawn.kwargs.items() >= size.items()
    assert (ran[0], ran.args) == ("run", ("demo", config, where))
    gain, pictures, store = capsys.readouterr().err.splitlines()[-3:]
    assert gain == f"mAP on the new network: {words}"
    for file in ("ranking.png", "rounds.png", "summary.json"):
        assert f"{options.storage}/demo/{file}" in pictures
    assert tracking_uri(where) in shlex.split(store)


def test_a_stopped_demo_says_how_to_go_on(calls: Mock, capsys: pytest.CaptureFixture[str]) -> None:
    calls.run.side_effect = KeyboardInterrupt
    with pytest.raises(SystemExit) as stopped:
        demo.main(demo.Options())
    assert stopped.value.code == 130
    assert "stopped; `make demo` goes on from the last checkpoint" in capsys.readouterr().err

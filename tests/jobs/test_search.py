"""The search command: its words on wrong input, its help, what it hands on and prints."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster import search as cluster_search
from cluster.config import ClusterConfig
from jobs import search, train
from jobs.search_display import SearchDisplay, clustering_table, live_table, trials_table
from reid.recipes import RUNS

Capture = pytest.CaptureFixture[str]
Refused = Callable[..., str]
Options = tuple[str, ...]


@pytest.fixture
def refused(refused_by: Refused) -> Refused:
    """Return `refused(*arguments)`: standard error of a command that exits with 2, unstarted."""
    return lambda *arguments: refused_by(search, arguments, before=(cluster_search, "connected"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["core_reid_v2-dmeo"], "did you mean 'core_reid_v2-demo'?"),
        (["core_reid_v2-demo", "--trials", "0"], "trials is 0; give at least 1"),
        (["core_reid_v2-demo", "--space", "lr=log:1:2"], "did you mean optim.lr"),
        (["core_reid_v2-demo", "--objective", "mAP"], "--objective"),
        (["source-demo"], "give --objective oracle"),
        (["mmt-dbscan-demo", "--tier", "cluster"], "--tier"),
    ],
)
def test_wrong_words_are_refused(refused: Refused, arguments: list[str], words: str) -> None:
    assert words in refused(*arguments)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ("ema_momentum=ema:0.9:1.2", "ema_momentum is 1.2; it must lie between 0 and 1"),
        ("num_clusters=int:4:65", "the target has only 64 training images"),
    ],
)
def test_unfit_spaces_are_refused_before_anything_starts(
    refused: Refused, place: ClusterConfig, small_options: Options, space: str, words: str
) -> None:
    err = refused("core_reid_v2-demo", *small_options, "--num-clusters", "8", "--space", space)
    assert words in err
    assert not Path(place.storage).exists()


def test_help_tells_of_space_and_units(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stopped:
        search.main(["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert "evenly on a logarithmic scale of 1 - m" in out
    assert all(name in out for name in RUNS)
    with pytest.raises(SystemExit):
        search.main(["core_reid_v2-demo", "--help"])
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for words in ("trials to train", "--space", "image height in pixels", "--tier"):
        assert words in out


def test_options_reach_the_search() -> None:
    options = search.parse(
        [
            "core_reid_v2-demo",
            *("--trials", "8", "--space", "default", "smoothing=0,0.1", "--objective", "oracle"),
            *("--optim.weight-decay", "1e-3", "--cluster.num-workers", "2", "--name", "mine"),
        ]
    )
    assert options.settings == search.Settings(
        trials=8, space=("default", "smoothing=0,0.1"), objective="oracle"
    )
    assert (options.name, options.run) == ("mine", "core_reid_v2-demo")
    assert options.config.optim.weight_decay == 1e-3
    assert options.cluster.num_workers == 2


def test_trials_are_processes_unless_workers_are_asked_for() -> None:
    options = search.parse(["core_reid_v2-demo"])
    assert options.cluster == ClusterConfig(num_workers=0, threads_per_worker=1)
    assert options.name == "search-core_reid_v2-demo"


def test_command_that_trains_the_best_has_what_was_asked_for_all() -> None:
    options = search.parse(
        ["core_reid_v2-demo", "--optim.weight-decay", "0.001", "--cluster.storage", "else where"]
    )
    command = search.train_command(options, {"optim.lr": 3e-4, "num_clusters": 200})
    assert command == (
        "python -m jobs.train core_reid_v2-demo --name core_reid_v2-demo-best "
        "--optim.weight-decay 0.001 --optim.lr 0.0003 --num-clusters 200 "
        "--cluster.num-workers 0 --cluster.storage 'else where'"
    )


def test_command_that_trains_the_best_is_taken_by_the_trainer() -> None:
    words = ["--optim.milestones", "3", "5", "--cluster.num-workers", "2", "--cluster.use-gpu"]
    words += ["--cluster.pool-labels", "role=cluster"]
    options = search.parse(["core_reid_v2-demo", *words])
    command = shlex.split(search.train_command(options, {"optim.lr": 3e-4}))
    found = train.parse(command[3:])
    assert found.config.optim.milestones == (3, 5)
    assert (found.cluster.num_workers, found.cluster.use_gpu) == (2, True)
    assert found.cluster.pool_labels == ("role=cluster",)


def test_clustering_tier_prints_table_and_command(
    tiny_runs: Any, place: ClusterConfig, small_options: Options, capsys: Capture
) -> None:
    arguments = [
        *("core_reid_v2-demo", "--tier", "clustering", "--space", "num_clusters=4,8"),
        *("--initial", tiny_runs.source, *small_options, "--num-clusters", "8"),
    ]
    search.main(arguments)
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert [row["num_clusters"] for row in found["rows"]] == [4, 8]
    assert f"--num-clusters {found['best']['num_clusters']}" in err
    assert Path(place.storage, "search-core_reid_v2-demo", "clustering.png").exists()


def trial(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "number": number,
        "state": "finished",
        "why": "",
        "values": {"optim.lr": 1e-3 * (number + 1)},
        "rounds": 8,
        "objective": 0.1 * number,
        "mAP": 0.5,
        "run": f"s/trials/00{number}",
        **changes,
    }


def summary_of(*trials: dict[str, Any], best: int) -> dict[str, Any]:
    return {
        "search": "s",
        "objective": "silhouette",
        "trials": trials,
        "best": trials[best],
        "own": trials[0],
        "beats_own": best != 0,
        "correlations": {"num_trials": 3, "objective_with_mAP": 0.5},
        "clustering": None,
    }


def test_table_has_the_best_first_and_unended_last() -> None:
    rows = [trial(0), trial(1, state="stopped", objective=0.9), trial(2), trial(3, objective=None)]
    table = trials_table(summary_of(*rows, best=2))
    assert list(table.columns[0].cells) == ["2", "0 (own)", "3", "1"]


def test_search_says_whether_it_beat_the_own_values(capsys: Capture) -> None:
    options = search.parse(["core_reid_v2-demo"])
    lines = search.tell_search(options, summary_of(trial(0), trial(1), best=1))
    assert lines[0] == (
        "trial 1 beats the run's own values: silhouette 0.1000 against 0.0000; mAP 50.0 % and "
        "50.0 %"
    )
    assert "rank correlation of silhouette with mAP" in lines[1]
    assert "+0.50 over 3 trials" in lines[1]
    assert "--optim.lr 0.002" in lines[-1]
    lines = search.tell_search(options, summary_of(trial(0), trial(1), best=0))
    assert lines[0] == "no trial beat the run's own values"


def test_lines_tell_each_change_of_a_trial_once(capsys: Capture) -> None:
    from cluster.search_trials import Trial

    asked = type("Asked", (), {"config": RUNS["core_reid_v2-demo"], "name": "s"})
    display = SearchDisplay(asked)
    one = Trial(number=0, values={}, drawn=None)
    two = Trial(
        number=0,
        values={},
        drawn=None,
        state="failed",
        why="no",
        rounds=({"round": 2, "objective": 0.5},),
    )
    for trials in ([one], [one], [two]):
        display.trials(trials, {})
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [
        "trial 0 running, round 0/8",
        "trial 0 failed, round 2/8, objective 0.5000: no",
    ]


def test_live_table_has_a_row_a_trial() -> None:
    from cluster.search_plan import Search
    from cluster.search_space import parse
    from cluster.search_trials import Trial

    config = RUNS["core_reid_v2-demo"]
    asked = Search(
        name="s", config=config, where=ClusterConfig(), space=parse(["optim.lr=1e-3,1e-2"], config)
    )
    running = Trial(number=0, values={"optim.lr": 1e-3}, drawn=None)
    table = live_table(asked, [running], {0: ("round 1/8: train", 10, 60, "loss 1")})
    assert list(table.columns[1].cells) == ["0.001"]
    assert list(table.columns[-1].cells) == ["round 1/8: train 10/60 loss 1"]


def test_clustering_table_of_radii() -> None:
    rows = [{"dbscan.eps": 0.5, "dbscan.min_samples": 4, "num_clusters": 3.0, "silhouette": 0.25}]
    table = clustering_table({"rows": rows, "best": rows[0]})
    assert [column.header for column in table.columns[:3]] == [
        "dbscan.eps",
        "dbscan.min samples",
        "num clusters",
    ]

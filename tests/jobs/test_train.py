"""The training command: its words on wrong input, its help, its result."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import pipeline
from cluster.config import ClusterConfig
from cluster.storage import Folder
from jobs import train, worlds
from jobs.tables import results_table
from reid.data.world import read_description
from reid.recipes import RUNS

Capture = pytest.CaptureFixture[str]
Refused = Callable[..., str]
Options = tuple[str, ...]


@pytest.fixture
def refused(refused_by: Refused) -> Refused:
    """Return `refused(*arguments)`: standard error of a command that exits with 2, unstarted."""
    return lambda *arguments: refused_by(train, arguments, before=(pipeline, "launch"))


def one_line(err: str) -> str:
    """Return the one line of an error that is not a progress bar."""
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    return line


def test_unknown_run(refused: Refused) -> None:
    err = refused("core_reid_v2-dmeo")
    assert one_line(err) == err.strip()
    assert "there is no run 'core_reid_v2-dmeo'; did you mean 'core_reid_v2-demo'?" in err


def test_unknown_run_like_no_other(refused: Refused) -> None:
    line = one_line(refused("zzz"))
    assert "known are" in line
    assert all(name in line for name in RUNS)


def test_unknown_option(refused: Refused) -> None:
    err = refused("core_reid_v2-demo", "--num-cluster", "300")
    assert "Unrecognized options: --num-cluster, 300" in err
    assert "--num-clusters INT" in err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--precision", "float16"), ("--optim.lr", "fast"), ("--backbone", "resnet19")],
)
def test_unknown_value(refused: Refused, option: str, value: str) -> None:
    err = refused("core_reid_v2-demo", option, value)
    assert option in err
    assert value in err


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--num-rounds", "num_rounds is 0; it must be at least 1"),
        ("--norm-group", "norm_group is 0; give 2 images or more, or None for all"),
        ("--optim.lr", "optim.lr is 0.0; it must be above 0"),
        ("--cluster.num-shards", "num_shards is 0; it must be at least 1"),
    ],
)
def test_value_that_cannot_train(refused: Refused, option: str, words: str) -> None:
    assert words in refused("core_reid_v2-demo", option, "0")


def test_missing_data_folder(refused: Refused, tmp_path: Path) -> None:
    place = [
        *("--cluster.storage", str(tmp_path / "runs")),
        *("--cluster.data-root", str(tmp_path / "nowhere")),
    ]
    line = one_line(refused("core_reid_v2-cuhk03_np-market1501", *place))
    assert f"{tmp_path}/nowhere/market1501 is no Market-1501: expected bounding_box_train" in line


def test_built_in_worlds_are_drawn_once_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"num_train_identities": 2, "num_test_identities": 2, "num_train_images": 8}
    small = {name: replace(world, **few) for name, world in worlds.BUILT_IN.items()}
    monkeypatch.setattr(worlds, "BUILT_IN", small)
    config = replace(RUNS["core_reid_v2-demo"], height=32, width=16)
    where = ClusterConfig(data_root=str(tmp_path))
    told: list[str] = []

    def show(what: str, done: int, total: int, note: str) -> None:
        told.append(what)

    worlds.draw_missing(config, where, show=show)
    assert set(told) == {"draw synthetic_a", "draw synthetic_b"}
    world = read_description(tmp_path / "synthetic_b")
    assert (world["domain"], world["height"], world["width"]) == ("b", 32, 16)
    told.clear()
    worlds.draw_missing(replace(config, height=64), where, show=show)
    assert not told
    worlds.draw_missing(replace(config, target="cuhk03_np", source="folder"), where, show=show)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["synthetic_a", "synthetic_b"]


def test_norm_groups_that_workers_cannot_make(refused: Refused, small_options: Options) -> None:
    options = ("--cluster.num-workers", "2", "--norm-group", "16")
    line = one_line(refused("core_reid_v2-demo", *small_options, *options))
    assert "groups of 16 images, and each of 2 workers has 8: give a divisor of 8" in line


def test_too_many_clusters(refused: Refused, place: ClusterConfig, small_options: Options) -> None:
    line = one_line(refused("core_reid_v2-demo", *small_options))
    assert "num_clusters is 250" in line
    assert "only 64 training images; give fewer clusters with --num-clusters" in line
    assert not Path(place.storage).exists()


def test_help_of_a_run_has_units(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(["core_reid_v2-demo", "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    for words in ("image height in pixels", "seconds to wait", "--optim.lr", "--cluster.storage"):
        assert words in " ".join(out.replace("│", " ").split())


def test_help_lists_the_runs(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert all(name in out for name in RUNS)


def test_nothing_asked_lists_the_runs(refused: Refused) -> None:
    assert all(name in refused() for name in RUNS)


def test_options_reach_the_config() -> None:
    options = train.parse(
        [
            "core_reid_v2-demo",
            *("--name", "mine", "--optim.lr", "3e-4", "--batches", "three"),
            *("--cluster.num-workers", "4", "--cluster.save-every-steps", "20"),
        ]
    )
    default = RUNS["core_reid_v2-demo"]
    assert options.name == "mine"
    assert options.config.optim.lr == 3e-4
    assert options.config.optim.lr_decay == default.optim.lr_decay
    assert options.config.num_rounds == default.num_rounds
    assert (options.cluster.num_workers, options.cluster.save_every_steps) == (4, 20)


def test_options_default_to_the_named_run() -> None:
    options = train.parse(["core_reid_v2-demo"])
    assert options == train.Options(
        name="core_reid_v2-demo", config=RUNS["core_reid_v2-demo"], cluster=ClusterConfig()
    )


def test_run_prints_its_summary(
    place: ClusterConfig, small_options: Options, capsys: Capture
) -> None:
    arguments = ["supervised-demo", "--name", "upper", "--num-rounds", "1", *small_options]
    train.main(arguments)
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert summary == (Folder(place.storage) / "upper").read_json("summary.json")
    assert (summary["run"], summary["method"]) == ("upper", "source")
    assert f"{100 * summary['direct_transfer']['mAP']:.1f}" in err
    train.main(arguments)
    assert json.loads(capsys.readouterr().out) == summary


def test_interrupted_run_says_how_to_go_on(
    small_options: Options, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "launch", interrupt)
    with pytest.raises(SystemExit) as stopped:
        train.main(["supervised-demo", *small_options])
    assert stopped.value.code == 130
    assert "the same command goes on from the last checkpoint" in capsys.readouterr().err


def test_table_has_a_row_a_stage(tiny_runs: Any) -> None:
    table = results_table(tiny_runs.summary)
    cells = list(table.columns[0].cells)
    assert cells == ["direct transfer", "round 1", "round 2", "adapted"]
    scores = [row["mAP"] for row in tiny_runs.summary["rounds"]]
    wanted = [tiny_runs.summary["direct_transfer"]["mAP"], *scores, scores[-1]]
    assert list(table.columns[1].cells) == [f"{100 * score:.1f}" for score in wanted]

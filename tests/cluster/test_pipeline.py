"""Whole runs in this process, on tiny worlds: what they leave, and that nothing stops them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from cluster import checkpoints, direct, pipeline, uploads, worker
from cluster.config import ClusterConfig
from cluster.hooks import RunHooks
from cluster.storage import Folder
from reid.checkpoint import RunState
from reid.fit import Labelling
from reid.override import config_hash, flatten
from reid.recipes import RUNS, Recipe
from tests.cluster.conftest import saved_reports

SCORES = {"mAP", "rank1", "rank5", "rank10"}


def silent(*_: object) -> None:
    """Show nothing."""


def folder_of(tiny_runs: Any) -> Folder:
    return Folder(str(tiny_runs.place.storage)) / str(tiny_runs.name)


def mlflow_runs(where: ClusterConfig, name: str) -> list[Run]:
    client = MlflowClient(tracking_uri=where.tracking_uri)
    experiment = client.get_experiment_by_name(where.experiment)
    assert experiment is not None
    folder = (Folder(where.storage) / name).path
    return list(
        client.search_runs(
            [experiment.experiment_id], filter_string=f"tags.`reid.folder` = '{folder}'"
        )
    )


def mlflow_run(where: ClusterConfig, name: str) -> Run:
    (run,) = mlflow_runs(where, name)
    return run


def history(where: ClusterConfig, run: Run, key: str) -> list[tuple[int, float]]:
    found = MlflowClient(tracking_uri=where.tracking_uri).get_metric_history(run.info.run_id, key)
    return sorted((metric.step, metric.value) for metric in found)


def assert_same_values(mine: Any, other: Any, path: str = "") -> None:
    """Compare nested mappings and lists bit by bit."""
    if isinstance(mine, torch.Tensor):
        assert mine.dtype == other.dtype, path
        assert torch.equal(mine, other), path
    elif isinstance(mine, dict):
        assert mine.keys() == other.keys(), path
        for key, value in mine.items():
            assert_same_values(value, other[key], f"{path}/{key}")
    else:
        assert mine == other, path


def last_state(folder: Folder) -> RunState:
    state = checkpoints.latest(folder)
    assert state is not None
    return state


# What a finished run leaves


def test_summary_has_the_promised_fields(tiny_runs: Any) -> None:
    summary = tiny_runs.summary
    assert json.loads(folder_of(tiny_runs).read("summary.json")) == summary
    assert summary["run"] == "adapted"
    assert summary["config_hash"] == config_hash(tiny_runs.config)
    assert summary["method"] == "core_reid_v2"
    assert (summary["source"], summary["target"]) == ("synthetic_a", "synthetic_b")
    for scores in (summary["direct_transfer"], summary["adapted"]):
        assert scores.keys() >= SCORES
        assert all(0 < scores[key] <= 1 for key in SCORES)
    assert [row["round"] for row in summary["rounds"]] == [0, 1]
    for row in summary["rounds"]:
        assert row["num_clusters"] == 8
        assert 0 < row["mAP"] <= 1
        assert row["seconds"].keys() >= {"extract", "cluster", "train"}
        assert all(value > 0 for value in row["seconds"].values())
    assert summary["rounds"][-1]["mAP"] == summary["adapted"]["mAP"]
    assert summary["wall_seconds"] > sum(sum(r["seconds"].values()) for r in summary["rounds"])


def test_training_moved_the_networks(tiny_runs: Any) -> None:
    before = last_state(Folder(tiny_runs.source)).networks
    after = last_state(folder_of(tiny_runs)).networks
    name = "backbone.conv1.weight"
    assert not torch.equal(before[f"student.{name}"], after[f"student.net.{name}"])
    assert not torch.equal(after[f"teacher.{name}"], after[f"student.net.{name}"])


@pytest.mark.parametrize(
    ("run", "names"), [("adapted", ["ranking.png", "rounds.png"]), ("source-demo", ["rounds.png"])]
)
def test_pictures_are_pictures(tiny_runs: Any, run: str, names: list[str]) -> None:
    for name in names:
        with Image.open(Path(tiny_runs.place.storage, run, name)) as image:
            assert image.format == "PNG"
            pixels = np.asarray(image.convert("L"))
        assert min(pixels.shape) >= 100
        assert pixels.std() > 1, "an empty picture"


def test_mlflow_has_one_run_with_its_scores(tiny_runs: Any) -> None:
    where, summary = tiny_runs.place, tiny_runs.summary
    run = mlflow_run(where, "adapted")
    assert run.info.run_id == summary["mlflow_run_id"]
    assert (run.info.run_name, run.info.status) == ("adapted", "FINISHED")
    wanted = {key: str(value) for key, value in flatten(tiny_runs.config).items()}
    assert run.data.params == wanted
    for key, value in summary["direct_transfer"].items():
        assert run.data.metrics[f"eval/direct_transfer/{key}"] == value
    for key, value in summary["adapted"].items():
        assert run.data.metrics[f"eval/target/{key}"] == value
    assert history(where, run, "eval/target/mAP") == [
        (3 * (row["round"] + 1), row["mAP"]) for row in summary["rounds"]
    ]
    for view in ("global", "top", "bottom"):
        assert run.data.metrics[f"round/num_clusters/{view}"] == 8
    assert [step for step, _ in history(where, run, "train/loss/id")] == [0, 1, 2, 3, 4, 5]
    artifacts = MlflowClient(tracking_uri=where.tracking_uri).list_artifacts(run.info.run_id)
    assert {item.path for item in artifacts} == {"ranking.png", "rounds.png", "summary.json"}


def test_named_source_run_is_trained_first(tiny_runs: Any) -> None:
    summary = Folder(tiny_runs.source).read_json("summary.json")
    assert summary["method"] == "source"
    assert summary["adapted"] is None
    assert tiny_runs.summary["direct_transfer"] == summary["direct_transfer"]
    first, second = (mlflow_run(tiny_runs.place, name) for name in ("source-demo", "adapted"))
    assert first.info.end_time <= second.info.start_time


# The same command again


def test_finished_run_returns_its_summary_at_once(
    tiny_runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("open_inputs", "launch", "conclude", "connected"):
        monkeypatch.delattr(pipeline, name)
    where = replace(tiny_runs.place, num_workers=1)
    again = pipeline.run("adapted", tiny_runs.config, where, show=silent)
    assert again == tiny_runs.summary


def test_other_config_under_the_same_name_is_refused(tiny_runs: Any) -> None:
    config = tiny_runs.config
    other = replace(config, num_clusters=9, optim=replace(config.optim, lr=1.0))
    with pytest.raises(ValueError, match="holds a run with another config") as error:
        pipeline.run("adapted", other, tiny_runs.place, show=silent)
    assert f"(num_clusters: 8 -> 9; optim.lr: {config.optim.lr} -> 1.0)" in str(error.value)
    assert folder_of(tiny_runs).read_json("config.json")["num_clusters"] == 8


def test_other_method_under_the_same_name_is_refused(
    tiny_runs: Any, tiny_config: Callable[..., Any]
) -> None:
    with pytest.raises(ValueError, match="kind: 'CoreReIDV2Config' -> 'SourceConfig'"):
        pipeline.run("adapted", tiny_config("source-demo"), tiny_runs.place, show=silent)


@pytest.mark.parametrize(
    ("hook", "call", "save_every_steps", "num_kept", "labelled"),
    [
        ("save", 1, None, 0, [0, 1]),  # after the first round was reported, before it was saved
        ("save", 4, 2, 3, []),  # inside the second round: labels come from the checkpoint
    ],
)
def test_killed_run_ends_as_if_it_had_not_been(
    tiny_runs: Any,
    place: ClusterConfig,
    monkeypatch: pytest.MonkeyPatch,
    hook: str,
    call: int,
    save_every_steps: int | None,
    num_kept: int,
    labelled: list[int],
) -> None:
    config = replace(tiny_runs.config, initial=tiny_runs.source)
    where = replace(place, save_every_steps=save_every_steps)
    made, original = [], getattr(RunHooks, hook)
    asked, label = [], RunHooks.label

    def dying(self: RunHooks, value: Any) -> None:
        made.append(value)
        if len(made) == call:
            raise KeyboardInterrupt
        original(self, value)

    def counted(self: RunHooks, recipe: Recipe, round: int) -> Labelling:
        asked.append(round)
        return label(self, recipe, round)

    with monkeypatch.context() as patch:
        patch.setattr(RunHooks, hook, dying)
        with pytest.raises(KeyboardInterrupt):
            pipeline.run("killed", config, where, show=silent)
    killed = mlflow_run(where, "killed")
    assert killed.info.status == "KILLED"
    kept = saved_reports(reports := Path(where.storage, "killed", "history"))
    assert len(kept) == num_kept

    monkeypatch.setattr(RunHooks, "label", counted)
    summary = pipeline.run("killed", config, where, show=silent)
    assert asked == labelled
    assert saved_reports(reports).items() >= kept.items()
    reference = tiny_runs.summary
    for key in ("direct_transfer", "adapted"):
        assert summary[key] == reference[key]
    for key in ("mAP", "num_clusters", "ari"):
        assert [r[key] for r in summary["rounds"]] == [r[key] for r in reference["rounds"]]
    mine, wanted = (
        last_state(folder) for folder in (Folder(where.storage) / "killed", folder_of(tiny_runs))
    )
    assert (mine.round, mine.step) == (wanted.round, wanted.step) == (2, 0)
    assert_same_values(dict(mine.networks), dict(wanted.networks))
    assert_same_values(dict(mine.optimizer), dict(wanted.optimizer))

    run, straight = mlflow_run(where, "killed"), mlflow_run(tiny_runs.place, "adapted")
    assert run.info.run_id == killed.info.run_id == summary["mlflow_run_id"]
    assert run.info.status == "FINISHED"
    for key in ("train/lr", "train/loss/id", "train/loss/triplet/top", "eval/target/mAP"):
        assert history(where, run, key) == history(tiny_runs.place, straight, key)


def test_a_start_with_another_backbone_is_refused_before_it_is_trained(
    tiny_runs: Any, tiny_config: Callable[..., Any], place: ClusterConfig, monkeypatch: Any
) -> None:
    monkeypatch.setitem(RUNS, "source-demo", tiny_config("source-demo"))
    config = replace(tiny_runs.config, initial="source-demo", backbone="resnet34")
    words = "source-demo holds a resnet18, but the run asks for resnet34; give --backbone resnet18"
    with pytest.raises(ValueError, match=f"^{words}"):
        pipeline.run("adapted", config, place, show=silent)
    assert not (Folder(place.storage) / "source-demo").exists("config.json")


def test_a_network_is_registered_with_the_scores_of_its_own_round(tiny_runs: Any) -> None:
    summary = {**tiny_runs.summary, "selection": "oracle", "selected_round": 0}
    with pytest.raises(ValueError, match="is of round 1, and the scores are of round 0"):
        uploads.register(Mock(), folder_of(tiny_runs), summary, name="x")


def test_the_best_state_is_kept_before_the_round_counts_as_done(
    tiny_runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, run = last_state(folder_of(tiny_runs)), Folder(str(tmp_path))
    (run / "history").write_json("step=00000000.json", {"metrics": {"mAP": 0.5}, "round": 1})
    hooks = Mock(run=run, keep_best=True)
    monkeypatch.setattr(checkpoints, "save", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        RunHooks.save(hooks, state)
    assert checkpoints.read(f"{run.path}/best.pt").round == state.round == 2


def test_direct_transfer_is_scored_by_workers_and_kept(
    tiny_runs: Any, tiny_config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tiny_runs)
    scores = direct.kept(folder).scores
    assert tiny_runs.summary["direct_transfer"]["mAP"] == scores.mAP
    kept = {name: folder.read(name) for name in ("summary.json", direct.FILE)}
    for name in kept:
        folder.delete(name)
    monkeypatch.setattr(worker, "fit", lambda *_, **__: None)
    monkeypatch.setitem(RUNS, "source-demo", tiny_config("source-demo"))
    try:  # as a run that was killed between training and scoring
        again = pipeline.run("adapted", tiny_runs.config, tiny_runs.place, show=silent)
    finally:
        folder.write("summary.json", kept["summary.json"])
    assert folder.exists(direct.FILE)
    assert {**again, "wall_seconds": 0} == {**tiny_runs.summary, "wall_seconds": 0}


def test_run_killed_while_concluding_is_not_trained_again(
    tiny_runs: Any, tiny_config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tiny_runs)
    kept = folder.read("summary.json")
    folder.delete("summary.json")
    try:
        monkeypatch.delattr(pipeline, "launch")
        monkeypatch.setitem(RUNS, "source-demo", tiny_config("source-demo"))
        again = pipeline.run("adapted", tiny_runs.config, tiny_runs.place, show=silent)
    finally:
        folder.write("summary.json", kept)
    assert {**again, "wall_seconds": 0} == {**tiny_runs.summary, "wall_seconds": 0}

"""Searches: what a space means and refuses, what is proposed, stopped and kept, the first tier."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState
from ray.exceptions import RayActorError
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
from ray.tune.search import Searcher

from cluster import search as search_module
from cluster import search_tier
from cluster.config import ClusterConfig
from cluster.inputs import open_inputs
from cluster.search import Halving, look_only, scheduler, search
from cluster.search_figures import parallel_figure, sensitivity_figure, tier_figure
from cluster.search_outcome import conclude, summarised
from cluster.search_plan import Search, needs, refuse_other, settings
from cluster.search_proposals import NUMBER, VALUES, Proposals
from cluster.search_space import (
    Parameter,
    as_options,
    check,
    count_unfit,
    default_space,
    parse,
    why_unfit,
)
from cluster.search_tier import clusterings, grid_of, sweep, values_of
from cluster.search_trial import Assignment, Teller, is_hopeless
from cluster.search_trials import Trial, best_of_trials, rank_correlation, read, read_all, write
from cluster.storage import Folder
from cluster.tracking import NoServer
from cluster.worker import Job
from reid.clustering import DBSCANConfig, jaccard_dbscan, kmeans, split
from reid.clustering.partitions import adjusted_rand_index
from reid.clustering.seeding import greedy_seeds
from reid.override import flatten, override_all
from reid.recipes import RUNS
from reid.recipes.contract import round_seed
from reid.types import Report

DEMO: Any = RUNS["core_reid_v2-demo"]
SPCL: Any = RUNS["spcl-demo"]


def space_of(*texts: str, config: Any = DEMO) -> tuple[Parameter, ...]:
    return parse(texts, config)


# The words of a space


@pytest.mark.parametrize(
    ("text", "kind", "edges"),
    [
        ("optim.lr=log:1e-4:1e-2", "log", (1e-4, 1e-2)),
        ("smoothing=float:0:0.3", "float", (0.0, 0.3)),
        ("num_clusters=int:100:500", "int", (100, 500)),
        ("num-clusters=logint:100:500", "logint", (100, 500)),
        ("ema_momentum=ema:0.9:0.999", "ema", (0.9, 0.999)),
        ("smoothing=0.1,0,0.2", "choice", (0.1, 0.0, 0.2)),
        ("fusion=released,trained", "choice", ("released", "trained")),
        ("optim.optimizer_reset=true,false", "choice", (True, False)),
        ("optim.clip_norm=None,5", "choice", (None, 5.0)),
    ],
)
def test_words_of_a_space(text: str, kind: str, edges: tuple[Any, ...]) -> None:
    (parameter,) = space_of(text)
    assert (parameter.kind, parameter.edges) == (kind, edges)
    assert space_of(str(parameter)) == (parameter,)
    for value in edges:
        assert flatten(override_all(DEMO, {parameter.path: value}))[parameter.path] == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr=log:1e-4:1e-2", "did you mean optim.lr"),
        ("num_cluster=int:1:3", "did you mean num_clusters"),
        ("optim=log:1:2", "several fields: optim.lr"),
        ("num_clusters", "no PATH=VALUES; write for example"),
        ("optim.lr=lgo:1:2", "'lgo' is not one of float, log, int, logint, ema; did you mean log?"),
        ("optim.lr=log:0:1", "the low end is above 0"),
        ("optim.lr=log:2:1", "the low end must be below the high one"),
        ("optim.lr=log:a:1", "ends are not both numbers"),
        ("optim.lr=log:1", "optim.lr=log:LOW:HIGH"),
        ("optim.lr=int:1:2", "OK"),
        ("num_clusters=log:2:9", "num_clusters is a whole number; give num_clusters=int:LOW:HIGH"),
        ("num_clusters=int:2.5:9", "the ends must be whole numbers"),
        ("num_clusters=300", "set one for all trials with --num-clusters"),
        ("num_clusters=300,300", "two or more different values"),
        ("optim.lr=1e-3,fast", "optim.lr=fast, but optim.lr is a number"),
        ("fusion=released,trainde", "did you mean trained?"),
        ("num_rounds=int:2:4", "would not be comparable; set it for all trials with --num-rounds"),
    ],
)
def test_what_is_no_space_is_refused_with_the_remedy(text: str, words: str) -> None:
    if words == "OK":
        text, words = "optim.lr=int:1:2", "optim.lr is a number"
    with pytest.raises(ValueError, match="the space has") as error:
        space_of(text)
    assert words in str(error.value)


def test_default_space_has_what_the_run_has() -> None:
    assert [p.path for p in default_space(DEMO)] == ["optim.lr", "ema_momentum", "num_clusters"]
    assert [p.path for p in default_space(SPCL)] == ["optim.lr", "dbscan.eps"]
    assert [p.path for p in default_space(RUNS["source-demo"])] == ["optim.lr"]


@pytest.mark.parametrize("name", list(RUNS))
def test_default_space_can_train_and_holds_the_own_values(name: str) -> None:
    config = RUNS[name]
    space = default_space(config)
    check(space, config, num_images=10**6)
    for parameter in space:
        own = flatten(config)[parameter.path]
        assert parameter.value_of(parameter.drawn_of(own)) == own


def test_word_default_is_added_to() -> None:
    space = space_of("default", "num_clusters=int:7:9", "smoothing=float:0:0.2")
    assert [p.path for p in space] == ["optim.lr", "ema_momentum", "num_clusters", "smoothing"]
    assert space[2].edges == (7, 9)


def test_a_field_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="names smoothing twice"):
        space_of("smoothing=0,0.1", "smoothing=0,0.2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ema_momentum=ema:0.9:1.2", "ema_momentum is 1.2; it must lie between 0 and 1"),
        ("ema_momentum=ema:0.9:1", "ends below 1"),
        ("num_clusters=int:10:301", "the target has only 300 training images"),
        ("num_clusters=int:1:50", "num_clusters is 1; it must be at least 2"),
        ("optim.lr=float:-1:1", "optim.lr is -1.0; it must be above 0"),
        ("num_clusters=20,400", "num_clusters is 400"),
    ],
)
def test_edges_that_cannot_train_are_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match="the space has") as error:
        check(space_of(text), DEMO, num_images=300)
    assert words in str(error.value)


def test_what_does_not_fit_together_is_counted() -> None:
    space = space_of("dbscan.k1=3,30", "dbscan.k2=2,6", config=SPCL)
    check(space, SPCL, num_images=100)  # 3 fits with 2, if not with the own 4
    assert count_unfit(space, SPCL, num_images=100) == (1, 4)  # 3 and 6
    alone = space_of("dbscan.k1=3,30", config=SPCL)
    with pytest.raises(ValueError, match=r"the space has dbscan\.k1=3,30: k1 is 3 and k2 is 4"):
        check(alone, SPCL, num_images=100)
    for together in ({"dbscan.k1": 3, "dbscan.k2": 2}, {"dbscan.k2": 2, "dbscan.k1": 3}):
        assert why_unfit(SPCL, together, num_images=100) is None  # in whatever order


def test_momenta_are_drawn_evenly_in_the_logarithm_of_one_less_them() -> None:
    (parameter,) = space_of("ema_momentum=ema:0.9:0.9999")
    draw = parameter.distribution
    assert (draw.low, draw.high, draw.log) == (pytest.approx(1e-4), pytest.approx(0.1), True)
    assert parameter.value_of(1e-3) == 0.999
    assert parameter.value_of(draw.low) == 0.9999
    assert parameter.value_of(draw.high) == 0.9


def test_values_as_options() -> None:
    values = {"optim.lr": 3e-4, "num_clusters": 7, "optim.optimizer_reset": False}
    options = ["--optim.lr", "0.0003", "--num-clusters", "7", "--optim.no-optimizer-reset"]
    assert as_options(values) == options
    assert as_options({"optim.milestones": (10, 20)}) == ["--optim.milestones", "10", "20"]


@pytest.mark.parametrize(
    ("error", "hopeless"),
    [
        (ValueError("too many clusters"), True),
        (FloatingPointError("diverged"), True),
        (RuntimeError("a node was lost"), False),
        (NoServer("MLflow is away"), False),
        (WorkerGroupError("x", {1: UserExceptionWithTraceback(FloatingPointError(), "x")}), True),
        (WorkerGroupError("x", {0: RayActorError()}), False),
    ],
)
def test_a_trial_that_failed_by_itself_is_not_tried_again(error: Exception, hopeless: bool) -> None:
    assert is_hopeless(error) == hopeless


def test_a_server_that_is_away_ends_no_search(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module.tracking, "children", Mock(side_effect=ConnectionError()))
    tracker = Mock(uri="http://127.0.0.1:1")
    for method in ("artifact", "values", "tag", "finish"):
        setattr(tracker, method, Mock(side_effect=ConnectionError()))
    asked = asked_of(name="away", where=ClusterConfig(storage=str(tmp_path)))
    trial = Trial(number=0, values={}, drawn=None, state="finished")
    search_module.close(asked, tracker, trial)
    assert "was not told how trial 0 ended" in caplog.text
    tracker.run_id = "1"
    summary = conclude(asked, [trial], None, tracker)
    assert asked.folder.read_json("summary.json") == summary
    assert f"is whole in {asked.folder.path}" in caplog.text


# What is proposed


SPACE = space_of("optim.lr=log:1e-4:1e-2", "num_clusters=int:100:500")


def proposals(**changes: Any) -> tuple[Proposals, list[Trial]]:
    kept: list[Trial] = []
    asked: dict[str, Any] = {
        "space": SPACE,
        "config": DEMO,
        "num_trials": 3,
        "num_images": 3000,
        "seed": 0,
        "earlier": (),
        "keep": kept.append,
        "ended": lambda trial, failed: replace(trial, state="finished"),
        **changes,
    }
    return Proposals(asked.pop("space"), asked.pop("config"), **asked), kept


def row(round: int, objective: float) -> dict[str, Any]:
    return {"round": round, "objective": objective}


def ended(number: int, state: Any, *rows: dict[str, Any], lr: float = 1e-3) -> Trial:
    values = {"optim.lr": lr, "num_clusters": 200}
    return Trial(number=number, values=values, drawn=values, state=state, rounds=rows)


def test_own_values_come_first_then_draws_then_no_more() -> None:
    made, kept = proposals()
    own, *drawn = (made.suggest(name) for name in "abc")
    assert own[VALUES] == {"optim.lr": DEMO.optim.lr, "num_clusters": DEMO.num_clusters}
    assert [found[NUMBER] for found in (own, *drawn)] == [0, 1, 2]
    for found in drawn:
        assert 1e-4 <= found[VALUES]["optim.lr"] <= 1e-2
        assert 100 <= found[VALUES]["num_clusters"] <= 500
    assert made.suggest("d") == Searcher.FINISHED
    assert [trial.number for trial in kept] == [0, 1, 2]
    assert all(trial.state == "running" for trial in kept)


def test_results_reach_optuna() -> None:
    outcomes = {0: ("finished", 0.3), 1: ("stopped", 0.1), 2: ("failed", None)}

    def end(trial: Trial, failed: bool) -> Trial:
        state, value = outcomes[trial.number]
        rows = () if value is None else (row(2, value),)
        return replace(trial, state=state, rounds=rows)  # type: ignore[arg-type]

    made, kept = proposals(ended=end)
    for name in "abc":
        made.suggest(name)
        made.on_trial_complete(name)
    states = [trial.state for trial in made.study.trials]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED]
    assert made.study.trials[0].value == 0.3
    assert made.study.trials[1].intermediate_values == {2: 0.1}
    assert [trial.state for trial in kept[1::2]] == ["finished", "stopped", "failed"]


def test_unended_trials_go_on_and_ended_ones_are_known() -> None:
    earlier = [
        ended(0, "finished", row(2, 0.4)),
        ended(1, "running", row(1, 0.2), lr=2e-3),
        ended(2, "stopped", row(1, 0.1), lr=3e-3),
    ]
    made, kept = proposals(earlier=earlier, num_trials=4)
    assert [trial.state for trial in made.study.trials] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert made.suggest("a") == {NUMBER: 1, VALUES: {"optim.lr": 2e-3, "num_clusters": 200}}
    new = made.suggest("b")
    assert new[NUMBER] == 3  # type: ignore[index]
    assert made.suggest("c") == Searcher.FINISHED
    assert [trial.number for trial in kept] == [3]
    assert made.study.trials[2].params == {"optim.lr": 2e-3, "num_clusters": 200}


def test_unfit_draws_are_kept_and_do_not_count_as_trials() -> None:
    space = space_of("dbscan.k1=3,30", "dbscan.k2=2,6", config=SPCL)
    made, kept = proposals(space=space, config=SPCL, num_trials=12)
    found = [made.suggest(str(n)) for n in range(12)]
    assert all(why_unfit(SPCL, one[VALUES], num_images=99) is None for one in found)  # type: ignore[index]
    unfit = [trial for trial in kept if trial.state == "unfit"]
    assert unfit
    assert all("1 <= k2 <= k1" in trial.why for trial in unfit)
    assert len({trial.number for trial in kept}) == 12 + len(unfit)


def test_own_values_outside_the_space_are_trained_but_teach_optuna_nothing() -> None:
    made, kept = proposals(space=space_of("num_clusters=int:10:20"))
    assert made.suggest("a") == {NUMBER: 0, VALUES: {"num_clusters": DEMO.num_clusters}}
    made.on_trial_complete("a")
    assert made.study.trials == []
    assert kept[0].drawn is None


def test_a_space_in_which_nothing_fits_ends_the_search() -> None:
    space = space_of("dbscan.k1=3,4", "dbscan.k2=5,6", config=SPCL)
    made, _ = proposals(space=space, config=SPCL)
    made.suggest("own")
    with pytest.raises(ValueError, match="combinations in a row cannot train"):
        made.suggest("a")


# What is stopped


def asked_of(**changes: Any) -> Search:
    settings: dict[str, Any] = {
        "name": "s",
        "config": replace(DEMO, num_rounds=8),
        "where": ClusterConfig(num_workers=0),
        "space": SPACE,
        "num_trials": 3,
    }
    return Search(**{**settings, **changes})


def stand_in(number: int) -> Any:
    return SimpleNamespace(trial_id=str(number), config={NUMBER: number})


def decisions(made: Halving, number: int, *rows: dict[str, Any]) -> list[str]:
    trial = stand_in(number)
    made.on_trial_add(None, trial)
    return [made.on_trial_result(None, trial, one) for one in rows]


def test_the_worse_half_is_stopped_but_never_the_own_values() -> None:
    made = scheduler(asked_of(), [])
    assert decisions(made, 1, row(1, 0.0), row(2, 0.5)) == ["CONTINUE", "CONTINUE"]
    assert decisions(made, 2, row(1, 0.9), row(2, 0.4)) == ["CONTINUE", "STOP"]
    assert decisions(made, 0, row(1, 0.0), row(2, 0.1)) == ["CONTINUE", "CONTINUE"]
    assert decisions(made, 3, row(2, 0.6), row(4, 0.6)) == ["CONTINUE", "CONTINUE"]


def test_earlier_trials_count_when_new_ones_are_stopped() -> None:
    earlier = [ended(n, "finished", row(2, 0.5 + n / 10), row(4, 0.9)) for n in range(3)]
    made = scheduler(asked_of(), earlier)
    assert decisions(made, 7, row(2, 0.4)) == ["STOP"]
    assert decisions(made, 8, row(2, 0.9)) == ["CONTINUE"]


def report(round: int, **parts: Any) -> Report:
    empty: dict[str, Any] = {"health": {}, "metrics": None, "seconds": {}}
    return Report(
        round=round, first_step=0, series={"lr": [1.0]}, images_per_s=1.0, **empty | parts
    )


@pytest.mark.parametrize("objective", ["silhouette", "oracle"])
def test_each_round_is_told_once_and_the_last_never(objective: Any) -> None:
    told: list[dict[str, Any]] = []
    config = replace(DEMO, num_rounds=3)
    assignment = Assignment(search="s", config=config, where=ClusterConfig(), objective=objective)
    teller = Teller(assignment, send=told.append)
    for number in (0, 0, 1, 2):  # round 0 twice: repeated after a failure
        teller(report(number, health={"global": {"silhouette": 0.1 * number}}))
        teller(report(number, metrics={"mAP": 0.2 * number}))
    per_round = 0.1 if objective == "silhouette" else 0.2
    assert told == [{"round": 1, "objective": 0.0}, {"round": 2, "objective": per_round}]


# What is kept


def test_trials_are_read_as_they_were_written(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    one, two = ended(0, "failed"), replace(ended(1, "running"), drawn=None)
    for trial in (replace(one, why="ValueError: no"), two):
        write(folder, trial)
    history = folder / "trials" / "001" / "history"
    part = {"first_step": 0, "seconds": {"train": 1.0}}
    health = {"global": {"silhouette": 0.25, "ari": 0.5}}
    history.write_json("step=0.json", {**part, "round": 0, "health": health, "metrics": None})
    history.write_json("step=9.json", {**part, "round": 0, "health": {}, "metrics": {"mAP": 0.75}})
    first, second = read_all(folder, "silhouette")
    assert (first.state, first.why, first.objective) == ("failed", "ValueError: no", None)
    assert (second.state, second.drawn) == ("running", None)
    assert (second.objective, second.mAP) == (0.25, 0.75)
    assert read(folder, 1, "oracle").objective == 0.75
    (folder / "trials" / "001").write_json("summary.json", {})
    assert read(folder, 1, "oracle").state == "finished"


def test_another_search_in_the_folder_is_refused(tmp_path: Path) -> None:
    asked = asked_of(where=ClusterConfig(num_workers=0, storage=str(tmp_path)))
    refuse_other(asked)
    asked.folder.write_json("search.json", settings(asked))
    refuse_other(replace(asked, num_trials=9))
    with pytest.raises(ValueError, match=r"objective: 'silhouette' -> 'oracle'.*give --name"):
        refuse_other(replace(asked, objective="oracle"))
    with pytest.raises(ValueError, match="space: "):
        refuse_other(replace(asked, space=SPACE[:1]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_trials": 0}, "trials is 0"),
        ({"reduction": 1}, "reduction is 1"),
        ({"max_concurrent": 0}, "max_concurrent is 0"),
        ({"grace_rounds": 9}, "give 1 to 8, the run's rounds"),
        ({"config": RUNS["source-demo"]}, "give --objective oracle"),
        ({"where": ClusterConfig(max_workers=2)}, "leave out max_workers"),
    ],
)
def test_searches_that_cannot_be_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        asked_of(**changes)


def test_a_trial_takes_its_workers_and_actors_or_one_process() -> None:
    assert needs(ClusterConfig(num_workers=2, num_shards=4)) == {"CPU": 4.0, "GPU": 0.0}
    assert needs(ClusterConfig(num_workers=0, use_gpu=True)) == {"CPU": 1.0, "GPU": 1.0}


def test_summary_compares_with_the_own_values_and_ranks_scores() -> None:
    def trial(number: int, value: float, mean: float, state: Any = "finished") -> Trial:
        values = {"optim.lr": 1e-3, "num_clusters": 100 + 50 * number}
        rows = ({"round": 8, "objective": value, "mAP": mean},)
        return Trial(number=number, values=values, drawn=None, state=state, rounds=rows)

    trials = [
        trial(0, 0.2, 0.5),
        trial(1, 0.3, 0.6),
        trial(2, 0.4, 0.4),
        trial(3, 0.9, 0.9, "stopped"),
    ]
    tier = search_tier.Tier(
        rows=[{"num_clusters": n, "silhouette": s} for n, s in ((100, 0.1), (150, 0.3), (210, 0.0))]
    )
    found = summarised(asked_of(), trials, tier)
    assert found["best"]["number"] == 2
    assert best_of_trials(trials) is trials[2]
    assert found["beats_own"] is True
    assert found["correlations"] == {
        "num_trials": 3,
        "objective_with_mAP": pytest.approx(-0.5),
        "clustering_tier_with_mAP": pytest.approx(1.0),
    }
    assert found["importances"]["num_clusters"] == pytest.approx(1.0)
    assert found["importances"]["optim.lr"] is None
    json.dumps(found)


def test_rank_correlation_of_too_few_or_equal_values_is_none() -> None:
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 2, 3], [1, 1, 1]) is None
    assert rank_correlation([1, 2, 3], [2, 3, 9]) == 1.0


# The clustering tier


def features_of(num: int = 300) -> np.ndarray:
    generator = np.random.default_rng(3)
    centers = generator.normal(size=(12, 16))
    rows = centers[np.arange(num) % 12] + 0.2 * generator.normal(size=(num, 16))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_clusterings_of_the_tier_are_kmeans_from_one_seeding() -> None:
    config = replace(DEMO, num_clusters=12)
    pool, seed = split(features_of(), 2), round_seed(config.seed, 0, 0)
    grid = [{"num_clusters": count} for count in (4, 9, 20)]
    seeds = greedy_seeds(pool, 20, seed=seed).features
    for values, found in clusterings(pool, config, grid):
        count = int(str(values["num_clusters"]))
        wanted = kmeans(pool, count, seed=0, init=seeds[:count])
        np.testing.assert_array_equal(found.labels, wanted.labels)
        np.testing.assert_array_equal(found.centers, wanted.centers)
    alone = kmeans(pool, 20, seed=seed)
    np.testing.assert_array_equal(found.labels, alone.labels)


def test_clusterings_of_the_tier_are_dbscan_from_one_matrix() -> None:
    config = replace(SPCL, dbscan=DBSCANConfig(k1=10, k2=3))
    pool = split(features_of(), 2)
    grid = [{"dbscan.eps": e, "dbscan.min_samples": m} for e in (0.3, 0.6) for m in (2, 5)]
    for values, found in clusterings(pool, config, grid):
        wanted = jaccard_dbscan(pool, override_all(config, values).dbscan)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(found.labels, wanted.labels)
        np.testing.assert_array_equal(found.centers, wanted.centers)


def test_grid_of_the_tier() -> None:
    space = space_of("num_clusters=logint:10:1000")
    counts = [values["num_clusters"] for values in grid_of(space, DEMO, num_images=3000, num=5)]
    assert counts == [10, 32, 100, 316, 1000]
    own = [values["num_clusters"] for values in grid_of((), DEMO, num_images=3000)]
    assert (len(own), own[0], own[-1]) == (20, 62, 1000)
    assert grid_of(space_of("num_clusters=7,9"), DEMO, num_images=99) == [
        {"num_clusters": 7},
        {"num_clusters": 9},
    ]
    space = space_of("dbscan.min_samples=2,4", "dbscan.eps=float:0.4:0.6", config=SPCL)
    radii = grid_of(space, SPCL, num_images=99, num=3)
    assert [(v["dbscan.eps"], v["dbscan.min_samples"]) for v in radii] == [
        (e, m) for m in (2, 4) for e in (0.4, 0.5, 0.6)
    ]
    with pytest.raises(ValueError, match=r"neither num_clusters nor dbscan\.eps"):
        grid_of((), RUNS["mmt-dbscan-demo"], num_images=99)
    (parameter,) = space_of("num_clusters=int:2:4")
    assert values_of(parameter, 20) == [2, 3, 4]


def test_tier_scores_the_initial_model(tiny_runs: Any) -> None:
    where, config = tiny_runs.place, tiny_runs.config
    inputs = open_inputs(config, where, show=lambda *_: None)
    job = Job(name="x", config=config, where=where, starts={"initial": tiny_runs.source})
    shown: list[str] = []
    grid = [{"num_clusters": count} for count in (4, 8)]
    tier = sweep(job, inputs, grid, show=lambda what, *_: shown.append(what))
    counts = [row["num_clusters"] for row in tier.rows]
    assert counts == [4, 8]
    assert all(isinstance(count, int) for count in counts)  # `--num-clusters 8.0` is no option
    for found in tier.rows:
        assert -1 <= found["silhouette"] <= 1
        assert -1 <= found["ari"] <= 1
    first = Folder(where.storage) / tiny_runs.name / "labels"
    assert first.names()
    # The run's first round clustered the same features from the same seed: the largest count's.
    kept = tiny_runs.summary["rounds"][0]
    assert tier.rows[1]["ari"] == kept["ari"]
    assert tier.rows[1]["silhouette"] == kept["health"]["silhouette"]
    assert {"extract", "cluster and score"} == set(tier.seconds) == set(shown)
    assert adjusted_rand_index(inputs.truth, inputs.truth) == 1


def test_look_only_leaves_picture_table_and_mlflow_run(
    tiny_runs: Any, place: ClusterConfig
) -> None:
    config = replace(tiny_runs.config, initial=tiny_runs.source)
    asked = asked_of(
        name="look", config=config, where=place, space=(), grace_rounds=None, num_trials=1
    )
    found = look_only(asked, num=3, show=lambda *_: None)
    assert [row["num_clusters"] for row in found["rows"]] == [2, 8, 32]
    assert found["best"] in found["rows"]
    assert asked.folder.read_json("clustering.json") == found
    assert asked.folder.read("clustering.png").startswith(b"\x89PNG")
    client = MlflowClient(tracking_uri=place.tracking_uri)
    experiment = client.get_experiment_by_name(place.experiment)
    assert experiment is not None
    runs = client.search_runs(
        [experiment.experiment_id], filter_string="tags.`reid.kind` = 'clustering'"
    )
    names = {item.path for run in runs for item in client.list_artifacts(run.info.run_id)}
    assert {"clustering.png", "clustering.json"} <= names


# Pictures


def test_figures_show_every_trial_with_an_objective() -> None:
    trials = [
        ended(0, "finished", row(8, 0.5)),
        ended(1, "stopped", row(2, 0.2), lr=2e-3),
        ended(2, "failed", lr=3e-3),
    ]
    drawn = parallel_figure(trials, SPACE, objective="silhouette", title="t")
    assert sum(len(line.get_xdata()) == 3 for line in drawn.axes[0].lines) == 2
    drawn = sensitivity_figure(trials, SPACE, objective="silhouette", title="t")
    assert [axes.get_xlabel() for axes in drawn.axes] == ["optim.lr", "num_clusters"]
    assert [len(axes.lines) for axes in drawn.axes] == [2, 2]
    with pytest.raises(ValueError, match="no trial has an objective"):
        parallel_figure(trials[2:], SPACE, objective="silhouette", title="t")


def test_tier_figure_has_a_curve_a_score() -> None:
    rows = [{"num_clusters": n, "silhouette": n / 9, "ari": 0.5} for n in (3, 5, 7)]
    drawn = tier_figure(rows, best=rows[2], own=flatten(DEMO), title="t")
    labels = [line.get_label() for line in drawn.axes[0].lines]
    assert labels[:2] == ["silhouette", "adjusted Rand index with the true identities"]
    rows = [
        {"dbscan.eps": e, "dbscan.min_samples": m, "num_clusters": 3, "silhouette": e}
        for e in (0.3, 0.5)
        for m in (2, 4)
    ]
    drawn = tier_figure(rows, best=rows[0], own=flatten(SPCL), title="t")
    assert len(drawn.axes) == 2


# A whole search, on Ray


class Silent:
    """Shows nothing, remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.seen: set[int] = set()

    def say(self, line: str) -> None:
        self.said.append(line)

    def show(self, what: str, done: int, total: int, note: str) -> None:
        """Show nothing."""

    def trials(self, trials: Any, doing: Any) -> None:
        self.seen |= {trial.number for trial in trials}


def left_behind() -> list[str]:
    """Return the live actors and placement groups of the connected cluster."""
    import ray
    from ray._private.state import actors
    from ray.util import placement_group_table

    assert ray.is_initialized()
    live = [a["ActorClassName"] for a in actors().values() if a["State"] not in ("DEAD",)]
    groups = [g["placement_group_id"] for g in placement_group_table().values()]
    states = [g["state"] for g in placement_group_table().values()]
    return live + [g for g, s in zip(groups, states, strict=True) if s != "REMOVED"]


def wait_until_clean(before: list[str], seconds: float = 60) -> list[str]:
    import time

    deadline = time.monotonic() + seconds
    while sorted(left_behind()) != sorted(before) and time.monotonic() < deadline:
        time.sleep(0.5)
    return left_behind()


@pytest.mark.ray
def test_a_search_trains_stops_goes_on_and_leaves_nothing_running(
    ray_cluster: str, tiny_runs: Any, place: ClusterConfig, tiny_config: Callable[..., Any]
) -> None:
    config = replace(tiny_runs.config, initial=tiny_runs.source, num_rounds=2)
    asked = asked_of(
        name="search",
        config=config,
        where=place,
        space=parse(["optim.lr=log:1e-4:1e-2", "num_clusters=int:4:12"], config),
        num_trials=3,
        grace_rounds=1,
    )
    before, watcher = left_behind(), Silent()

    summary = search(asked, watcher=watcher)

    assert wait_until_clean(before) == before
    assert any("at a time" in line for line in watcher.said)
    assert watcher.seen == {0, 1, 2}
    trials = {trial["number"]: trial for trial in summary["trials"]}
    assert trials[0]["state"] == "finished"
    assert {trial["state"] for trial in trials.values()} <= {"finished", "stopped"}
    assert trials[0]["values"] == {"optim.lr": config.optim.lr, "num_clusters": 8}
    for trial in trials.values():
        done = (Folder(place.storage) / trial["run"]).exists("summary.json")
        assert done == (trial["state"] == "finished")
    for name in ("parallel.png", "sensitivity.png", "clustering.png"):
        assert asked.folder.read(name).startswith(b"\x89PNG")

    client = MlflowClient(tracking_uri=place.tracking_uri)
    parent = client.get_run(summary["mlflow_run_id"])
    under = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    children = client.search_runs([parent.info.experiment_id], filter_string=under)
    assert len(children) == 3
    for child in children:
        ended_well = child.data.tags["reid.trial"] == "finished"
        assert child.info.status == ("FINISHED" if ended_well else "KILLED")
    assert parent.info.status == "FINISHED"

    # As if killed after the last trial's checkpoint, and then asked for one trial more.
    last = Folder(place.storage) / trials[0]["run"]
    last.delete("summary.json")
    last.write_json("trial.json", {**last.read_json("trial.json"), "state": "running"})
    again = search(replace(asked, num_trials=4), watcher=Silent())
    states = {trial["number"]: trial["state"] for trial in again["trials"]}
    assert sorted(states) == [0, 1, 2, 3]
    assert states[0] == "finished"
    assert again["trials"][0]["mAP"] == summary["trials"][0]["mAP"]
    assert wait_until_clean(before) == before

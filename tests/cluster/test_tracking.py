"""One MLflow run a training, written once."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from cluster import tracking
from cluster.tracking import Tracker
from reid.types import Report

PARAMS = {"optim.lr": 7e-4, "optim.milestones": [40, 70], "weights": None, "long": "x" * 9000}
PARAMS |= {f"field{i:03d}": i for i in range(150)}  # more than one request takes


@pytest.fixture
def uri(mlflow_store: Callable[[Path], str], tmp_path: Path) -> str:
    return mlflow_store(tmp_path)


def start(uri: str, **changes: Any) -> Tracker:
    settings: dict[str, Any] = {
        "experiment": "reid",
        "run_key": "/runs/demo#0123",
        "name": "demo",
        "params": PARAMS,
        "tags": {"reid.method": "core_reid_v2"},
    }
    return tracking.start(uri=uri, **{**settings, **changes})


def report(first_step: int, num_steps: int, **changes: Any) -> Report:
    steps = range(first_step, first_step + num_steps)
    settings: dict[str, Any] = {
        "round": 0,
        "first_step": first_step,
        "series": {"id": [2.0 + step for step in steps], "lr": [0.5**step for step in steps]},
        "health": {},
        "metrics": None,
        "seconds": {"train": 1.5},
        "images_per_s": 64.0,
    }
    return Report(**{**settings, **changes})


def history(tracker: Tracker, key: str) -> list[tuple[int, float]]:
    found = MlflowClient(tracking_uri=tracker.uri).get_metric_history(tracker.run_id, key)
    return sorted((metric.step, metric.value) for metric in found)


def test_start_makes_a_run_with_params_and_tags(uri: str) -> None:
    tracker = start(uri)
    run = MlflowClient(tracking_uri=uri).get_run(tracker.run_id)
    assert run.info.run_name == "demo"
    assert run.info.status == "RUNNING"
    wanted = {key: str(value)[: tracking.PARAM_CHARS] for key, value in PARAMS.items()}
    assert run.data.params == wanted
    assert run.data.tags["reid.method"] == "core_reid_v2"
    assert run.data.tags[tracking.RUN_KEY] == "/runs/demo#0123"


def test_start_goes_on_in_the_run_with_the_key(uri: str) -> None:
    first = start(uri)
    first.finish("KILLED")
    client = MlflowClient(tracking_uri=uri)
    assert client.get_run(first.run_id).info.status == "KILLED"
    assert start(uri) == first
    assert client.get_run(first.run_id).info.status == "RUNNING"


def test_runs_that_begin_together_in_a_new_store_are_all_taken(tmp_path: Path) -> None:
    uri, num_runs = f"sqlite:///{tmp_path}/runs/mlflow.db", 3
    processes = multiprocessing.get_context("fork")  # MLflow is imported already
    together, found = processes.Barrier(num_runs), processes.Queue()

    def begin(number: int) -> None:
        together.wait()
        try:
            found.put(start(uri, run_key=f"/runs/{number}").run_id)
        except ValueError as error:
            found.put(str(error))

    begun = [processes.Process(target=begin, args=(number,)) for number in range(num_runs)]
    for process in begun:
        process.start()
    ids = {found.get(timeout=120) for _ in begun}
    for process in begun:
        process.join()
    client = MlflowClient(tracking_uri=uri)
    (experiment,) = client.search_experiments(filter_string="name = 'reid'")
    assert ids == {run.info.run_id for run in client.search_runs([experiment.experiment_id])}
    assert len(ids) == num_runs


def test_an_experiment_that_another_run_has_just_made_is_used(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start(uri)
    by_name, asked = MlflowClient.get_experiment_by_name, []

    def late(client: MlflowClient, name: str) -> Any:
        asked.append(name)
        return by_name(client, name) if len(asked) > 1 else None

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", late)
    second = start(uri, run_key="/runs/other")
    client = MlflowClient(tracking_uri=uri)
    one, other = (client.get_run(tracker.run_id).info for tracker in (first, second))
    assert one.run_id != other.run_id
    assert one.experiment_id == other.experiment_id


def test_start_completes_a_run_that_was_killed_at_its_start(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", die)
        with pytest.raises(KeyboardInterrupt):
            start(uri)
    client = MlflowClient(tracking_uri=uri)
    tracker = start(uri)
    assert client.get_run(tracker.run_id).data.params.keys() == PARAMS.keys()
    assert len(client.search_runs([client.get_run(tracker.run_id).info.experiment_id])) == 1


@pytest.mark.parametrize("key", ["/runs/demo#4567", '/runs/it\'s "this"#0123', "/runs/100%_#1"])
def test_another_key_is_another_run(uri: str, key: str) -> None:
    first = start(uri)
    other = start(uri, run_key=key)
    assert other.run_id != first.run_id
    assert start(uri, run_key=key) == other
    assert start(uri) == first


def test_report_sends_every_value_with_its_step(uri: str) -> None:
    tracker = start(uri)
    tracker.report(
        report(
            600,
            700,  # 1400 values: more than one request takes
            health={"global": {"num_clusters": 8.0}, "top": {"num_clusters": 7.0}},
            metrics={"mAP": 0.25, "rank1": 0.5},
            seconds={"train": 1.5, "extract": 2.5},
        )
    )
    steps = range(600, 1300)
    assert history(tracker, "train/loss/id") == [(step, 2.0 + step) for step in steps]
    assert history(tracker, "train/lr") == [(step, 0.5**step) for step in steps]
    at_end = {
        "round/num_clusters/global": 8.0,
        "round/num_clusters/top": 7.0,
        "eval/target/mAP": 0.25,
        "eval/target/rank1": 0.5,
        "round/seconds/train": 1.5,
        "round/seconds/extract": 2.5,
        "train/images_per_s": 64.0,
    }
    for key, value in at_end.items():
        assert history(tracker, key) == [(1300, value)]


def test_repeated_report_is_sent_once(uri: str) -> None:
    tracker = start(uri)
    tracker.report(report(0, 3))
    tracker.report(report(3, 3))
    start(uri).report(report(3, 3))  # as a resumed training does
    tracker.report(report(0, 3))
    assert [step for step, _ in history(tracker, "train/lr")] == [0, 1, 2, 3, 4, 5]
    assert [step for step, _ in history(tracker, "round/seconds/train")] == [3, 6]
    tracker.report(report(6, 3))
    assert [step for step, _ in history(tracker, "train/lr")] == list(range(9))


def test_values_artifact_tag_finish(uri: str, tmp_path: Path) -> None:
    tracker = start(uri)
    tracker.values({"eval/direct_transfer/mAP": 0.125}, step=0)
    tracker.tag("reid.checkpoint", "somewhere")
    file = tmp_path / "summary.json"
    file.write_text('{"run": "demo"}')
    tracker.artifact(file)
    tracker.finish("FINISHED")
    client = MlflowClient(tracking_uri=uri)
    run = client.get_run(tracker.run_id)
    assert history(tracker, "eval/direct_transfer/mAP") == [(0, 0.125)]
    assert run.data.tags["reid.checkpoint"] == "somewhere"
    assert run.info.status == "FINISHED"
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    kept = client.download_artifacts(tracker.run_id, "summary.json", str(fetched))
    assert Path(kept).read_text() == '{"run": "demo"}'
    assert fetched in Path(kept).parents

"""What a run's folder sends to MLflow, however long the server is away."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cluster import card, tracking, uploads
from cluster.card import Card
from cluster.inputs import DataPart
from cluster.storage import Folder
from cluster.tracking import NoServer, Tracker
from cluster.uploads import Outbox
from reid.types import Report

PART = DataPart(
    name="market1501 train",
    root="/data/market1501",
    context="training",
    num_images=12936,
    num_identities=751,
    num_cameras=6,
    sha256="ab" * 32,
)
SUMMARY: dict[str, Any] = {
    "direct_transfer": {"mAP": 0.25, "rank1": 0.5},
    "adapted": {"mAP": 0.75, "rank1": 0.875},
    "selection": "last",
    "selected_round": 1,
    "wall_seconds": 61.0,
}


@pytest.fixture
def run(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "runs" / "demo"))


@pytest.fixture
def tracker(mlflow_store: Callable[[Path], str], tmp_path: Path) -> Tracker:
    return start(mlflow_store(tmp_path))


def start(uri: str) -> Tracker:
    return tracking.start(
        uri=uri, experiment="reid", run_key="k", name="demo", params={}, tags={}, data=[PART]
    )


def report(first_step: int) -> Report:
    return Report(
        round=first_step // 3,
        first_step=first_step,
        series={"id": [1.0, 2.0, 3.0], "lr": [0.1, 0.1, 0.1]},
        health={},
        metrics={"mAP": 0.5},
        seconds={"train": 1.0},
        images_per_s=10.0,
    )


class Away:
    """A server that answers after it was asked so many times."""

    def __init__(self, patch: pytest.MonkeyPatch, *, refusals: int) -> None:
        self.left, self.asked = refusals, 0
        for name in ("get_run", "log_batch", "set_tag", "log_artifact", "set_terminated"):
            patch.setattr(MlflowClient, name, self._unless_away(getattr(MlflowClient, name)))

    def _unless_away(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*args: Any, **kwargs: Any) -> Any:
            self.asked += 1
            if self.left:
                self.left -= 1
                raise MlflowException("API request failed") from ConnectionError("refused")
            return call(*args, **kwargs)

        return asked


def steps(tracker: Tracker, key: str) -> list[int]:
    found = MlflowClient(tracking_uri=tracker.uri).get_metric_history(tracker.run_id, key)
    return sorted(metric.step for metric in found)


def test_a_report_lies_in_the_folder_with_all_that_is_sent(run: Folder, tracker: Tracker) -> None:
    uploads.keep(run, report(0))
    uploads.keep(run, report(3))
    Outbox(tracker, run).send()
    assert steps(tracker, "train/loss/id") == [0, 1, 2, 3, 4, 5]
    assert steps(tracker, "eval/target/mAP") == [3, 6]
    found = MlflowClient(tracking_uri=tracker.uri).get_metric_history(
        tracker.run_id, "eval/target/mAP"
    )
    made = run.read_json("history/step=00000000.json")["time_ms"]
    assert min(metric.timestamp for metric in found) == made


def test_sending_twice_changes_nothing(run: Folder, tracker: Tracker) -> None:
    uploads.keep(run, report(0))
    Outbox(tracker, run).send()
    MlflowClient(tracking_uri=tracker.uri).set_tag(tracker.run_id, tracking.SENT, "0")
    Outbox(tracker, run).send()  # as if it had been killed before it noted what was sent
    assert steps(tracker, "train/lr") == [0, 1, 2]


def test_what_a_server_has_is_not_even_read_again(
    run: Folder, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for first_step in (0, 3, 6):
        uploads.keep(run, report(first_step))
    Outbox(tracker, run).send()
    uploads.keep(run, report(9))
    read, read_json = [], Folder.read_json
    monkeypatch.setattr(
        Folder, "read_json", lambda self, name: read.append(name) or read_json(self, name)
    )
    Outbox(tracker, run).send()  # as a resumed run does
    assert read == ["step=00000009.json"]
    assert steps(tracker, "train/lr") == list(range(12))


def test_a_server_that_is_away_gets_it_later(
    run: Folder,
    tracker: Tracker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    samples = [("system/node/cpu_utilization_percentage", 50.0, 1000, 0)]
    outbox = Outbox(tracker, run, lambda: [samples.pop()] if samples else [])
    uploads.keep(run, report(0))
    Away(monkeypatch, refusals=2)
    with caplog.at_level(logging.WARNING):
        assert not outbox.try_send()
        uploads.keep(run, report(3))
        assert not outbox.try_send()
        assert outbox.try_send()
    assert steps(tracker, "train/lr") == [0, 1, 2, 3, 4, 5]
    assert steps(tracker, "system/node/cpu_utilization_percentage") == [0]
    away, back = caplog.messages
    assert "(ConnectionError: refused); training goes on" in away
    assert run.path in away
    assert "has all figures again" in back


def test_the_thread_sends_while_the_run_goes_on(
    run: Folder, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "POLL_S", 0.01)
    sent, send = threading.Event(), Tracker.report

    def noting(*args: Any, **kwargs: Any) -> None:
        send(*args, **kwargs)
        sent.set()

    monkeypatch.setattr(Tracker, "report", noting)
    with uploads.sending(tracker, run):
        uploads.keep(run, report(0))
        assert sent.wait(60)
        assert steps(tracker, "train/lr") == [0, 1, 2]
        uploads.keep(run, report(3))
    assert steps(tracker, "train/lr") == [0, 1, 2, 3, 4, 5], "what was written last is missing"


def test_a_failing_run_keeps_its_own_error(
    run: Folder, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train() -> None:
        with uploads.sending(tracker, run):
            uploads.keep(run, report(0))
            raise RuntimeError("of the training")

    Away(monkeypatch, refusals=100)
    with pytest.raises(RuntimeError, match="of the training"):
        train()
    uploads.stop(tracker, RuntimeError("of the training"))


def test_the_end_waits_for_a_server_and_then_delivers(
    run: Folder, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads.time, "sleep", lambda _: None)
    uploads.keep(run, report(0))
    run.write(uploads.PLOT, b"png")
    away = Away(monkeypatch, refusals=3)
    note = card.with_scores("what it is", SUMMARY)
    assert uploads.deliver(tracker, run, SUMMARY, note=note, model=None)
    assert away.left == 0
    found = MlflowClient(tracking_uri=tracker.uri)
    kept = found.get_run(tracker.run_id)
    assert kept.info.status == "FINISHED"
    assert kept.data.metrics["eval/direct_transfer/mAP"] == 0.25
    assert kept.data.tags["mlflow.note.content"].startswith("what it is")
    assert "| adapted | 75.0 | 87.5 |" in kept.data.tags["mlflow.note.content"]
    names = {item.path for item in found.list_artifacts(tracker.run_id)}
    assert names == {uploads.PLOT, uploads.SUMMARY}


def test_a_server_that_stays_away_costs_a_warning_that_says_how_to_send_later(
    run: Folder,
    tracker: Tracker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(uploads, "PATIENCE_S", 0.0)
    uploads.keep(run, report(0))
    Away(monkeypatch, refusals=1000)
    assert not uploads.deliver(tracker, run, SUMMARY, note="", model="person")
    (message,) = caplog.messages
    assert "ConnectionError: refused" in message
    assert message.endswith(f"python -m jobs.upload {run.path} --register person")


# The card


def make_card(**changes: Any) -> Card:
    settings: dict[str, Any] = {
        "experiment": "reid",
        "run_key": "folder#0123",
        "name": "demo",
        "params": {"optim.lr": 7e-4},
        "tags": {"reid.method": "mmt"},
        "data": (PART,),
        "note": "what it is",
    }
    return Card(**{**settings, **changes})


def test_a_card_is_read_as_it_was_kept_and_can_go_to_another_store(
    run: Folder, tracker: Tracker, mlflow_store: Callable[[Path], str], tmp_path: Path
) -> None:
    card.keep(run, make_card(), tracker)
    assert card.read(run) == (make_card(), tracker)
    (tmp_path / "other").mkdir()
    other = card.again(make_card(), uri=mlflow_store(tmp_path / "other"))
    found = MlflowClient(tracking_uri=other.uri).get_run(other.run_id)
    assert found.data.params == {"optim.lr": "0.0007"}
    assert found.data.tags["mlflow.note.content"] == "what it is"
    (listed,) = found.inputs.dataset_inputs
    assert (listed.dataset.name, listed.dataset.digest) == ("market1501 train", "ab" * 8)
    assert '"num_identities": 751' in listed.dataset.profile
    assert [(tag.key, tag.value) for tag in listed.tags] == [("mlflow.data.context", "training")]


class Job:
    """Of a job, what `begin` asks."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder


def test_a_new_run_is_refused_where_no_server_answers(
    run: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(NoServer, match=r"http://127.0.0.1:1 did not take.*--cluster.tracking-uri"):
        card.begin(Job(run), make_card(), uri="http://127.0.0.1:1")  # type: ignore[arg-type]
    assert not run.exists(card.TRACKING)


def test_a_run_that_is_known_goes_on_while_its_server_is_away(
    run: Folder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    known = Tracker(uri="http://127.0.0.1:1", run_id="1234")
    card.keep(run, make_card(), known)
    job: Any = Job(run)
    assert card.begin(job, make_card(), uri=known.uri) == known
    assert "goes on" in caplog.text
    with pytest.raises(NoServer):
        card.begin(job, make_card(), uri="http://127.0.0.1:2")

"""MLflow, through one writer: the only file that knows it.

One MLflow run a training, found again by the tag `reid.run_key`, so that a resumed training goes on
in the run it began. Values are sent in batches, and a stretch of training that was already sent (a
round repeated after a failure gives the same values) is not sent twice.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reid.types import Report

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN_KEY = "reid.run_key"
SENT = "reid.sent_steps"
BATCH_METRICS, BATCH_PARAMS = 1000, 100
"""most values MLflow takes in one request"""
PARAM_CHARS = 500


@dataclass(frozen=True, kw_only=True)
class Tracker:
    """One run in one store; plain values, so it travels to the process that writes."""

    uri: str
    run_id: str

    def report(self, report: Report) -> None:
        """Send a stretch of training: losses by step, health, metrics and seconds at its end."""
        from mlflow.entities import Metric

        client = self._client
        stop = report.first_step + len(report.series["lr"])
        if int(client.get_run(self.run_id).data.tags.get(SENT, 0)) >= stop:
            return
        now = int(time.time() * 1000)
        values = [
            Metric(series_key(name), value, now, report.first_step + i)
            for name, column in report.series.items()
            for i, value in enumerate(column)
        ]
        values += [Metric(key, value, now, stop) for key, value in at_end(report).items()]
        for start in range(0, len(values), BATCH_METRICS):
            client.log_batch(self.run_id, metrics=values[start : start + BATCH_METRICS])
        client.set_tag(self.run_id, SENT, str(stop))

    def values(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Send single values, such as direct transfer's scores."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(
            self.run_id, metrics=[Metric(key, value, now, step) for key, value in metrics.items()]
        )

    def artifact(self, path: Path) -> None:
        """Keep a file with the run."""
        self._client.log_artifact(self.run_id, str(path))

    def tag(self, key: str, value: str) -> None:
        """Set a tag of the run."""
        self._client.set_tag(self.run_id, key, value)

    def finish(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED."""
        self._client.set_terminated(self.run_id, status)

    @property
    def _client(self) -> "MlflowClient":
        from mlflow import MlflowClient  # here: 5 s of processor time that no worker has to spend

        return MlflowClient(tracking_uri=self.uri)


def start(
    *,
    uri: str,
    experiment: str,
    run_key: str,
    name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    parent: str | None = None,
) -> Tracker:
    """Return the tracker of the run with this key, made when it is new, re-opened when not.

    `parent` is the id of the run that the UI shows this one under: a search's.
    """
    from mlflow import MlflowClient
    from mlflow.entities import Param
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    logging.getLogger("mlflow").setLevel(
        logging.WARNING
    )  # its migrations of a new file, line by line
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    experiment_id = found.experiment_id if found else client.create_experiment(experiment)
    key = run_key.replace("'", "%27")  # MLflow's filters know no escape
    runs = client.search_runs(
        [experiment_id], filter_string=f"tags.`{RUN_KEY}` = '{key}'", max_results=1
    )
    if runs:
        run_id = runs[0].info.run_id
        client.update_run(run_id, status="RUNNING")
    else:
        tags = {RUN_KEY: key, "reid.version": "0.1.0", **tags}
        if parent is not None:
            tags[MLFLOW_PARENT_RUN_ID] = parent
        run_id = client.create_run(experiment_id, run_name=name, tags=tags).info.run_id
    # Sent again to a found run: it may have been killed before it had them all.
    rows = [Param(key, str(value)[:PARAM_CHARS]) for key, value in params.items()]
    for begin in range(0, len(rows), BATCH_PARAMS):
        client.log_batch(run_id, params=rows[begin : begin + BATCH_PARAMS])
    return Tracker(uri=uri, run_id=run_id)


def children(parent: Tracker) -> dict[str, Tracker]:
    """Return the runs that were started under a run, by their names."""
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    client = parent._client
    experiment = client.get_run(parent.run_id).info.experiment_id
    under = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.run_id}'"
    runs = client.search_runs([experiment], filter_string=under)
    return {run.info.run_name: replace(parent, run_id=run.info.run_id) for run in runs}


def series_key(name: str) -> str:
    """Return the MLflow key of a value logged at every step."""
    return "train/lr" if name == "lr" else f"train/loss/{name}"


def at_end(report: Report) -> dict[str, float]:
    """Return {MLflow key: value} of what is known at a stretch's end."""
    values = {f"round/seconds/{part}": value for part, value in report.seconds.items()}
    values["train/images_per_s"] = report.images_per_s
    for view, health in report.health.items():
        values |= {f"round/{name}/{view}": value for name, value in health.items()}
    for name, value in (report.metrics or {}).items():
        values[f"eval/target/{name}"] = value
    return values

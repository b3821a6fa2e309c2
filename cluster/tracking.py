"""MLflow, through one client: the only file that knows it.

One MLflow run a training, found again by the tag `reid.run_key`, so that a resumed training goes on
in the run it began. Values are sent in batches with the time they were made, so sending them again
changes nothing; a stretch of training that was sent before (a round repeated after a failure gives
the same values) is not sent twice.
"""

import json
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import local_store
from cluster.redaction import redacted
from reid.types import Report

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from torch import nn

    from cluster.inputs import DataPart

RUN_KEY = "reid.run_key"
SENT = "reid.sent_steps"
BATCH_METRICS, BATCH_PARAMS = 1000, 100
"""most values MLflow takes in one request"""
PARAM_CHARS = 500
NEWEST, CHAMPION = "newest", "champion"
"""aliases of a registered model's versions; MLflow keeps `latest` for itself"""

Sample = tuple[str, float, int, int]
"""A value of a run: (key, value, time in ms, step)."""


class NoServer(ValueError):  # noqa: N818
    """The MLflow store cannot be reached, or refuses."""


@dataclass(frozen=True, kw_only=True)
class Tracker:
    """One run in one store; plain values, so it travels to other processes."""

    uri: str
    run_id: str

    def report(self, report: Report, *, time_ms: int | None = None) -> None:
        """Send a stretch of training: losses by step, health, metrics and seconds at its end.

        `time_ms`: when it was made; None: now.
        """
        stop = report.first_step + len(report.series["lr"])
        sent = self.sent_steps()
        if sent >= stop:
            return
        made = time_ms if time_ms is not None else int(time.time() * 1000)
        values: list[Sample] = [
            (series_key(name), value, made, report.first_step + i)
            for name, column in report.series.items()
            for i, value in enumerate(column)
            if report.first_step + i >= sent
        ]
        values += [(key, value, made, stop) for key, value in at_end(report).items()]
        self.samples(values)
        self.tag(SENT, str(stop))

    def sent_steps(self) -> int:
        """Return up to which global step the run was sent."""
        return int(self._client.get_run(self.run_id).data.tags.get(SENT, 0))

    def samples(self, values: Sequence[Sample]) -> None:
        """Send values that carry their times and steps."""
        from mlflow.entities import Metric

        client = self._client
        for start in range(0, len(values), BATCH_METRICS):
            batch = [Metric(*value) for value in values[start : start + BATCH_METRICS]]
            client.log_batch(self.run_id, metrics=batch)

    def values(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Send single values, such as direct transfer's scores."""
        now = int(time.time() * 1000)
        self.samples([(key, value, now, step) for key, value in metrics.items()])

    def artifact(self, path: Path) -> None:
        """Keep a file with the run."""
        self._client.log_artifact(self.run_id, str(path))

    def tag(self, key: str, value: str) -> None:
        """Set a tag of the run."""
        self._client.set_tag(self.run_id, key, value)

    def register(
        self,
        module: "nn.Module",
        *,
        name: str,
        about: Mapping[str, Any],
        scores: Mapping[str, float],
    ) -> str:
        """Log a module as the run's model and make it a version of the registered model `name`.

        The module takes images (B,H,W,3) uint8 and is saved by torch.export: a graph and tensors,
        nothing that is executed when it is read. `about` says how to prepare images. The alias
        `newest` moves to the version, `champion` where its mAP is above that of the champion on
        the same target, or there is none. Returns the version; a run has one of each name.
        """
        client = self._client
        _make_registered(client, name)
        found = client.search_model_versions(f"name = '{name}' and run_id = '{self.run_id}'")
        if found:
            version = found[0]
        else:
            run = client.get_run(self.run_id)
            logged = client.create_logged_model(
                run.info.experiment_id,
                name=run.info.run_name,
                source_run_id=self.run_id,
                params={key: str(value)[:PARAM_CHARS] for key, value in about.items()},
                model_type="embedding",
            )
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model"
                _save(module, path, about=about, run_id=self.run_id, model_id=logged.model_id)
                client.log_model_artifacts(logged.model_id, str(path))
            client.finalize_logged_model(logged.model_id, "READY")
            version = client.create_model_version(
                name,
                source=logged.artifact_location,  # models:/ID is looked up in MLflow's global store
                run_id=self.run_id,
                model_id=logged.model_id,
                tags={
                    "target": run.data.tags.get("reid.target", ""),
                    **{key: f"{value:.6f}" for key, value in scores.items()},
                },
            )
        client.set_registered_model_alias(name, NEWEST, version.version)
        if _is_better(client, version):
            client.set_registered_model_alias(name, CHAMPION, version.version)
        return str(version.version)

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
    data: "Sequence[DataPart]" = (),
    parent: str | None = None,
) -> Tracker:
    """Return the tracker of the run with this key, made when it is new, re-opened when not.

    `parent` is the id of the run that the UI shows this one under: a search's. Raises NoServer.
    """
    # its migrations of a new file, line by line
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    try:
        with local_store.opened_alone(uri):
            run_id = _open(uri, experiment, run_key=run_key, name=name, tags=tags, parent=parent)
        tracker = Tracker(uri=uri, run_id=run_id)
        _describe(tracker, params, data)
    except Exception as error:  # the store's errors are of many libraries
        raise NoServer(
            f"MLflow at {uri} did not take the run: {reason(error)}; start that server, or give "
            "another with --cluster.tracking-uri (user and password by MLFLOW_TRACKING_USERNAME "
            "and MLFLOW_TRACKING_PASSWORD)"
        ) from error
    return tracker


def _open(
    uri: str,
    experiment: str,
    *,
    run_key: str,
    name: str,
    tags: Mapping[str, str],
    parent: str | None,
) -> str:
    """Return the id of the run with a key."""
    from mlflow import MlflowClient
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    client = MlflowClient(tracking_uri=uri)
    experiment_id = _experiment(client, experiment, artifacts=local_store.artifacts_of(uri))
    key = redacted(run_key).replace("'", "%27")  # MLflow's filters know no escape
    runs = client.search_runs(
        [experiment_id], filter_string=f"tags.`{RUN_KEY}` = '{key}'", max_results=1
    )
    if runs:
        run_id: str = runs[0].info.run_id
        client.update_run(run_id, status="RUNNING")
        return run_id
    shown = {name: redacted(value) for name, value in tags.items()}
    tags = {RUN_KEY: key, "reid.version": "0.1.0", **shown}
    if parent is not None:
        tags[MLFLOW_PARENT_RUN_ID] = parent
    made: str = client.create_run(experiment_id, run_name=name, tags=tags).info.run_id
    return made


def _experiment(client: "MlflowClient", name: str, *, artifacts: str | None) -> str:
    """Return the id of an experiment, made where there is none of the name."""
    found = client.get_experiment_by_name(name)
    if found is None:
        with _unless_made():
            client.create_experiment(name, artifact_location=artifacts)
        found = client.get_experiment_by_name(name)
    return str(found.experiment_id)


@contextmanager
def _unless_made() -> Iterator[None]:
    """Make something, or find that another run has just made it."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _describe(tracker: Tracker, params: Mapping[str, Any], data: "Sequence[DataPart]") -> None:
    """Send parameters and data sets, to a found run too: it may have been killed before."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    client = tracker._client
    rows = [Param(key, redacted(str(value))[:PARAM_CHARS]) for key, value in params.items()]
    for begin in range(0, len(rows), BATCH_PARAMS):
        client.log_batch(tracker.run_id, params=rows[begin : begin + BATCH_PARAMS])
    inputs = [
        DatasetInput(
            dataset=Dataset(
                name=part.name,
                digest=part.sha256[:16],
                source_type="s3" if part.root.startswith("s3://") else "local",
                source=json.dumps({"uri": part.root}),
                profile=json.dumps({"num_rows": part.num_images, **asdict(part)}),
            ),
            tags=[InputTag(MLFLOW_DATASET_CONTEXT, part.context)],
        )
        for part in data
    ]
    if inputs:
        client.log_inputs(tracker.run_id, inputs)


def _make_registered(client: "MlflowClient", name: str) -> None:
    """Make a registered model where there is none of the name."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        with _unless_made():
            client.create_registered_model(name, description="Embeds images for re-identification.")


def _is_better(client: "MlflowClient", version: Any) -> bool:
    """Whether a version scores above the champion on the champion's target, or there is none."""
    champion = client.get_registered_model(version.name).aliases.get(CHAMPION)
    if champion is None:
        return True
    best = client.get_model_version(version.name, champion)
    same = best.tags.get("target") == version.tags.get("target")
    return same and float(version.tags["mAP"]) > float(best.tags["mAP"])


def _save(
    module: "nn.Module", path: Path, *, about: Mapping[str, Any], run_id: str, model_id: str
) -> None:
    """Write a module as MLflow's PyTorch model in the format without pickle."""
    import mlflow.pytorch
    import numpy as np
    import torch
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    height, width = about["height"], about["width"]
    example = np.zeros((2, height, width, 3), dtype=np.uint8)  # of one, B would be a constant
    with torch.no_grad():
        size = module(torch.from_numpy(example)).shape[1]
        mlflow.pytorch.save_model(
            module,
            path=str(path),
            mlflow_model=Model(run_id=run_id, model_id=model_id),
            input_example=example,
            signature=ModelSignature(
                inputs=Schema([TensorSpec(np.dtype("uint8"), (-1, height, width, 3))]),
                outputs=Schema([TensorSpec(np.dtype("float32"), (-1, size))]),
            ),
            metadata=dict(about),
            pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}", "numpy", "mlflow"],
            serialization_format="pt2",
        )


def reason(error: BaseException) -> str:
    """Return an error in one line, with its innermost cause, which names the real trouble."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


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

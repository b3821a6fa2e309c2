"""A run from its command to its summary: check, pre-train when needed, train, conclude."""

import difflib
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from cluster import checkpoints, tracking
from cluster.board import Show
from cluster.checkpoints import NoCheckpoint
from cluster.config import ClusterConfig
from cluster.inputs import Inputs, open_inputs
from cluster.launch import connected, launch
from cluster.listening import Listen
from cluster.outcome import SUMMARY, conclude
from cluster.storage import Folder
from cluster.worker import Job, backbone_weights
from reid.checkpoint import RunState
from reid.override import config_hash, differences, flatten
from reid.recipes import RUNS, RunConfig, method_of

CONFIG = "config.json"


def run(
    name: str,
    config: RunConfig,
    where: ClusterConfig,
    *,
    show: Show,
    listen: Listen | None = None,
) -> dict[str, Any]:
    """Train a run to its end and return its summary (`summary.json` of the run's folder).

    The same call again goes on where a killed one stopped, and returns at once when all is done.
    `listen` hears the run's reports (see `launch`).
    Raises ValueError, before any training, for whatever cannot be trained.
    """
    where = where.resolved()
    job = Job(name=name, config=config, where=where)
    refuse_other(job)
    if job.folder.exists(SUMMARY):
        summary: dict[str, Any] = job.folder.read_json(SUMMARY)
        return summary
    inputs = open_inputs(config, where, show=show)
    with connected(where) if where.num_workers else nullcontext():
        starts = {name: start_of(name, config, where, show=show) for name in config.starts}
        job = replace(job, starts=starts)
        # Only now: a refused config must not keep its corrected form out of the folder.
        job.folder.write_json(CONFIG, described(job.config))
        return train(job, inputs, show=show, listen=listen)


def described(config: RunConfig) -> dict[str, Any]:
    """Return a config as the run's folder has it: its class and every value."""
    return {"kind": type(config).__name__, **flatten(config)}


def refuse_other(job: Job) -> None:
    """Raise ValueError when a run with another config lives in the run's folder."""
    if not job.folder.exists(CONFIG):
        return
    changed = differences(described(job.config), job.folder.read_json(CONFIG))
    if changed:
        raise ValueError(
            f"{job.folder.uri} holds a run with another config ({'; '.join(changed)}); give "
            "--name for a new run, or the old values to go on with that one"
        )


def start_of(name: str, config: RunConfig, where: ClusterConfig, *, show: Show) -> str:
    """Return the checkpoint that a start of the run means, after training the run it names."""
    start = config.starts[name]
    named = RUNS.get(start)
    if named is not None:
        run(start, named, where, show=show)
        path = (Folder(where.storage) / start).uri
    else:
        path = Folder(start).path
    try:
        backbone_weights(
            path, config.backbone, option=name
        )  # refuses another backbone now rather than later
    except NoCheckpoint as error:
        option = name.replace("_", "-")
        near = difflib.get_close_matches(start, RUNS, n=1)
        hint = f"did you mean --{option} {near[0]}?" if near else "give a run or a checkpoint"
        raise ValueError(f"{error}; {hint}") from None
    return path


def train(job: Job, inputs: Inputs, *, show: Show, listen: Listen | None = None) -> dict[str, Any]:
    """Train a checked job from where it stands, and conclude it."""
    tracker = tracking.start(
        uri=tracking_uri(job.where),
        experiment=job.where.experiment,
        run_key=f"{job.folder.path}#{config_hash(job.config)}",
        name=job.name,
        parent=job.where.parent_run,
        params=flatten(job.config),
        tags={
            "reid.config_hash": config_hash(job.config),
            "reid.method": method_of(job.config),
            "reid.folder": job.folder.path,
            **{f"reid.{key}": value for key, value in inputs.manifest.items()},
        },
    )
    started = time.time() - spent(job.folder)
    try:
        if not is_trained(job):
            launch(job, inputs=inputs, tracker=tracker, show=show, listen=listen)
        summary = conclude(job, inputs, tracker, wall_seconds=time.time() - started)
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)  # the latter: by a search
        tracker.finish("KILLED" if stopped else "FAILED")
        raise
    tracker.finish("FINISHED")
    return summary


def is_trained(job: Job) -> bool:
    """Whether the last checkpoint stands behind the last round."""
    state: RunState | None = checkpoints.latest(job.folder)
    return state is not None and state.round >= job.config.num_rounds


def spent(run: Folder) -> float:
    """Return the seconds earlier sittings of a run recorded."""
    history = run / "history"
    return sum(sum(history.read_json(name)["seconds"].values()) for name in history.names())


def tracking_uri(where: ClusterConfig) -> str:
    """Return the MLflow store: the one asked for, or sqlite in the storage folder."""
    if where.tracking_uri is not None:
        return where.tracking_uri
    folder = Folder(where.storage)
    if not folder.is_local:
        raise ValueError(
            f"runs in {where.storage} need an MLflow server; give its address with "
            "--cluster.tracking-uri"
        )
    return f"sqlite:///{folder.path}/mlflow.db"

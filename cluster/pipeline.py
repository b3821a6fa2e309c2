"""A run from its command to its summary: check, pre-train when needed, train, conclude."""

import difflib
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from cluster import checkpoints, direct
from cluster.board import Show
from cluster.card import begin, card_of
from cluster.checkpoints import NoCheckpoint
from cluster.config import ClusterConfig
from cluster.inputs import Inputs, open_inputs
from cluster.launch import connected, launch
from cluster.listening import Listen
from cluster.nodes import Sampler, everywhere, here
from cluster.outcome import conclude
from cluster.storage import Folder
from cluster.uploads import SUMMARY, TakeSamples, sending, stop
from cluster.worker import Job, check_backbone, start_weights
from reid.checkpoint import RunState
from reid.override import differences, flatten
from reid.recipes import RUNS, RunConfig

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
        check_backbone(start, named.backbone, config.backbone, option=name)
        run(start, named, replace(where, register=None), show=show)  # its network is not asked for
        path = (Folder(where.storage) / start).uri
    else:
        path = Folder(start).path
    try:
        start_weights(path, config.backbone, option=name)
    except NoCheckpoint as error:
        option = name.replace("_", "-")
        near = difflib.get_close_matches(start, RUNS, n=1)
        hint = f"did you mean --{option} {near[0]}?" if near else "give a run or a checkpoint"
        raise ValueError(f"{error}; {hint}") from None
    return path


def train(job: Job, inputs: Inputs, *, show: Show, listen: Listen | None = None) -> dict[str, Any]:
    """Train a checked job from where it stands, and conclude it."""
    card = card_of(job, inputs)
    tracker = begin(job, card, uri=tracking_uri(job.where))
    started = time.time() - spent(job.folder)
    try:
        if not is_trained(job):
            with observed(job, started=started) as take, sending(tracker, job.folder, take=take):
                launch(job, inputs=inputs, show=show, listen=listen)
        return conclude(job, inputs, tracker, card, wall_seconds=time.time() - started)
    except BaseException as error:
        stop(tracker, error)
        raise


@contextmanager
def observed(job: Job, *, started: float) -> Iterator[TakeSamples | None]:
    """Yield what samples the run's nodes, None where nothing is to be sampled."""
    if not job.where.node_metrics_s:
        yield None
        return
    with everywhere() if job.where.num_workers else nullcontext(here()) as ask:
        yield Sampler(ask, interval_s=job.where.node_metrics_s, started=started).take


def is_trained(job: Job) -> bool:
    """Whether the last checkpoint stands behind the last round, and all is scored."""
    state: RunState | None = checkpoints.latest(job.folder)
    scored = job.folder.exists(direct.FILE) or not job.config.clusters
    return scored and state is not None and state.round >= job.config.num_rounds


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

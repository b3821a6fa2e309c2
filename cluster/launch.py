"""Start a run: in this process, or on a Ray cluster as a worker group beside a clustering pool."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import ray
import ray.train
from ray.exceptions import ActorDiedError, AuthenticationError
from ray.train.torch import TorchConfig, TorchTrainer

from cluster.board import Show, watched
from cluster.config import ClusterConfig, named_values
from cluster.environment import TOKEN_MODE, TOKEN_REMEDY, keep_token_private, passed_on
from cluster.inputs import Inputs
from cluster.links import LocalLink, RayLink
from cluster.listening import Listen, Listening
from cluster.room import CountedAnew, counted
from cluster.shards import start_actors, stop_actors
from cluster.worker import Job, work

SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""set in drivers that Ray's Jobs API started"""
CLUSTERING_LIMIT_S = 24 * 3600
"""how long ranks wait for rank 0 while it clusters; when it dies the group ends at once"""
NEVER_RAN = "it was cancelled before it started running"
"""what Ray says of every actor when the cluster cannot call its driver back"""


def launch(job: Job, *, inputs: Inputs, show: Show, listen: Listen | None = None) -> None:
    """Train a job to its end, from its last checkpoint when it has one.

    `inputs` are used in this process only; workers open their own from the same cache. `listen`
    hears each report (see `cluster.listening`). Raises
    ray.train's error when the restarts are used up, ValueError when the cluster is too small.
    """
    if job.where.num_workers == 0:
        work(
            job,
            LocalLink(num_shards=job.where.num_shards, show=show, listen=listen),
            inputs=inputs,
        )
        return
    check_resources(job.where)
    actors = start_actors(
        job.num_shards,
        num_cpus=job.where.cpus_per_shard,
        num_gpus=job.where.gpus_per_shard,
        labels=named_values(job.where.pool_labels, option="pool_labels"),
        max_restarts=-1,
        timeout_s=job.where.start_timeout_s,
    )
    try:
        with (
            counted(actors, num_cpus=job.where.cpus_per_shard, num_gpus=job.where.gpus_per_shard),
            watched(show) as board,
            interruptible(),
        ):
            link = RayLink(actors=actors, board=board, timeout_s=job.where.call_timeout_s)
            _trainer(job, link, listen).fit()
    finally:
        stop_actors(actors)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C be KeyboardInterrupt again: Ray Train ends the process with exit code 0 instead.

    Its handler, which also stops the workers, is gone after the block.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Ray Train sets no handler there either
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, handler)


def submitted_to() -> str | None:
    """Return the address of the cluster whose Jobs API started this process, if one did."""
    return os.environ.get("RAY_ADDRESS") if SUBMITTED in os.environ else None


@contextmanager
def connected(where: ClusterConfig) -> Iterator[None]:
    """Be connected to the run's cluster; a cluster that this starts ends with the block.

    ValueError when there is no cluster at the address, or it does not take the token or has none.
    """
    if ray.is_initialized():
        yield
        return
    address = where.address or submitted_to()
    if address is None:
        keep_token_private()
    try:
        # "local" never joins a cluster that happens to run on this machine.
        ray.init(
            address=address or "local",
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": passed_on()},
        )
    except AuthenticationError:
        raise ValueError(f"the Ray cluster asks for its token: {TOKEN_REMEDY}") from None
    except ConnectionError as error:
        raise ValueError(f"no Ray cluster answers at {address}: {error}") from None
    try:
        yield
    except ActorDiedError as error:
        if address is None or NEVER_RAN not in str(error):
            raise
        raise ValueError(
            f"the Ray cluster at {address} starts no actor for this process: it cannot call back, "
            f"because it runs without a token (start it with {TOKEN_MODE}=token, docs/security.md, "
            f"or set {TOKEN_MODE}=disabled here too) or because this machine's ports are closed"
        ) from error
    finally:
        ray.shutdown()


def reachable_resources() -> dict[str, float]:
    """Return what the cluster has, or will have when it has grown to its largest."""
    from ray._private.state import state  # Ray Train asks here too: nothing public tells

    most = state.get_max_resources_from_cluster_config() or {}
    have: dict[str, float] = dict(ray.cluster_resources())
    return {name: max(have.get(name, 0.0), float(most.get(name, 0))) for name in {*have, *most}}


def check_resources(where: ClusterConfig) -> None:
    """Refuse, with ValueError, a run that reserves more than the cluster has and would hang."""
    have = reachable_resources()
    for name, needed, options in (
        ("CPU", where.needed_cpus, "--cluster.cpus-per-worker or --cluster.cpus-per-shard"),
        ("GPU", where.needed_gpus, "--cluster.gpus-per-shard, or --cluster.no-use-gpu"),
    ):
        if needed > have.get(name, 0.0):
            raise ValueError(
                f"the run reserves {needed:g} {name}s ({where.num_workers} workers, "
                f"{where.num_shards} clustering actors) and the Ray cluster has "
                f"{have.get(name, 0.0):g}; add nodes, or lower --cluster.num-workers, "
                f"--cluster.num-shards, {options}"
            )


def scaling(where: ClusterConfig) -> ray.train.ScalingConfig:
    """Return how many workers there are to be, and what each reserves."""
    elastic = where.max_workers is not None
    return ray.train.ScalingConfig(
        num_workers=(where.num_workers, where.max_workers) if elastic else where.num_workers,
        elastic_resize_monitor_interval_s=where.resize_every_s,
        use_gpu=where.use_gpu,
        placement_strategy=where.placement.upper(),
        label_selector=named_values(where.train_labels, option="train_labels") or None,
        resources_per_worker={
            "CPU": where.cpus_per_worker,
            **({"GPU": 1} if where.use_gpu else {}),
        },
    )


def _trainer(job: Job, link: RayLink, listen: Listen | None) -> TorchTrainer:
    where = job.where
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(where.start_timeout_s)
    os.environ["RAY_TRAIN_COLLECTIVE_TIMEOUT_S"] = str(CLUSTERING_LIMIT_S)
    return TorchTrainer(
        partial(work, job, link),  # not as train_loop_config, which the controller would unpack
        torch_config=TorchConfig(
            backend="cpu:gloo,cuda:nccl" if where.use_gpu else "gloo",
            timeout_s=int(where.call_timeout_s),
        ),
        scaling_config=scaling(where),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=job.folder.path if job.folder.is_local else job.folder.uri,
            failure_config=ray.train.FailureConfig(
                max_failures=where.max_failures, controller_failure_limit=where.max_failures
            ),
            callbacks=[CountedAnew(), *([Listening(listen)] if listen else [])],
        ),
    )

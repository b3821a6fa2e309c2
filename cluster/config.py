"""Where a run goes: workers, clustering pool, storage, tracking. What it trains is `RunConfig`."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import urlsplit

from cluster.redaction import check_no_secrets, redacted


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Resources and places. `num_workers=0` runs everything in this process, for debugging."""

    num_workers: int = 1
    """training processes (DDP); 0 trains in this process, without Ray"""
    max_workers: int | None = None
    """take up to so many workers when the cluster has room, and as few as num_workers when it has
    not; each change goes on from the last checkpoint; None: always num_workers"""
    resize_every_s: float = 60.0
    """seconds between looks for room, where max_workers is given"""
    num_shards: int = 2
    """actors that hold the features and cluster them"""
    use_gpu: bool = False
    """give every worker one GPU (nccl); otherwise CPU (gloo)"""
    gpus_per_shard: float = 0.0
    """GPUs of each clustering actor"""
    cpus_per_worker: float = 1.0
    """CPUs Ray reserves for each worker"""
    cpus_per_shard: float = 0.5
    """CPUs Ray reserves for each clustering actor; workers wait while these work"""
    placement: Literal["pack", "spread"] = "pack"
    """workers on as few nodes as hold them, for the fastest exchange, or on as many as there are,
    for processors and memory of each"""
    train_labels: tuple[str, ...] = ()
    """labels of the nodes that train, each NAME=VALUE, such as role=train; none: any node"""
    pool_labels: tuple[str, ...] = ()
    """labels of the nodes that cluster, such as role=cluster; none: any node"""
    threads_per_worker: int = 2
    """threads of each worker's CPU arithmetic; part of the result's last bits"""
    address: str | None = None
    """address of a running Ray cluster; None starts one on this machine"""
    storage: str = "runs"
    """folder of runs, local or s3://bucket/prefix; shared by all nodes"""
    data_root: str = "data"
    """folder that holds the data sets, each under its name; tables also s3://bucket/prefix"""
    loader: Literal["quickest", "torch", "dali"] = "quickest"
    """what makes the batches; `quickest` is tried out when a run begins, which then keeps to it"""
    on_undecodable: Literal["error", "skip"] = "error"
    """images that do not decode: refuse the run, or leave them out of their tables and say so"""
    cache: str | None = None
    """folder for decoded images on each node; None: `cache` beside the runs"""
    cache_gb: float | None = None
    """GB of decoded images a table may take; larger ones are decoded at each reading, those in
    object storage from local copies of as many GB"""
    tracking_uri: str | None = None
    """MLflow store; None: `mlflow.db` (sqlite) in the storage folder"""
    experiment: str = "reid"
    """MLflow experiment"""
    node_metrics_s: float = 30.0
    """seconds between samples of each node's processor, memory, disk, network and GPUs that go to
    MLflow; 0: none"""
    register: str | None = None
    """name of a registered MLflow model that the trained network becomes a version of; None: none
    """
    parent_run: str | None = None
    """id of the MLflow run that this one is shown under; a search gives its own"""
    save_every_steps: int | None = None
    """also save inside rounds, every so many steps; a round's end is always saved"""
    max_failures: int = 3
    """restarts of the worker group before the run gives up"""
    start_timeout_s: float = 300.0
    """seconds to wait for workers, and for clustering actors, to start"""
    call_timeout_s: float = 1800.0
    """seconds before a clustering call or a collective counts as stalled"""

    def __post_init__(self) -> None:
        """Refuse values that cannot run."""
        if self.num_workers < 0:
            raise ValueError(f"num_workers is {self.num_workers}; give 0 (this process) or more")
        if self.max_workers is not None and not 1 <= self.num_workers <= self.max_workers:
            raise ValueError(
                f"max_workers is {self.max_workers} and num_workers {self.num_workers}; give 1 or "
                "more of the latter and at least as many of the former"
            )
        if self.resize_every_s <= 0:
            raise ValueError(f"resize_every_s is {self.resize_every_s}; it must be above 0")
        if self.num_shards < 1:
            raise ValueError(f"num_shards is {self.num_shards}; it must be at least 1")
        if self.threads_per_worker < 1:
            raise ValueError(f"threads_per_worker is {self.threads_per_worker}; give 1 or more")
        named_values(self.train_labels, option="train_labels")
        named_values(self.pool_labels, option="pool_labels")
        for option in ("storage", "data_root", "cache"):
            check_no_secrets(getattr(self, option) or "", what=option)
        if self.cache_gb is not None and self.cache_gb < 0:
            raise ValueError(f"cache_gb is {self.cache_gb}; give 0 or more")
        if self.node_metrics_s < 0:
            raise ValueError(f"node_metrics_s is {self.node_metrics_s}; give 0 (none) or more")
        if self.tracking_uri is not None and has_password(self.tracking_uri):
            raise ValueError(
                "tracking_uri holds a password, which would be written beside the run; leave it "
                "out and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (a data base "
                "reads PGPASSWORD or PGPASSFILE)"
            )
        if self.save_every_steps is not None and self.save_every_steps < 1:
            raise ValueError(f"save_every_steps is {self.save_every_steps}; give 1 or more")

    def resolved(self) -> "ClusterConfig":
        """Return the config with absolute local paths: Ray's workers run elsewhere."""
        return replace(
            self,
            storage=_absolute(self.storage),
            data_root=_absolute(self.data_root),
            cache=None if self.cache is None else _absolute(self.cache),
        )

    @property
    def world_sizes(self) -> range:
        """How many workers there may be."""
        return range(self.num_workers, (self.max_workers or self.num_workers) + 1)

    @property
    def needed_cpus(self) -> float:
        """CPUs a run reserves, with the fewest workers it may have."""
        return self.num_workers * self.cpus_per_worker + self.num_shards * self.cpus_per_shard

    @property
    def needed_gpus(self) -> float:
        """GPUs a run reserves, with the fewest workers it may have."""
        return self.num_workers * int(self.use_gpu) + self.num_shards * self.gpus_per_shard


def has_password(uri: str) -> bool:
    """Whether an address carries a password, or a token in its query."""
    parts = urlsplit(uri)
    query = f"?{parts.query}"
    return parts.password is not None or redacted(query) != query


def named_values(values: Sequence[str], *, option: str) -> dict[str, str]:
    """Return {name: value} of NAME=VALUE; ValueError for anything else."""
    for value in values:
        if not re.match(r"[^=]+=", value):
            raise ValueError(f"{option} is {value!r}; give NAME=VALUE")
    return dict(value.split("=", 1) for value in values)


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(path)

"""How busy each machine of a run is: processor, memory, disk, network, GPUs.

One process a node answers the driver's question every so many seconds. Names are those of MLflow's
own system metrics, so that its page shows them: `system/NODE/cpu_utilization_percentage`.
"""

import csv
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

if TYPE_CHECKING:  # a node's process imports this file, and need not wait for torch
    from cluster.tracking import Sample

ANSWER_S = 5.0
"""seconds a node may take to answer before it is left out"""
QUERY = "utilization.gpu,memory.used,memory.total,power.draw"
Ask = Callable[[], Mapping[str, Mapping[str, float]]]
"""Returns {node: {name: value}}."""


class Probe:
    """What one node is asked."""

    def __init__(self) -> None:
        psutil.cpu_percent()  # the first call has nothing to compare with
        self._network = psutil.net_io_counters()

    def sample(self) -> dict[str, float]:
        """Return the node's figures: percentages, megabytes (10^6), watts."""
        memory, disk = psutil.virtual_memory(), psutil.disk_usage("/")
        network = psutil.net_io_counters()
        return {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / 1e6,
            "system_memory_usage_percentage": memory.percent,
            "disk_usage_percentage": disk.percent,
            "disk_available_megabytes": disk.free / 1e6,
            "network_receive_megabytes": (network.bytes_recv - self._network.bytes_recv) / 1e6,
            "network_transmit_megabytes": (network.bytes_sent - self._network.bytes_sent) / 1e6,
            **gpus(),
        }


def gpus() -> dict[str, float]:
    """Return the figures of the node's NVIDIA GPUs, none where there is no driver."""
    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    try:
        asked = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=ANSWER_S
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return parse_gpus(asked.stdout)


def parse_gpus(text: str) -> dict[str, float]:
    """Return the figures in nvidia-smi's answer to `QUERY`, less what a GPU does not know."""
    found: dict[str, float] = {}
    for number, row in enumerate(csv.reader(text.splitlines(), skipinitialspace=True)):
        values = [float(x) if x.replace(".", "", 1).isdigit() else None for x in row]
        busy, used, total, watts = values
        figures = {
            "utilization_percentage": busy,
            "memory_usage_megabytes": None if used is None else used * 1.048576,
            "memory_usage_percentage": 100 * used / total if used is not None and total else None,
            "power_usage_watts": watts,
        }
        found |= {f"gpu_{number}_{k}": v for k, v in figures.items() if v is not None}
    return found


class Sampler:
    """Asks the nodes every so many seconds; `take` returns what came since it was last called."""

    def __init__(self, ask: Ask, *, interval_s: float, started: float) -> None:
        self._ask, self._interval_s, self._started = ask, interval_s, started
        self._next = time.monotonic() + interval_s

    def take(self) -> "list[Sample]":
        """Return new samples; their steps are seconds since the run began."""
        if time.monotonic() < self._next:
            return []
        self._next = time.monotonic() + self._interval_s
        now = time.time()
        return [
            (f"system/{node}/{name}", value, int(now * 1000), int(now - self._started))
            for node, figures in self._ask().items()
            for name, value in figures.items()
        ]


def here() -> Ask:
    """Return the question to this machine alone."""
    probe, name = Probe(), socket.gethostname()
    return lambda: {name: probe.sample()}


@contextmanager
def everywhere() -> Iterator[Ask]:
    """Yield the question to all nodes of the cluster, also those that come later."""
    probes: dict[str, Any] = {}

    def ask() -> dict[str, dict[str, float]]:
        names = node_names(ray.nodes())
        for node in probes.keys() - names.keys():
            del probes[node]
        for node in names.keys() - probes.keys():
            probes[node] = (
                ray.remote(Probe)
                .options(
                    num_cpus=0,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
                )
                .remote()
            )
        asked = {node: probe.sample.remote() for node, probe in probes.items()}
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=ANSWER_S)
        found = {}
        for node, answer in asked.items():
            try:
                found[names[node]] = ray.get(answer, timeout=0)
            except ray.exceptions.GetTimeoutError:
                continue  # a node that is busy: it is asked again
            except ray.exceptions.RayError:
                del probes[node]  # its process is gone: if the node is not, there will be another
        return found

    try:
        yield ask
    finally:
        for probe in probes.values():
            ray.kill(probe)


def node_names(nodes: list[dict[str, Any]]) -> dict[str, str]:
    """Return {node id: name for people} of the live nodes: the host's, with the id where shared."""
    alive = {node["NodeID"]: node["NodeManagerHostname"] for node in nodes if node["Alive"]}
    hosts = list(alive.values())
    return {
        node: host if hosts.count(host) == 1 else f"{host}-{node[:6]}"
        for node, host in alive.items()
    }

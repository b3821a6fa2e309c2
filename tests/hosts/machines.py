"""What runs on the made hosts: Ray as the launcher starts it, object storage, an MLflow server."""

import json
import os
import re
import secrets
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.hosts.network import PATIENCE, Host, Network, wait_for

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
S3_PORT, MLFLOW_PORT, RAY_PORT = 9000, 5000, 6379
TRIES = 4
"""to start Ray: on a busy machine its own half minute may be too short"""
CPUS = 3
"""as reserved: all hosts share the cores of this machine"""


class Service:
    """A server on a host, which can go away and come back with what it keeps on disk."""

    def __init__(
        self,
        host: Host,
        command: list[str],
        *,
        environment: Mapping[str, str],
        port: int,
        name: str,
    ) -> None:
        """Start it."""
        self.host, self.command, self.port = host, command, port
        self.environment, self.name = environment, name
        self.start()

    def start(self) -> None:
        """Start it."""
        with open(self.host.folder / f"{self.name}.log", "a", encoding="utf-8") as log:
            self.process = self.host.start(*self.command, environment=self.environment, log=log)

    def wait(self) -> None:
        """Wait until it answers."""
        wait_for(f"{self.name} answers", self._answers, seconds=300)

    def kill(self) -> None:
        """Kill it and all it started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended; look at {self.host.folder}/{self.name}.log")
        probe = f"import socket; socket.create_connection(('{self.host.address}', {self.port}), 2)"
        try:
            self.host.run(sys.executable, "-c", probe)
        except RuntimeError:
            return False
        return True


class Machines:
    """Three hosts with Ray, and the servers of the first."""

    def __init__(self, folder: Path, *, disk_mb: int) -> None:
        """Boot and start everything."""
        self.folder = folder
        self.network = Network(folder, disk_mb=disk_mb)
        self.head, *self.workers = self.network.hosts.values()
        try:
            (folder / "token").write_text(secrets.token_hex(32))
            (folder / "token").chmod(0o600)
            (folder / "objects" / "bucket").mkdir(parents=True)
            self.s3 = self._serve_objects()
            for host in self.network.hosts.values():  # one by one: Ray gives a node 30 s to appear
                self.start_ray(host)
            wait_for("three hosts in the cluster", lambda: len(self.nodes()) == 3, seconds=120)
            self.mlflow = self._serve_mlflow()
            self.s3.wait()
            self.run("curl", "-sS", "-X", "PUT", f"{self.objects_url}/bucket")
            self.mlflow.wait()
        except BaseException:
            self.end()
            raise

    def environment(self, host: Host) -> dict[str, str]:
        """Return the environment of everything on a host."""
        kept = {
            key: os.environ[key] for key in ("LANG", "PYTHONDONTWRITEBYTECODE") if key in os.environ
        }
        return {
            **kept,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(host.folder / "home"),
            "PYTHONPATH": str(REPOSITORY),
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "token"),
            "TMPDIR": str(host.folder / "tmp"),
            "RAY_TMPDIR": "/tmp",  # or it would be TMPDIR
            "AWS_ENDPOINT_URL": self.objects_url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "1",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # processes that nothing here uses
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_worker_niceness": "0",
            # Each host sees the memory of the whole machine, and would kill for it.
            "RAY_memory_monitor_refresh_ms": "0",
            "RAY_prestart_worker_first_driver": "0",
            "RAY_DASHBOARD_STARTUP_TIMEOUT_S": str(int(60 * PATIENCE)),
            "RAY_worker_register_timeout_seconds": str(int(60 * PATIENCE)),
            "RAY_agent_register_timeout_ms": str(int(100_000 * PATIENCE)),
            "OMP_WAIT_POLICY": "PASSIVE",
        }

    def run(self, *command: str, on: Host | None = None, timeout_s: float = 300) -> str:
        """Run a command on a host, the head if none is named, and return what it prints."""
        host = on or self.head
        return host.run(*command, environment=self.environment(host), timeout_s=timeout_s)

    def start_ray(self, host: Host) -> None:
        """Start Ray on a host by the commands of ray_cluster.yaml."""
        kind = "head" if host is self.head else "worker"
        given = yaml.safe_load((REPOSITORY / "ray_cluster.yaml").read_text(encoding="utf-8"))
        role = "head" if host is self.head else "train"
        environment = {
            **self.environment(host),
            # As the launcher tells a node of what is there; it is one who has no machines to start.
            "RAY_HEAD_IP": self.head.address,
            "RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": CPUS}),
            "RAY_OVERRIDE_LABELS": json.dumps({"role": role, "host": host.name}),
        }
        commands = given[f"{kind}_start_ray_commands"]
        lines = [re.sub(r"--autoscaling-config=\S+", "", command) for command in commands]
        for left in reversed(range(TRIES)):
            try:
                for line in lines:
                    host.run("sh", "-c", line, environment=environment, timeout_s=300)
                return
            except RuntimeError:
                if not left:
                    raise

    def nodes(self) -> list[dict[str, Any]]:
        """Return the hosts that are part of the cluster."""
        return [node for node in self.state("nodes") if node["state"] == "ALIVE"]

    def state(self, what: str) -> list[dict[str, Any]]:
        """Return what Ray's state API lists of `nodes`, `actors`, `placement-groups`, `jobs`."""
        listed = self.run("ray", "list", what, "--format=json", "--limit=1000", "--detail")
        found: list[dict[str, Any]] = json.loads(listed)
        return found

    def has(self, host: Host, title: str) -> bool:
        """Whether a process runs on a host whose title or command line has a text."""
        return bool(self.processes(host, title))

    def processes(self, host: Host, title: str) -> list[int]:
        """Return the ids, on that host, of the processes with a text in title or command line."""
        try:
            found = host.run("pgrep", "--full", title)
        except RuntimeError:  # none
            return []
        return [int(line) for line in found.split()]

    def _serve_objects(self) -> Service:
        server = str(REPOSITORY / "tests" / "s3_server.py")
        command = [sys.executable, server, str(S3_PORT), str(self.folder / "objects")]
        return Service(
            self.head, [*command, self.head.address],
            environment=self.environment(self.head), port=S3_PORT, name="s3",
        )  # fmt: skip

    def _serve_mlflow(self) -> Service:
        command = [
            str(BIN / "mlflow"), "server", f"--host={self.head.address}", f"--port={MLFLOW_PORT}",
            f"--backend-store-uri=sqlite:///{self.folder}/mlflow.db",
            f"--artifacts-destination={self.folder}/artifacts", "--workers=1",
            f"--allowed-hosts=head:{MLFLOW_PORT}",
        ]  # fmt: skip
        return Service(
            self.head, command,
            environment=self.environment(self.head), port=MLFLOW_PORT, name="mlflow",
        )  # fmt: skip

    @property
    def objects_url(self) -> str:
        """The S3 server's address."""
        return f"http://{self.head.name}:{S3_PORT}"

    @property
    def tracking_uri(self) -> str:
        """The MLflow server's address."""
        return f"http://{self.head.name}:{MLFLOW_PORT}"

    def end(self) -> None:
        """Kill everything."""
        self.network.end()

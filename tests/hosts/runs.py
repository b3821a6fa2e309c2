"""Runs on the made hosts: submitted, watched by what they leave in storage, compared."""

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import torch

from reid.checkpoint import RunState, from_bytes
from tests.hosts.machines import Machines
from tests.hosts.network import wait_for

NUM_ROUNDS, STEPS = 6, 4
TINY = {
    "height": 32,
    "width": 16,
    "last-stride": 1,
    "num-identities": 4,
    "num-instances": 4,
    "steps-per-round": STEPS,
    "eval-every-rounds": 2,
    "extract-batch": 16,
}
ROUND_S = 240.0
"""the longest a round may take, with nothing in its way: the hosts share two cores, with others"""
OWN = {"_AutoscalingCoordinatorActor"}
"""actors that Ray itself keeps between runs"""


def say(line: str) -> None:
    """Tell who watches by -s, or reads a failure's output, what happens when."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run ended with."""

    adapted: Mapping[str, float]
    scores: list[float | None]
    """mAP of each round"""
    labels: dict[str, str]
    """SHA-256 of each file of labels"""
    networks: Mapping[str, torch.Tensor]


class Run:
    """A run by its name, in object storage or on the small disk that the hosts share."""

    def __init__(self, machines: Machines, name: str, *, on_disk: bool = False) -> None:
        self.machines, self.name, self.on_disk = machines, name, on_disk
        disk = machines.network.switch.disk
        self.storage = str(disk) if on_disk else "s3://bucket/runs"
        self._attempts = 0

    def train(self, run: str, *options: str, workers: int) -> list[str]:
        """Return the words of the command that trains it."""
        config = [f"--{key}={value}" for key, value in TINY.items()]
        place = {
            "storage": self.storage,
            "data-root": self.machines.folder / "data",
            "threads-per-worker": 1,
            "tracking-uri": self.machines.tracking_uri,
            "loader": "torch",
            "node-metrics-s": 0,
            "num-workers": workers,
            # No host holds two shards, and each has room for a shard beside both workers: wherever
            # these start again, a lost shard finds its place.
            "num-shards": 3,
            "cpus-per-shard": 1.6,
            "cpus-per-worker": 0.5,
            "placement": "spread",
        }
        cluster = [f"--cluster.{key}={value}" for key, value in place.items()]
        return ["train", run, f"--name={self.name}", *config, *cluster, *options]

    def submit(self, *options: str) -> None:
        """Submit it, again where it was submitted before."""
        self._attempts += 1
        words = self.train(
            "core_reid_v2-demo", f"--num-rounds={NUM_ROUNDS}", "--num-clusters=8", "--seed=3",
            "--initial=s3://bucket/runs/source", *options, workers=2,
        )  # fmt: skip
        self.machines.run(
            "python", "-m", "jobs.submit", "--address=http://127.0.0.1:8265", "--no-follow",
            f"--id={self.name}", f"--attempt={self._attempts}", "--", *words, timeout_s=600,
        )  # fmt: skip
        say(f"{self.name}: submitted, attempt {self._attempts}")
        wait_for(f"driver of {self.name}", self.drivers, seconds=ROUND_S)

    def drivers(self) -> list[int]:
        """Return the processes of its driver, on the head."""
        return self.machines.processes(
            self.machines.head, f"^[^ ]*python -m jobs.train.*--name={self.name} "
        )

    def files(self) -> dict[str, Path]:
        """Return where this machine sees each file of the run, by its name in the run's folder."""
        if self.on_disk:
            switch = self.machines.network.switch
            folder = Path(f"/proc/{switch.namespaces.pid}/root{switch.disk}/{self.name}")
            found = [path for path in folder.rglob("*") if path.is_file()]
            return {str(path.relative_to(folder)): path for path in sorted(found)}
        folder = self.machines.folder / "objects" / "bucket"
        prefix = f"runs/{self.name}/"
        keys = {unquote(name): name for name in sorted(os.listdir(folder))}
        return {
            key.removeprefix(prefix): folder / name
            for key, name in keys.items()
            if key.startswith(prefix) and not key.endswith("/")
        }

    def json(self, name: str) -> Any:
        """Return the value in one of its files."""
        return json.loads(self.files()[name].read_bytes())

    def num_reports(self) -> int:
        """Return how many rounds it has reported."""
        return sum(name.startswith("history/") for name in self.files())

    def reach(self, num_reports: int, *, seconds: float = ROUND_S) -> None:
        """Wait until it has reported so many rounds; RuntimeError when its driver ends before."""

        def reached() -> bool:
            if self.num_reports() >= num_reports:
                return True
            if not self.drivers() and self.num_reports() < num_reports:
                raise RuntimeError(
                    f"{self.name} ended after {self.num_reports()} rounds: {self.log()}"
                )
            return False

        wait_for(f"{num_reports} rounds of {self.name}", reached, seconds=seconds)
        say(f"{self.name}: {self.num_reports()} rounds reported")

    def ended(self, *, seconds: float = ROUND_S) -> None:
        """Wait until its driver is gone."""
        wait_for(f"{self.name} ends", lambda: not self.drivers(), seconds=seconds)
        say(f"{self.name}: ended after {self.num_reports()} rounds")

    def log(self) -> str:
        """Return the end of what its driver printed."""
        logs = self.machines.head.folder / "ray" / "session_latest" / "logs"
        # The link holds the host's own path, so it is followed by name here.
        session = os.path.basename(os.readlink(logs.parent))
        folder = logs.parent.with_name(session) / "logs"
        printed = sorted(folder.glob(f"job-driver-{self.name}*.log"), key=os.path.getmtime)
        return printed[-1].read_text(errors="replace")[-6000:] if printed else ""

    def outcome(self) -> Outcome:
        """Return what it ended with; AssertionError where it is not whole."""
        files = self.files()
        assert "summary.json" in files, f"{self.name} has no summary: {self.log()}"
        summary = self.json("summary.json")
        states = [name for name in files if re.match(r"checkpoints/round=", name)]
        assert len(states) == 2, states
        state: RunState = from_bytes(files[states[-1]].read_bytes(), name=states[-1])
        assert state.round == NUM_ROUNDS
        return Outcome(
            adapted=summary["adapted"],
            scores=[row["mAP"] for row in summary["rounds"]],
            labels=self.manifests(),
            networks=state.networks,
        )

    def manifests(self) -> dict[str, str]:
        """Return the hashes in all manifests; AssertionError where one names what is not there."""
        files, found = self.files(), {}
        for round in range(NUM_ROUNDS):
            folder = f"labels/round={round:04d}"
            for name, digest in self.json(f"{folder}/manifest.json")["sha256"].items():
                data = files[f"{folder}/{name}"].read_bytes()
                assert hashlib.sha256(data).hexdigest() == digest, f"{folder}/{name} is damaged"
                found[f"{folder}/{name}"] = digest
        return found

    def assert_equals(self, other: Outcome) -> None:
        """Check that it ended with the very bits of another run."""
        mine = self.outcome()
        assert mine.adapted == other.adapted
        assert mine.scores == other.scores
        assert mine.labels == other.labels
        assert mine.networks.keys() == other.networks.keys()
        for name, tensor in other.networks.items():
            assert torch.equal(mine.networks[name], tensor), name

    def assert_nothing_left(self) -> None:
        """Check that it left no actor, no placement group and no part of a file."""
        left: list[Any] = []

        def nothing() -> bool:
            actors = [a for a in self.machines.state("actors") if a["state"] != "DEAD"]
            groups = [g for g in self.machines.state("placement-groups") if g["state"] != "REMOVED"]
            left[:] = [a["class_name"] for a in actors if a["class_name"] not in OWN] + groups
            return not left

        try:
            wait_for("nothing left", nothing, seconds=180)
        except TimeoutError:
            raise AssertionError(f"{self.name} left {left}") from None
        parts = [name for name in self.files() if name.endswith(".tmp") or ".part" in name]
        assert not parts

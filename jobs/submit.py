"""Submit any of these commands to a running Ray cluster, and follow it.

    python -m jobs.submit [options] -- train core_reid_v2-demo --num-rounds 3 \\
        --cluster.storage /shared/runs --cluster.data-root /shared/data
    python -m jobs.submit --list | --status ID | --stop ID | --attach ID

What stands behind `--` is a command of this folder with its options, checked here before anything
is sent. The same line again finds the job it submitted: it follows the running one, and tells how a
finished one ended; `--attempt 2` submits it once more, to go on from its last checkpoint. Ctrl-C
ends the following, not the job. The exit code is the job's; its output goes to standard error, and
what became of it, as JSON, to standard output.

The cluster's address is its head's dashboard, by --address or in RAY_API_SERVER_ADDRESS; the token
comes from ~/.ray/auth_token, RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN.
"""

import dataclasses
import datetime
import hashlib
import importlib
import json
import os
import pkgutil
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.table import Table

import jobs
from cluster.config import named_values
from cluster.submission import (
    Client,
    JobState,
    Submission,
    attempt_id,
    exit_code,
    next_attempt,
)
from jobs.console import console, exit_codes
from reid.override import config_hash, flatten

NOT_COMMANDS = ("console", "runs", "search_display", "submit", "tables", "worlds")
PROJECT = Path(__file__).parents[1]
SHARED_PATHS = ("storage", "data_root", "root", "checkpoint", "out", "pack", "json", "figure")
"""options of commands that name what must be reached from every node"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How to submit, or what to do with a job that was submitted."""

    address: str | None = None
    """the head's dashboard, http://HOST:8265; None: RAY_API_SERVER_ADDRESS or RAY_ADDRESS"""
    id: str | None = None
    """submission id; None: made of the job's words and its config"""
    attempt: int = 1
    """2 or more submits a job once more that ended; it goes on from its last checkpoint"""
    follow: bool = True
    """stay until the job ends, showing its output"""
    cpus: float = 0.0
    """CPUs reserved for the driver; its workers and actors ask for their own"""
    gpus: float = 0.0
    """GPUs reserved for the driver"""
    resources: tuple[str, ...] = ()
    """other resources reserved for the driver, each NAME=AMOUNT"""
    labels: tuple[str, ...] = ()
    """labels of the node the driver runs on, each NAME=VALUE, as ray.io/market-type=on-demand; the
    run ends with that node. Without labels and resources it is the head"""
    env: tuple[str, ...] = ()
    """environment variables of the job, each NAME=VALUE; no secrets, for Ray shows them"""
    metadata: tuple[str, ...] = ()
    """notes kept with the job, each NAME=VALUE"""
    working_dir: str | None = str(PROJECT)
    """folder with the code to run, sent without runs, data and caches; None: the code the nodes
    have installed"""
    python: str = "python"
    """the nodes' interpreter that has the project's packages"""
    list: bool = False
    """show the jobs of the cluster"""
    status: str | None = None
    """show what became of the job with this submission id"""
    stop: str | None = None
    """end the job with this submission id"""
    attach: str | None = None
    """follow the job with this submission id"""


def commands() -> list[str]:
    """Return the commands that can be submitted."""
    modules = pkgutil.iter_modules(jobs.__path__)
    return [m.name for m in modules if not m.ispkg and m.name not in NOT_COMMANDS]


def checked(words: Sequence[str]) -> Any:
    """Return the options of a job's words as its command reads them.

    A wrong option ends with the command's own message and exit code 2; ValueError for an unknown
    command and for paths that mean another place on another machine.
    """
    if not words or words[0] not in commands():
        named = f"'{words[0]}'" if words else "nothing"
        raise ValueError(
            f"behind -- stands {named}; give a command and its options: {', '.join(commands())}"
        )
    module = importlib.import_module(f"jobs.{words[0]}")
    if hasattr(module, "parse"):
        options = module.parse(words[1:])
    else:
        options = tyro.cli(module.Options, args=list(words[1:]), prog=f"jobs.{words[0]}")
    for path, value in flatten(options).items():
        if path.split(".")[-1] not in SHARED_PATHS or not isinstance(value, str):
            continue
        if "://" not in value and not os.path.isabs(value):
            option = path.replace("_", "-")
            raise ValueError(
                f"--{option} is {value}, which on the cluster would lie in the job's temporary "
                f"folder; give a folder that all its nodes share (--{option} /shared/{value}) or "
                f"s3://bucket/{value}"
            )
    return options


def stem(words: Sequence[str], options: Any) -> str:
    """Return the submission id of a job's first attempt: its name, and a hash of all it asks."""
    name = getattr(options, "name", words[0])
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", name if isinstance(name, str) else words[0])
    asked = json.dumps([list(words), digest(options)])
    return f"{name}-{hashlib.sha256(asked.encode()).hexdigest()[:10]}"


def digest(options: Any) -> str:
    """Return the hash of what a job trains, or of its options where it trains nothing."""
    return config_hash(getattr(options, "config", options))


def amounts(values: Sequence[str]) -> dict[str, float]:
    """Return {resource: amount} of NAME=AMOUNT; ValueError for anything else."""
    found = named_values(values, option="--resources")
    for name, value in found.items():
        if not re.fullmatch(r"\d+(\.\d+)?", value):
            raise ValueError(f"--resources {name}={value}: give an amount of 0 or more")
    return {name: float(value) for name, value in found.items()}


def request(options: Options, words: Sequence[str]) -> Submission:
    """Return the submission that a command line asks for; ValueError for what cannot be run."""
    job = checked(words)
    if options.attempt < 1:
        raise ValueError(f"--attempt is {options.attempt}; give 1 or more")
    folder = options.working_dir
    if folder is not None and not (Path(folder) / "jobs" / f"{words[0]}.py").is_file():
        raise ValueError(
            f"--working-dir {folder} has no jobs/{words[0]}.py; give the project's folder, or None "
            "to run the code that the nodes have installed"
        )
    return Submission(
        id=attempt_id(options.id or stem(words, job), options.attempt),
        entrypoint=shlex.join([options.python, "-m", f"jobs.{words[0]}", *words[1:]]),
        working_dir=folder,
        env_vars=named_values(options.env, option="--env"),
        num_cpus=options.cpus,
        num_gpus=options.gpus,
        resources=amounts(options.resources),
        labels=named_values(options.labels, option="--labels"),
        metadata={
            "command": words[0],
            "config_hash": digest(job),
            **named_values(options.metadata, option="--metadata"),
        },
    )


def say(line: str) -> None:
    """Print a line as it is."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def pass_on(text: str) -> None:
    """Print a job's output."""
    sys.stderr.write(text)
    sys.stderr.flush()


def submit(client: Client, options: Options, words: Sequence[str]) -> int:
    """Submit a job, or find the one that was; return the exit code."""
    job = request(options, words)
    if client.submit(job) == "new":
        say(f"submitted {job.id} to {client.address}")
    else:
        state = client.state(job.id)
        if state.is_over:
            base = options.id or stem(words, checked(words))
            again = next_attempt(client.jobs(), base)
            say(
                f"{job.id} was submitted before and has {state.status}; --attempt {again} submits "
                "it once more, to go on from its last checkpoint"
            )
            return conclude(state)
        say(f"{job.id} was submitted before and is {state.status}; nothing new was submitted")
    return follow(client, job.id) if options.follow else told(client.state(job.id))


def follow(client: Client, job_id: str) -> int:
    """Show a job's output until it ends; return its exit code."""
    at = f"python -m jobs.submit --address {client.address}"
    again = (
        f"{job_id} runs on; follow it with `{at} --attach {job_id}`, "
        f"end it with `{at} --stop {job_id}`"
    )
    with exit_codes(again=again):
        return conclude(client.follow(job_id, pass_on))


def conclude(state: JobState) -> int:
    """Say how a job ended; return its exit code."""
    say(f"{state.id} {state.status}: {state.message}")
    told(state)
    return exit_code(state)


def told(state: JobState) -> int:
    """Print what became of a job as JSON; return 0."""
    print(json.dumps(dataclasses.asdict(state)))
    return 0


def overview(found: Sequence[JobState]) -> Table:
    """Return the jobs, one a row."""
    table = Table(title="jobs")
    for column in ("submission id", "status", "started (UTC)", "minutes", "command"):
        table.add_column(column)
    now = datetime.datetime.now(tz=datetime.UTC).timestamp()
    for job in found:
        begin = job.start_s
        started = datetime.datetime.fromtimestamp(begin or 0.0, tz=datetime.UTC)
        table.add_row(
            job.id,
            job.status,
            f"{started:%Y-%m-%d %H:%M}" if begin else "",
            f"{((job.end_s or now) - begin) / 60:.1f}" if begin else "",
            job.entrypoint,
        )
    return table


def act(options: Options, words: Sequence[str]) -> int:
    """Do what is asked for; return the exit code."""
    asked = [name for name in ("list", "status", "stop", "attach") if getattr(options, name)]
    if len(asked) + bool(words) != 1:
        given = [*(f"--{name}" for name in asked), *(["a job"] if words else [])]
        raise ValueError(
            "give one of: -- and a job, --list, --status ID, --stop ID, --attach ID; there "
            f"stands {' and '.join(given) or 'none of them'}"
        )
    if words:
        request(options, words)  # what is wrong with it is told before the cluster is looked for
    client = Client(options.address)
    if words:
        return submit(client, options, words)
    if options.list:
        found = client.jobs()
        console.print(overview(found))
        print(json.dumps([dataclasses.asdict(job) for job in found]))
        return 0
    if options.attach:
        client.state(options.attach)
        return follow(client, options.attach)
    if options.stop:
        was = client.stop(options.stop)
        say(f"{options.stop} " + ("is asked to end" if was else "had ended before"))
        return told(client.state(options.stop))
    assert options.status is not None
    return told(client.state(options.status))


def main(arguments: Sequence[str]) -> int:
    """Read the command line, act, return the exit code."""
    own = list(arguments)
    words: list[str] = []
    if "--" in own:
        where = own.index("--")
        own, words = own[:where], own[where + 1 :]
    options = tyro.cli(Options, args=own, prog="jobs.submit", description=__doc__)
    with exit_codes():
        return act(options, words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

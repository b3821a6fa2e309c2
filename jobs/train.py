"""Train one run: pre-training, adaptation, or the supervised upper bound.

    python -m jobs.train RUN [options]

RUN is one of the named runs; every field of its config is an option (`--optim.lr 3e-4`), and so is
where it runs (`--cluster.num-workers 4 --cluster.use-gpu`). The same command again goes on where a
stopped run was, and returns at once when it is done. Built-in worlds are drawn when missing.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from cluster.config import ClusterConfig
from cluster.pipeline import run
from jobs.console import console, exit_codes, progress_bars
from jobs.runs import named_run
from jobs.tables import results_table
from jobs.worlds import draw_missing
from reid.recipes import RUNS, RunConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asked for."""

    name: str
    config: RunConfig
    cluster: ClusterConfig


def parse(arguments: Sequence[str]) -> Options:
    """Return the options of a command line; exits with code 2 on a wrong one, 0 after --help."""
    name = named_run(arguments, command="jobs.train", about=__doc__)
    default = RUNS[name]
    fields: list[Any] = [
        ("config", Annotated[type(default), tyro.conf.arg(name="")], default),
        ("cluster", ClusterConfig, ClusterConfig()),
        ("name", str, name),
    ]
    kind = dataclasses.make_dataclass("Run", fields, frozen=True, kw_only=True)
    kind.__doc__ = f"Options of {name}. `--name` is the run's folder in the storage."
    given: Any = tyro.cli(kind, args=list(arguments[1:]), prog=f"jobs.train {name}")
    return Options(name=given.name, config=given.config, cluster=given.cluster)


def main(arguments: Sequence[str]) -> None:
    """Train and print the summary's table; `summary.json` of the run's folder has it whole."""
    again = "the same command goes on from the last checkpoint"
    with exit_codes(again=again):
        options = parse(arguments)
        with progress_bars() as show:
            draw_missing(options.config, options.cluster, show=show)
            summary = run(options.name, options.config, options.cluster, show=show)
    console.print(results_table(summary))
    print(json.dumps(summary))


if __name__ == "__main__":
    main(sys.argv[1:])

"""Measure something and print its table; most figures of BENCHMARKS.md come from here.

    python -m jobs.benchmark methods --seeds 3 [--json FILE]
    python -m jobs.benchmark data [--json FILE]
    python -m jobs.benchmark clustering [--json FILE]
    python -m jobs.benchmark messaging [--json FILE]
    python -m jobs.benchmark scale [--json FILE]
    python -m jobs.benchmark workers [--json FILE]

`--help` after a name lists its options.
"""

import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from jobs.benchmarks import clustering, data, messaging, methods, scale, workers
from jobs.console import console, exit_codes, progress_bars

Benchmark = (
    Annotated[data.Options, tyro.conf.subcommand("data")]
    | Annotated[clustering.Options, tyro.conf.subcommand("clustering")]
    | Annotated[methods.Options, tyro.conf.subcommand("methods")]
    | Annotated[messaging.Options, tyro.conf.subcommand("messaging")]
    | Annotated[scale.Options, tyro.conf.subcommand("scale")]
    | Annotated[workers.Options, tyro.conf.subcommand("workers")]
)


def machine() -> str:
    """Return the processor and the cores in use."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def commit() -> str:
    """Return the commit the code is at, with a `+` when files differ from it; "" without git."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else "")


def parse(arguments: Sequence[str]) -> Any:
    """Return the benchmark's options; exits with code 2 on a wrong one, 0 after --help."""
    parser: Callable[..., Any] = tyro.cli
    return parser(Benchmark, args=arguments, prog="jobs.benchmark", description=__doc__)


def main(arguments: Sequence[str]) -> None:
    """Measure, print the table, write the rows."""
    options = parse(arguments)
    for file in (options.json, getattr(options, "figure", None)):
        if file is not None:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
    what = sys.modules[type(options).__module__]
    with exit_codes(again="the same command goes on"), progress_bars() as show:
        rows = what.measure(options, show=show)
    result = {
        "what": what.__name__.rpartition(".")[2],
        "machine": machine(),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "commit": commit(),
        "rows": rows,
    }
    console.print(
        f"{result['machine']}, {result['date']}, commit {result['commit']}", highlight=False
    )
    console.print(what.table_of(rows))
    if options.json is not None:
        Path(options.json).write_text(json.dumps(result, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

"""How the cost of clustering grows with rows, dimensions, clusters and shards.

    python -m jobs.benchmark scale [--json FILE] [--figure FILE] [--largest 30000]

Made features lie in a temporary file that is mapped into memory. What would take too long by what
smaller sizes took is left out, and said so. Power laws are fitted to what was measured, and
`jobs.plan` reckons with them. From the file that `--json` wrote,

    python -m jobs.benchmarks.scale FILE

prints them as jobs/planning/rates.py has them, and the tables as docs/scale.md has them.
"""

import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table

from jobs.benchmarks.features import write_features
from jobs.benchmarks.scale_figure import draw
from jobs.benchmarks.scale_fit import FACTORS, LAWS, Fit, fits, of_one_shard, power_law
from jobs.benchmarks.scale_stages import CountedPool, Run, Size, measured, row_of
from jobs.benchmarks.timing import duration
from jobs.console import Show
from jobs.planning.words import amount

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
DIMENSIONS = (256, 2048)
CLUSTERS = 300
SWEEP_ROWS, SWEEP_CLUSTERS = 100_000, (100, 1_000, 3_000, 10_000)
"""rows at which the number of clusters varies as well, for the first of DIMENSIONS"""
SHARD_ROWS, SHARDS = 30_000, (2, 3, 4)
"""rows at which there are several shards as well, likewise"""
ROWS_A_CLUSTER, MORE_ROWS_A_CLUSTER = 20, (5, 100)
"""of the hierarchy; the others where clusters vary"""
LARGEST_FILE = 2.6e9
"""bytes"""
_WARM_UP_ROWS = 1_500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The cost of clustering against rows, dimensions, clusters and shards."""

    largest: int = SIZES[-1]
    """most rows"""
    longest: float = 90.0
    """processor seconds that one stage may take, by what a smaller size took"""
    folder: str | None = None
    """where the features' file is made, up to 2.6 GB; None: the system's temporary folder"""
    figure: str | None = None
    """file to draw times against rows to, .png or .svg"""
    json: str | None = None
    """file to write the rows to"""


def measure(options: Options, *, show: Show) -> list[dict[str, Any]]:
    """Measure every table; return one row a stage and size, those left out with the reason."""
    plan = tables(options.largest)
    total = sum(len(stages) for _, stages in plan)
    rows: list[dict[str, Any]] = []

    def say(what: str) -> None:
        show("scale", len(rows), total, what)

    with tempfile.TemporaryDirectory(dir=options.folder, prefix="scale") as folder:
        file = Path(folder) / "features.npy"
        for num_features in {size.num_features for size, _ in plan}:
            size = Size(num_rows=_WARM_UP_ROWS, num_features=num_features)
            stages = _stages(_WARM_UP_ROWS, ())
            _measure_table(size, stages, file, [], longest=options.longest, say=say)
        for size, stages in plan:
            _measure_table(size, stages, file, rows, longest=options.longest, say=say)
    show("scale", total, total, "")
    if options.figure is not None:
        draw(rows, Path(options.figure))
    return rows


def tables(largest: int) -> list[tuple[Size, list[tuple[str, int]]]]:
    """Return the tables to make, smaller ones first, and for each its (stage, clusters)."""
    found = []
    for num_features in DIMENSIONS:
        for num_rows in (size for size in SIZES if size <= largest):
            sweeps = num_rows == SWEEP_ROWS and num_features == DIMENSIONS[0]
            size = Size(num_rows=num_rows, num_features=num_features)
            found.append((size, _stages(num_rows, SWEEP_CLUSTERS if sweeps else ())))
    if largest >= SHARD_ROWS:
        for num_shards in SHARDS:
            size = Size(num_rows=SHARD_ROWS, num_features=DIMENSIONS[0], num_shards=num_shards)
            found.append((size, _stages(SHARD_ROWS, ())))
    return found


def _stages(num_rows: int, more_clusters: Sequence[int]) -> list[tuple[str, int]]:
    stages = [("codes", 0)]
    for clusters in sorted({min(CLUSTERS, num_rows // ROWS_A_CLUSTER), *more_clusters}):
        stages += [("greedy", clusters), ("parallel", clusters), ("lloyd", clusters)]
    for each in (ROWS_A_CLUSTER, *(MORE_ROWS_A_CLUSTER if more_clusters else ())):
        stages.append(("hierarchy", num_rows // each))
    return stages + [(stage, 0) for stage in ("neighbors", "jaccard", "dbscan")]


def _measure_table(
    size: Size,
    stages: Sequence[tuple[str, int]],
    file: Path,
    rows: list[dict[str, Any]],
    *,
    longest: float,
    say: Callable[[str], None],
) -> None:
    """Make one table and measure its stages; add their rows."""
    every = [(stage, dataclasses.replace(size, num_clusters=k)) for stage, k in stages]
    if 4 * size.num_rows * size.num_features > LARGEST_FILE:
        reason = f"the file would exceed {amount(LARGEST_FILE, 'B')}"
        rows += [row_of(stage, here) | {"left_out": reason} for stage, here in every]
        return
    say(f"making {size.num_rows:,} x {size.num_features}")
    features = write_features(file, size.num_rows, size.num_features)
    run = Run(pool=CountedPool(features, size.num_shards))
    for stage, here in every:
        say(f"{stage}, {size.num_rows:,} x {size.num_features}")
        reason = _reason_against(stage, here, run, rows, longest)
        rows.append(
            row_of(stage, here) | {"left_out": reason} if reason else measured(stage, run, here)
        )


def _reason_against(
    stage: str, size: Size, run: Run, rows: Sequence[Mapping[str, Any]], longest: float
) -> str:
    """Return why a stage cannot be run at a size; "" where it can."""
    if stage == "lloyd" and size.num_clusters not in run.centers:
        return "no first centres"
    if stage == "dbscan" and run.distance is None:
        return "no distances"
    asked = "neighbors" if stage == "jaccard" else stage  # which it begins with
    before = [row for row in rows if row["stage"] == asked]
    if stage == "jaccard" and before and "left_out" in before[-1]:
        return str(before[-1]["left_out"])
    work = row_of(asked, size)["work"]
    known = [row for row in before if "cpu_s" in row]
    near = min(known, key=lambda row: abs(row["work"] - work), default=None)
    seconds = near["cpu_s"] * work / near["work"] if near else 0.0
    return f"would take about {duration(seconds)}" if seconds > longest else ""


def table_of(rows: Sequence[dict[str, Any]]) -> Group:
    """Return what was measured, the exponents, and the laws as jobs/planning/rates.py has them."""
    found = [
        _rich("What a stage takes", *measurements(rows)),
        _rich("What shards cost: processor time", *shards(rows)),
        _rich("Seconds grow as these powers", *exponents(rows)),
    ]
    return Group(*found, *left_out(rows), *law_lines(rows))


Lines = tuple[Sequence[str], list[list[str]]]
"""the heads of columns, and the cells of lines"""


def measurements(rows: Sequence[Mapping[str, Any]]) -> Lines:
    """Return a line a stage and size in one shard."""
    heads = ("stage", "N x d, K", "processor", "wall", "peak", "messages", "bytes")
    lines = [
        [
            stage,
            _size(row),
            duration(row["cpu_s"]),
            duration(row["wall_s"]),
            amount(row["peak_mib"] * 2**20, "B"),
            f"{row['messages']:,}",
            amount(row["bytes"], "B"),
        ]
        for stage in FACTORS
        for row in of_one_shard(rows, stage)
    ]
    return heads, lines


def shards(rows: Sequence[Mapping[str, Any]]) -> Lines:
    """Return a line a stage: seconds by the number of shards, bytes of fewest and most."""
    sharded = {(row["num_rows"], row["num_features"]) for row in rows if row["num_shards"] > 1}
    own = [
        row for row in rows if (row["num_rows"], row["num_features"]) in sharded and "cpu_s" in row
    ]
    numbers = sorted({row["num_shards"] for row in own})
    lines = []
    for stage in FACTORS:
        mine = [row for row in own if row["stage"] == stage]
        if mine:
            sizes = [amount(row["bytes"], "B") for row in (mine[0], mine[-1])]
            times = [duration(row["cpu_s"]) for row in mine]
            lines.append([stage, _size(mine[0]), *times, " to ".join(sizes)])
    return ("stage", "N x d, K", *map(str, numbers), "bytes"), lines


def left_out(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each stage and size that was not run, with the reason."""
    return [
        f"left out: {row['stage']}, {_size(row)}: {row['left_out']}"
        for row in rows
        if "left_out" in row
    ]


def _size(row: Mapping[str, Any]) -> str:
    clusters = f", {row['num_clusters']:,}" if row["num_clusters"] else ""
    return f"{row['num_rows']:,} x {row['num_features']}{clusters}"


def exponents(rows: Sequence[Mapping[str, Any]]) -> Lines:
    """Return a line a stage: exponents with standard errors, R^2, points."""
    names = ("num_rows", "num_features", "num_clusters")
    lines = [
        [
            stage,
            *(plus_minus(own, name) if name in own.exponents else "" for name in names),
            f"{own.r2:.3f}",
            str(own.num_points),
        ]
        for stage, own in fits(rows).items()
    ]
    return ("stage", "N", "d", "K", "R^2", "points"), lines


def plus_minus(own: Fit, name: str) -> str:
    """Return an exponent with its standard error, rounded from the digits of `law_lines`."""
    return f"{round(own.exponents[name], 3):.2f} ± {round(own.errors[name], 3):.2f}"


def law_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the laws as jobs/planning/rates.py has them."""
    lines = []
    for stage in LAWS:
        found = power_law(rows, stage)
        if found is not None:
            lines += [f"{stage.upper()}_CORE = PowerLaw(", f"    seconds={found.seconds:g},"]
            for name in ("rows", "features", "clusters"):
                factor = getattr(found, name)
                if factor is not None:
                    lines.append(f"    {name}={factor},")
            lines.append(")")
    return lines


def _rich(title: str, heads: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1))
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    return table


def markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    rule = ["---", *["--:"] * (len(heads) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, rule, *lines))


def main(file: str) -> None:
    """Print the lines for jobs/planning/rates.py and the tables for docs/scale.md."""
    result = json.loads(Path(file).read_text(encoding="utf-8"))
    where = f"{result['machine']}, {result['date']}, commit {result['commit']}"
    print(f'MEASURED_ON = "{where}"', *law_lines(result["rows"]), sep="\n", end="\n\n")
    print(markdown(*exponents(result["rows"])), end="\n\n")
    print(markdown(*measurements(result["rows"])), end="\n\n")
    print(markdown(*shards(result["rows"])), end="\n\n")
    print(*left_out(result["rows"]), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1])

"""Check a data set once and write its table: counts, duplicates, unreadable and odd images.

    python -m jobs.index market1501 --root data/market1501

Every file is read and decoded. The counts are printed, and as JSON on standard output; the table
has a row an image and is itself a data set (`--dataset table --root FILE`). The exit code is 1
where an image does not decode. `--pack OUT` also writes the images, in shards beside a table of
their own, to a folder or to s3://bucket/prefix: that is the data set to train on from there.
"""

import dataclasses
import json
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

import tyro
from rich.table import Table

from jobs.console import console, exit_codes, progress_bars
from reid.data.datasets import load
from reid.data.datasets.reading import CountWarning
from reid.data.datasets.table import check_suffix
from reid.data.index import (
    SplitCounts,
    build_index,
    shared_images,
    summarise,
    write_index,
)
from reid.data.pack import pack
from reid.types import Dataset

FOUND_UNREADABLE = 1
NUM_SHOWN = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to check."""

    name: tyro.conf.Positional[str]
    """name of the data set"""
    root: str
    """folder of the data set; of a table also s3://"""
    out: str | None = None
    """the table, .parquet or .csv; default: runs/index/NAME.parquet"""
    strict: bool = False
    """refuse counts other than the published ones"""
    pack: str | None = None
    """folder, local or s3://, to write the images to as well, in shards, with their table"""


def read(options: Options) -> Dataset:
    """Read the data set; counts that are not as published are shown and do no harm."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CountWarning)
        dataset = load(options.name, options.root, strict=options.strict)
    for warning in caught:
        say(f"warning: {warning.message}", style="yellow")
    return dataset


def say(line: str, *, style: str = "") -> None:
    """Print a line as it is."""
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def counts_table(counts: Mapping[str, SplitCounts], *, title: str) -> Table:
    """Return the counts, a column a split; oddities nobody has take no row."""
    table = Table(title=title)
    table.add_column("")
    for name in counts:
        table.add_column(name, justify="right")
    for field in dataclasses.fields(SplitCounts):
        if field.name != "odd":
            values = [getattr(split, field.name) for split in counts.values()]
            table.add_row(field.name.replace("_", " "), *map(str, values))
    table.add_section()
    for kind in sorted({kind for split in counts.values() for kind in split.odd}):
        table.add_row(kind, *(str(split.odd.get(kind, 0)) for split in counts.values()))
    return table


def main(options: Options) -> int:
    """Check, print, write the table; return the exit code."""
    with exit_codes(), progress_bars() as show:
        out = Path(options.out or f"runs/index/{options.name}.parquet")
        check_suffix(out)
        dataset = read(options)
        index = build_index(
            dataset, progress=lambda done, total: show("read images", done, total, "")
        )
        write_index(index, out)
        unreadable = index.unreadable()
        if options.pack is not None and not unreadable:
            pack(
                index,
                options.pack,
                progress=lambda done, total: show("pack images", done, total, ""),
            )
    counts = summarise(index)
    shared = {f"{a} and {b}": number for (a, b), number in shared_images(index).items()}
    console.print(counts_table(counts, title=f"{dataset.name} in {dataset.root}"))
    for pair, number in shared.items():
        if number:
            say(f"{number} images are the same, byte by byte, in {pair}", style="yellow")
    for path, reason in list(unreadable.items())[:NUM_SHOWN]:
        say(f"unreadable: {path} ({reason})", style="red")
    if len(unreadable) > NUM_SHOWN:
        say(f"... and {len(unreadable) - NUM_SHOWN} more unreadable images", style="red")
    say(f"table: {out}")
    if options.pack is not None:
        say(
            "nothing is packed: repair these files, or take their rows out of the table and pack it"
            if unreadable
            else f"packed: {options.pack} (--dataset table)",
            style="red" if unreadable else "",
        )
    splits = {name: dataclasses.asdict(split) for name, split in counts.items()}
    print(json.dumps({"dataset": dataset.name, "splits": splits, "shared": shared}))
    return FOUND_UNREADABLE if unreadable else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, args=sys.argv[1:], prog="jobs.index", description=__doc__)))

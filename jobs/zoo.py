"""Write docs/model_zoo.md: every named run beside the figure its paper publishes.

    python -m jobs.zoo [--results runs] [--out docs/model_zoo.md]

A run's own figure comes from the `summary.json` of a run of the same config below `--results`;
without that option, figures that stand in the old file stay where the config is still the same.
"""

import dataclasses
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import tyro

from jobs.console import exit_codes
from jobs.tables import percent
from reid.override import config_hash
from reid.recipes import METHODS, Method, RunConfig
from reid.recipes.published import Published

TITLE = """# Model zoo

Written by `python -m jobs.zoo` from the named runs in `reid/recipes/`; do not edit.

A row is a run: the command trains it, and its source run first when that is missing; built-in data
are drawn. Figures are mAP / rank-1 in percent on the target's test split. *Ours* is empty until
`--results` has entered it: seed 1, the last round, the config of this hash. What the built-in runs
end at, with spread, commit and hardware, stands in BENCHMARKS.md.

Published figures of all methods but INCLR, which does not say, are of the best round on the
target's test labels (`--selection oracle` does the same), and of the released variants, which each
recipe's docstring names; CORE-ReID's source stage also saw camera-translated images and the
source's test split.
DukeMTMC-reID was withdrawn by its authors: its runs are for those who hold it.
"""
HEADER = (
    "| source | target | backbone | command | published | where | ours | config hash |\n"
    "|---|---|---|---|---|---|---|---|\n"
)
OURS = re.compile(r"\| ([^|]*) \| `([0-9a-f]{12})` \|$", re.MULTILINE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to write, and from what."""

    out: str = "docs/model_zoo.md"
    """the document"""
    results: str | None = None
    """folder of runs whose figures are taken in"""


def document(ours: Mapping[str, str]) -> str:
    """Return the document; `ours` is {config hash: figure}."""
    return "\n".join([TITLE, *(section(name, method, ours) for name, method in METHODS.items())])


def section(name: str, method: Method, ours: Mapping[str, str]) -> str:
    """Return a method's heading and table."""
    rows = "".join(row(run, config, method, ours) for run, config in method.runs.items())
    return f"## {name}\n\n{HEADER}{rows}"


def row(name: str, config: RunConfig, method: Method, ours: Mapping[str, str]) -> str:
    """Return a run's line; what a paper does not say, and what nobody has run, stays empty."""
    figure, digest = method.published.get(name), config_hash(config)
    cells = (
        config.source,
        config.target,
        config.backbone,
        f"`python -m jobs.train {name}`",
        printed(figure) if figure else "",
        figure.where if figure else "",
        ours.get(digest, ""),
        f"`{digest}`",
    )
    return f"| {' | '.join(cells)} |\n"


def printed(figure: Published) -> str:
    """Return both scores with as many decimals as the paper has."""
    decimals = max(len(str(score).partition(".")[2]) for score in (figure.mAP, figure.rank1))
    return f"{figure.mAP:.{decimals}f} / {figure.rank1:.{decimals}f}"


def kept(text: str) -> dict[str, str]:
    """Return {config hash: our figure} of a document."""
    return {digest: ours.strip() for ours, digest in OURS.findall(text) if ours.strip()}


def measured(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield (config hash, figure) of each finished run below a folder."""
    for file in sorted(folder.glob("*/summary.json")):
        summary = json.loads(file.read_text(encoding="utf-8"))
        if "config_hash" not in summary:  # a search's
            continue
        scores = summary["adapted"] or summary["direct_transfer"]
        yield summary["config_hash"], f"{percent(scores['mAP'])} / {percent(scores['rank1'])}"


def main(options: Options) -> None:
    """Write the document."""
    with exit_codes():
        out = Path(options.out)
        ours = kept(out.read_text(encoding="utf-8")) if out.is_file() else {}
        if options.results is not None:
            ours |= measured(Path(options.results))
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(document(ours), encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Options, args=sys.argv[1:], prog="jobs.zoo", description=__doc__))

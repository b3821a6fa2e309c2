"""Results as people read them: percent, one row a stage."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

SCORES = ("mAP", "rank1", "rank5", "rank10")


def results_table(summary: Mapping[str, Any]) -> Table:
    """Return a run's direct transfer, evaluated rounds and result, in percent and seconds."""
    table = Table(title=f"{summary['run']}: {summary['source']} to {summary['target']}")
    for column in ("stage", "mAP %", "rank-1 %", "rank-5 %", "rank-10 %", "clusters", "ARI", "s"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    before, after = summary["direct_transfer"], summary["adapted"]
    table.add_row("direct transfer" if after else "test split", *scores_of(before), "", "", "")
    for row in summary["rounds"] if after else []:
        table.add_row(
            f"round {row['round'] + 1}",
            percent(row["mAP"]),
            percent(row["rank1"]),
            "",
            "",
            str(row["num_clusters"]),
            "" if row["ari"] is None else f"{row['ari']:.2f}",
            f"{sum(row['seconds'].values()):.0f}",
        )
    if after:
        table.add_section()
        total = f"{summary['wall_seconds']:.0f}"
        table.add_row("adapted", *scores_of(after), "", "", total, style="bold")
    return table


def scores_of(metrics: Mapping[str, float]) -> list[str]:
    """Return the quoted scores in percent."""
    return [percent(metrics.get(key)) for key in SCORES]


def percent(fraction: float | None) -> str:
    """Return a fraction as percent with one decimal, nothing for nothing."""
    return "" if fraction is None else f"{100 * fraction:.1f}"


def spread(fractions: Sequence[float]) -> str:
    """Return mean and, of several, standard deviation in percent; nothing for nothing."""
    if not fractions:
        return ""
    mean = percent(statistics.mean(fractions))
    return f"{mean} ± {percent(statistics.stdev(fractions))}" if len(fractions) > 1 else mean

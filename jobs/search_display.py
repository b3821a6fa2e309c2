"""A search on the screen: a live table of its trials, and the tables at its end."""

import datetime
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from rich.live import Live
from rich.table import Table

from jobs.console import Show, console, progress_bars
from jobs.tables import percent

FIGURES = ("silhouette", "neighbor_agreement", "camera_mixing", "ari", "num_outliers")
STYLES = {"finished": "green", "stopped": "dim", "failed": "red", "unfit": "red"}


class SearchDisplay:
    """Shows a search while it goes: bars before the trials, then a table; lines where no terminal.

    `trials` is called from another thread than the rest.
    """

    def __init__(self, asked: Any) -> None:
        self.asked = asked
        self._stack, self._lock = ExitStack(), threading.Lock()
        self._live: Live | None = None
        self._told: dict[int, tuple[str, int]] = {}

    def __enter__(self) -> "SearchDisplay":
        """Begin with bars."""
        self._show: Show = self._stack.enter_context(progress_bars())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End whatever is live."""
        self._stack.close()

    def say(self, line: str) -> None:
        """Print a line."""
        console.print(line, markup=False, highlight=False)

    def show(self, what: str, done: int, total: int, note: str) -> None:
        """Show how far something before the trials is."""
        self._show(what, done, total, note)

    def trials(self, trials: Sequence[Any], doing: Mapping[int, tuple[str, int, int, str]]) -> None:
        """Show where the trials stand."""
        with self._lock:
            if not console.is_terminal:
                self._tell(trials)
                return
            if self._live is None:
                self._stack.close()  # the bars
                self._live = self._stack.enter_context(
                    Live(console=console, refresh_per_second=2, transient=True)
                )
            self._live.update(live_table(self.asked, trials, doing))

    def _tell(self, trials: Sequence[Any]) -> None:
        for trial in trials:
            known = (trial.state, len(trial.rounds))
            if self._told.get(trial.number) == known:
                continue
            self._told[trial.number] = known
            rounds = trial.rounds[-1]["round"] if trial.rounds else 0
            score = "" if trial.objective is None else f", objective {trial.objective:.4f}"
            now = datetime.datetime.now(tz=datetime.UTC).strftime("%H:%M:%S")
            self.say(
                f"{now} trial {trial.number} {trial.state}, round {rounds}/"
                f"{self.asked.config.num_rounds}{score}{': ' if trial.why else ''}{trial.why}"
            )


def live_table(
    asked: Any, trials: Sequence[Any], doing: Mapping[int, tuple[str, int, int, str]]
) -> Table:
    """Return the table of trials while they train."""
    table = Table(title=f"{asked.name}: {asked.num_trials} trials, objective {asked.objective}")
    paths = [parameter.path for parameter in asked.space]
    for column in ("trial", *paths, "state", "objective", "mAP %", "doing"):
        table.add_column(column, justify="left" if column in ("state", "doing") else "right")
    for trial in trials:
        what, done, total, note = doing.get(trial.number, ("", 0, 0, ""))
        running = trial.state == "running"
        table.add_row(
            str(trial.number),
            *(value_of(trial.values[path]) for path in paths),
            trial.state,
            "" if trial.objective is None else f"{trial.objective:.4f}",
            percent(trial.mAP),
            f"{what} {done}/{total} {note}" if running and what else trial.why,
            style=STYLES.get(trial.state, ""),
        )
    return table


def trials_table(summary: Mapping[str, Any]) -> Table:
    """Return the table of a finished search, best first; trials without an objective last."""
    table = Table(title=f"{summary['search']}: objective {summary['objective']}")
    rows = summary["trials"]
    paths = list(rows[0]["values"]) if rows else []
    for column in ("trial", *paths, "state", "rounds", "objective", "mAP %", "why"):
        table.add_column(column, justify="left" if column in ("state", "why") else "right")

    def order(row: Mapping[str, Any]) -> tuple[bool, float]:
        score = row["objective"]
        return row["state"] != "finished", -score if score is not None else float("inf")

    best = summary["best"] or {"number": None}
    for row in sorted(rows, key=order):
        table.add_row(
            str(row["number"]) + (" (own)" if row["number"] == 0 else ""),
            *(value_of(row["values"][path]) for path in paths),
            row["state"],
            str(row["rounds"]),
            "" if row["objective"] is None else f"{row['objective']:.4f}",
            percent(row["mAP"]),
            row["why"],
            style="bold" if row["number"] == best["number"] else STYLES.get(row["state"], ""),
        )
    return table


def clustering_table(tier: Mapping[str, Any]) -> Table:
    """Return the table of the clustering tier; the best by its score is bold."""
    table = Table(title="Clusterings of the initial model's features")
    rows = tier["rows"]
    paths = [path for path in rows[0] if path == "num_clusters" or "." in path]
    if "num_clusters" not in paths:
        paths.append("num_clusters")
    for column in (*paths, *FIGURES):
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(
            *(value_of(row[path]) for path in paths),
            *("" if name not in row else f"{row[name]:.4g}" for name in FIGURES),
            style="bold" if row == tier["best"] else "",
        )
    return table


def value_of(value: Any) -> str:
    """Return a value of a config in a few characters."""
    return f"{value:g}" if isinstance(value, float) else str(value)

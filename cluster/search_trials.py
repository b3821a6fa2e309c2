"""The trials of a search as they lie in storage: what a killed search goes on from.

Each trial is a run of its own in `SEARCH/trials/NUMBER`, where the run keeps its rounds, states and
summary, and this file `trial.json`: what was drawn for it and how it ended.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy import stats

from cluster.outcome import read_rounds
from cluster.search_space import Values
from cluster.storage import Folder
from cluster.uploads import SUMMARY
from reid.override import Scalar
from reid.types import Report

TRIALS, TRIAL = "trials", "trial.json"

Objective = Literal["silhouette", "neighbor_agreement", "camera_mixing", "stability", "oracle"]
"""What a search maximises: a figure of the clusters, or mAP on the target's labelled test split."""
State = Literal["running", "finished", "stopped", "failed", "unfit"]
ENDED: tuple[State, ...] = ("finished", "stopped", "failed", "unfit")
BASELINE = 0
"""The trial with the run's own values: never stopped early, what the others are compared with."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial: `values` of the searched fields, and what Optuna drew for them, if it did."""

    number: int
    values: Values
    drawn: Mapping[str, Scalar] | None
    state: State = "running"
    why: str = ""
    """of failed and unfit trials"""
    rounds: tuple[Mapping[str, Any], ...] = ()
    """rounds so far: `round` from 1 on, `objective`, and where known `mAP`, `rank1` and the rest"""

    @property
    def objective(self) -> float | None:
        """The last objective known."""
        known = [row["objective"] for row in self.rounds if row["objective"] is not None]
        return known[-1] if known else None

    @property
    def mAP(self) -> float | None:  # noqa: N802 (the field's name)
        """The last mAP known on the target's test split."""
        known = [row["mAP"] for row in self.rounds if row.get("mAP") is not None]
        return known[-1] if known else None


def name_of(search: str, number: int) -> str:
    """Return the name of a trial's run."""
    return f"{search}/{TRIALS}/{number:03d}"


def objective_of(report: Report, objective: Objective) -> float | None:
    """Return the objective where a report has it."""
    if objective == "oracle":
        return None if report.metrics is None else report.metrics["mAP"]
    views = list(report.health.values())
    return views[0].get(objective) if views else None


def rounds_of(run: Folder, objective: Objective) -> tuple[dict[str, Any], ...]:
    """Return the rounds that a trial's run has kept."""
    found = []
    for row in read_rounds(run):
        health: dict[str, Any] = next(iter(row["health"].values()), {})
        scores = row["metrics"] or {}
        value = scores.get("mAP") if objective == "oracle" else health.get(objective)
        found.append({"round": row["round"] + 1, "objective": value, **health, **scores})
    return tuple(found)


def write(search: Folder, trial: Trial) -> None:
    """Keep a trial."""
    kept = {
        "number": trial.number,
        "values": dict(trial.values),
        "drawn": None if trial.drawn is None else dict(trial.drawn),
        "state": trial.state,
        "why": trial.why,
    }
    (search / TRIALS / f"{trial.number:03d}").write_json(TRIAL, kept)


def read(search: Folder, number: int, objective: Objective) -> Trial:
    """Return a trial as it stands."""
    folder = search / TRIALS / f"{number:03d}"
    kept = folder.read_json(TRIAL)
    trial = Trial(**kept, rounds=rounds_of(folder, objective))
    if trial.state == "running" and folder.exists(SUMMARY):
        return replace(trial, state="finished")  # killed after its last round
    return trial


def read_all(search: Folder, objective: Objective) -> list[Trial]:
    """Return the trials of a search in order of number."""
    folder = search / TRIALS
    numbers = [int(name) for name in folder.names() if (folder / name).exists(TRIAL)]
    return [read(search, number, objective) for number in numbers]


def best_of_trials(trials: Sequence[Trial]) -> Trial | None:
    """Return the finished trial with the highest objective, the first of equals."""
    done = [trial for trial in trials if trial.state == "finished" and trial.objective is not None]
    return max(done, key=lambda trial: (trial.objective, -trial.number), default=None)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Spearman's correlation; None of fewer than three pairs, or where one side is equal."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(stats.spearmanr(first, second).statistic)

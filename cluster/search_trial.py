"""One trial of a search, in the process that Ray Tune gives it: a whole run that reports rounds."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ray import tune
from ray.train import WorkerGroupError
from ray.tune.integration.ray_train import TuneReportCallback

from cluster import pipeline
from cluster.config import ClusterConfig
from cluster.search_proposals import NUMBER, VALUES
from cluster.search_trials import Objective, name_of, objective_of, read, rounds_of, write
from cluster.storage import Folder
from cluster.tracking import NoServer
from reid.override import override_all
from reid.recipes import RunConfig
from reid.types import Report

ROUND, OBJECTIVE = "round", "objective"
"""what a trial reports: rounds trained, and how good it is"""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What all trials of a search have in common; plain values, so it travels."""

    search: str
    """name of the search: its folder in the storage"""
    config: RunConfig
    where: ClusterConfig
    objective: Objective


class Teller:
    """Tells Tune of each round once, as soon as its objective is known.

    Not of the last: a trial that has trained to its end is concluded, never stopped.
    """

    def __init__(self, assignment: Assignment, *, send: Callable[[dict[str, Any]], None]) -> None:
        self.objective = assignment.objective
        self.num_rounds = assignment.config.num_rounds
        self.send, self.told = send, 0

    def __call__(self, report: Report) -> None:
        """Tell of the round that a report is about."""
        value = objective_of(report, self.objective)
        if value is not None:
            self.tell(report.round + 1, value)

    def tell(self, round: int, value: float) -> None:
        """Tell of a round unless that was done, or it is the last."""
        if self.told < round < self.num_rounds:
            self.told = round
            self.send({ROUND: round, OBJECTIVE: value})


def train_trial(proposal: dict[str, Any], *, assignment: Assignment, board: Any) -> None:
    """Train a proposal to its end, from where an earlier process left it.

    A config or a training that fails by itself is a failed trial; other errors are raised, so that
    Tune tries again where nodes were lost.
    """
    number = proposal[NUMBER]
    name = name_of(assignment.search, number)
    where, search = assignment.where, Folder(assignment.where.storage) / assignment.search
    run = Folder(where.storage) / name
    teller = Teller(assignment, send=far_report() if where.num_workers else tune.report)
    for row in rounds_of(run, assignment.objective):
        if row["objective"] is not None:
            teller.tell(row["round"], row["objective"])

    def show(what: str, done: int, total: int, note: str) -> None:
        board.show.remote(number, what, done, total, note)

    trial = read(search, number, assignment.objective)
    try:
        config = override_all(assignment.config, proposal[VALUES])
        pipeline.run(name, config, where, show=show, listen=teller)
    except Exception as error:
        why = traceback.format_exception_only(error)[-1].strip()
        hopeless = is_hopeless(error)
        write(search, replace(trial, state="failed" if hopeless else "running", why=why))
        if hopeless:
            return
        raise
    last = rounds_of(run, assignment.objective)[-1]
    if last["objective"] is not None:
        tune.report({ROUND: assignment.config.num_rounds, OBJECTIVE: last["objective"]})


def is_hopeless(error: Exception) -> bool:
    """Whether a run failed by itself, in this process or in its workers: tried again it would too.

    A server that is away is nobody's fault, though its error is a ValueError.
    """
    failures = error.worker_failures.values() if isinstance(error, WorkerGroupError) else [error]
    own = [getattr(failure, "_base_exc", failure) for failure in failures]
    return any(
        isinstance(failure, ValueError | FloatingPointError) and not isinstance(failure, NoServer)
        for failure in own
    )


def far_report() -> Callable[[dict[str, Any]], None]:
    """Return a function that reports to this trial's Tune from another process."""
    callback = TuneReportCallback()
    return lambda row: callback.after_report(None, [row], None)

"""What a search tries next: Optuna's proposals, the trials of an earlier sitting among them."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial
from ray.tune.search import Searcher

from cluster.search_space import Parameter, Values, why_unfit
from cluster.search_trials import BASELINE, Trial
from reid.override import flatten
from reid.recipes import RunConfig

MAX_UNFIT = 100
"""proposals in a row that cannot train before the search gives up"""
NUMBER, VALUES = "number", "values"
"""what Tune hands to a trial"""

Ended = Callable[[Trial, bool], Trial]
"""Called with a trial and whether its process failed; returns how it ended."""


class Proposals(Searcher):
    """Hands out trials: those left unended, then the run's own values, then Optuna's draws.

    Optuna's study lives in memory. The trials in storage are the truth, and fill a new study when a
    killed search is started again. A draw that the config refuses is an unfit trial, at once.
    """

    def __init__(
        self,
        space: Sequence[Parameter],
        config: RunConfig,
        *,
        num_trials: int,
        num_images: int,
        seed: int,
        earlier: Sequence[Trial],
        keep: Callable[[Trial], None],
        ended: Ended,
    ) -> None:
        super().__init__()
        optuna.logging.set_verbosity(logging.WARNING)
        self.space, self.config, self.num_images = space, config, num_images
        self.keep, self.ended = keep, ended
        self.trials = {trial.number: trial for trial in earlier}
        self.num_left = num_trials - sum(trial.state != "unfit" for trial in earlier)
        self.unended = [trial for trial in earlier if trial.state == "running"]
        self.running: dict[str, tuple[int, optuna.Trial | None]] = {}
        self.distributions = {parameter.path: parameter.distribution for parameter in space}
        self.study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(
                seed=seed + len(earlier),  # a later sitting must not draw what the first one drew
                n_startup_trials=max(4, num_trials // 4),
                constant_liar=True,  # trials still running count as poor: several go at once
            ),
        )
        for trial in earlier:
            self._add(trial)

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Return number and values of the next trial, `FINISHED` when there are no more."""
        if self.unended:
            trial = self.unended.pop(0)
            asked = self._asked(trial)
        elif self.num_left > 0:
            trial, asked = self._next()
            self.num_left -= 1
            self._set(trial)
        else:
            return str(Searcher.FINISHED)
        self.running[trial_id] = (trial.number, asked)
        return {NUMBER: trial.number, VALUES: dict(trial.values)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Remember a round for those who watch."""
        number, _ = self.running[trial_id]
        trial = self.trials[number]
        self.trials[number] = replace(trial, rounds=(*trial.rounds, result))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Keep how a trial ended, and tell Optuna."""
        number, asked = self.running.pop(trial_id)
        trial = self.ended(self.trials[number], error)
        self._set(trial)
        if asked is None:
            return
        if trial.state == "finished" and trial.objective is not None:
            self.study.tell(asked, trial.objective)
            return
        for round, value in known(trial).items():
            asked.report(value, round)
        self.study.tell(asked, state=TrialState.PRUNED)

    def _next(self) -> tuple[Trial, optuna.Trial | None]:
        """Return the run's own values first, then draws until one can train."""
        if BASELINE not in self.trials:
            trial = self._baseline()
            return trial, self._asked(trial)
        why: str | None = None
        for _ in range(MAX_UNFIT):
            asked = self.study.ask(self.distributions)
            values = {p.path: p.value_of(asked.params[p.path]) for p in self.space}
            trial = Trial(number=max(self.trials) + 1, values=values, drawn=dict(asked.params))
            why = why_unfit(self.config, values, num_images=self.num_images)
            if why is None:
                return trial, asked
            self.study.tell(asked, state=TrialState.PRUNED)
            self._set(replace(trial, state="unfit", why=why))
        raise ValueError(
            f"{MAX_UNFIT} combinations in a row cannot train, the last since {why}; give a "
            "narrower --space"
        )

    def _baseline(self) -> Trial:
        values = own_values(self.config, self.space)
        try:
            drawn = {p.path: p.drawn_of(values[p.path]) for p in self.space}
        except ValueError:  # outside the space, so Optuna cannot learn from it
            return Trial(number=BASELINE, values=values, drawn=None)
        return Trial(number=BASELINE, values=values, drawn=drawn)

    def _asked(self, trial: Trial) -> optuna.Trial | None:
        """Let Optuna know that a trial runs whose draw is known."""
        if trial.drawn is None:
            return None
        self.study.enqueue_trial(dict(trial.drawn))
        return self.study.ask(self.distributions)

    def _add(self, trial: Trial) -> None:
        """Put a trial that ended in an earlier sitting into the study."""
        if trial.drawn is None or trial.state == "running":
            return
        complete = trial.state == "finished" and trial.objective is not None
        self.study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if complete else TrialState.PRUNED,
                value=trial.objective if complete else None,
                intermediate_values=known(trial),
                params=dict(trial.drawn),
                distributions=self.distributions,
            )
        )

    def _set(self, trial: Trial) -> None:
        self.trials[trial.number] = trial
        self.keep(trial)


def known(trial: Trial) -> dict[int, float]:
    """Return {round: objective} where known."""
    rows = ((row["round"], row["objective"]) for row in trial.rounds)
    return {round: value for round, value in rows if value is not None}


def own_values(config: RunConfig, space: Sequence[Parameter]) -> Values:
    """Return what a config has where the space varies it."""
    flat: Any = flatten(config)
    return {parameter.path: flat[parameter.path] for parameter in space}

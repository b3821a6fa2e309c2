"""Search over the fields of a run's config: Ray Tune, Optuna's proposals, early stopping by ASHA.

Every trial is a run like any other, in a folder of its own below the search's. What a search needs
to go on after a kill lies there too, as JSON: the same command again trains what was left unended
from its last checkpoint and proposes with all earlier results known.
"""

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from ray import tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from cluster import pipeline, tracking
from cluster.inputs import Inputs, open_inputs
from cluster.launch import connected
from cluster.search_board import Doing, watching
from cluster.search_outcome import (
    CLUSTERING,
    conclude,
    draw_tier,
    publish,
    tier_score,
    tier_summary,
)
from cluster.search_plan import (
    SETTINGS,
    Search,
    capacity,
    edges,
    refuse_other,
    reserved,
    settings,
)
from cluster.search_proposals import NUMBER, Proposals
from cluster.search_space import check, count_unfit
from cluster.search_tier import Tier, grid_of, sweep
from cluster.search_trial import OBJECTIVE, ROUND, Assignment, train_trial
from cluster.search_trials import (
    BASELINE,
    Trial,
    name_of,
    read,
    read_all,
    write,
)
from cluster.tracking import Tracker
from cluster.uploads import send_files, stop, told
from cluster.worker import Job
from reid.override import config_hash

TIER = "clustering.json"


class Watcher(Protocol):
    """What a search tells while it goes."""

    def say(self, line: str) -> None:
        """Tell something once."""
        ...

    def show(self, what: str, done: int, total: int, note: str) -> None:
        """Show how far something before the trials is."""
        ...

    def trials(self, trials: Sequence[Trial], doing: Doing) -> None:
        """Show where the trials stand."""
        ...


def search(asked: Search, *, watcher: Watcher) -> dict[str, Any]:
    """Run a search to its end; return its summary (`summary.json` of its folder).

    The same call again goes on where a killed one stopped. Raises ValueError, before any training,
    for a space that cannot train.
    """
    asked = replace(asked, where=asked.where.resolved())
    refuse_other(asked)
    inputs = open_inputs(asked.config, asked.where, show=watcher.show)
    num_images = inputs.sizes.num_images
    check(asked.space, asked.config, num_images=num_images)
    unfit, tried = count_unfit(asked.space, asked.config, num_images=num_images)
    if unfit:
        watcher.say(f"{unfit} of {tried} combinations of ends cannot train and will make no trial")
    with connected(asked.where):
        num_concurrent = capacity(asked, say=watcher.say)
        job = prepared(asked, show=watcher.show)
        asked.folder.write_json(SETTINGS, settings(asked))
        tracker = tracking.start(
            uri=pipeline.tracking_uri(asked.where),
            experiment=asked.where.experiment,
            run_key=f"{asked.folder.path}#search",
            name=asked.name,
            params=settings(asked),
            tags={"reid.kind": "search", "reid.folder": asked.folder.path},
        )
        try:
            tier = first_look(asked, job, inputs, watcher=watcher)
            trials = run_trials(
                asked, inputs, tracker, num_concurrent=num_concurrent, watcher=watcher
            )
        except BaseException as error:
            for trial in read_all(asked.folder, asked.objective):
                if trial.state == "running":
                    close(asked, tracker, trial)
            stop(tracker, error)
            raise
    return conclude(asked, trials, tier, tracker)


def prepared(asked: Search, *, show: Callable[[str, int, int, str], None]) -> Job:
    """Return the run's own job, after training the source runs that trials start from.

    All of them, wherever the space varies starts or backbone: trials must not train them at once.
    """
    where, job = asked.where, Job(name=asked.name, config=asked.config, where=asked.where)
    if not where.num_workers and where.address is None:  # the machine is still idle
        where = replace(where, threads_per_worker=len(os.sched_getaffinity(0)))
    for config in (*edges(asked), asked.config):
        starts = {name: pipeline.start_of(name, config, where, show=show) for name in config.starts}
        job = replace(job, starts=starts)
    return job


def first_look(asked: Search, job: Job, inputs: Inputs, *, watcher: Watcher) -> Tier | None:
    """Return the clustering tier where the space has a field of it, from storage when it is there.

    It is for information: how well it ranks what is then trained.
    """
    if asked.folder.exists(TIER):
        kept = asked.folder.read_json(TIER)
        if kept["config_hash"] == config_hash(asked.config):
            return Tier(rows=kept["rows"], seconds=kept["seconds"])
    try:
        grid = grid_of(asked.space, asked.config, num_images=inputs.sizes.num_images)
    except ValueError:
        return None
    if not {parameter.path for parameter in asked.space} & set(grid[0]):
        return None
    tier = sweep(job, inputs, grid, show=watcher.show)
    asked.folder.write_json(TIER, looked(asked, tier))
    return tier


def looked(asked: Search, tier: Tier) -> dict[str, Any]:
    """Return a clustering tier as the search's folder has it."""
    return {
        "search": asked.name,
        "config_hash": config_hash(asked.config),
        **tier_summary(tier, tier_score(asked)),
    }


class Halving(ASHAScheduler):
    """ASHA that lets the trial with the run's own values train to its end."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return whether a trial goes on."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        own = trial.config[NUMBER] == BASELINE
        return str(TrialScheduler.CONTINUE) if own else decision


@dataclass(frozen=True)
class Past:
    """A trial of an earlier sitting, as much of it as ASHA looks at."""

    trial_id: str
    config: dict[str, Any]


def scheduler(asked: Search, earlier: Sequence[Trial]) -> Halving:
    """Return the scheduler, which knows the rounds of earlier trials that have ended."""
    made = Halving(
        time_attr=ROUND,
        metric=OBJECTIVE,
        mode="max",
        max_t=asked.config.num_rounds,
        grace_period=asked.grace,
        reduction_factor=asked.reduction,
    )
    for trial in earlier:
        if trial.state in ("finished", "stopped"):
            past = Past(f"past-{trial.number}", {NUMBER: trial.number})
            made.on_trial_add(None, past)
            for row in trial.rounds:
                if row["objective"] is not None and row["round"] < asked.config.num_rounds:
                    made.on_trial_result(None, past, dict(row))
    return made


def run_trials(
    asked: Search, inputs: Inputs, tracker: Tracker, *, num_concurrent: int, watcher: Watcher
) -> list[Trial]:
    """Train the trials that are left and return all of them."""
    earlier = read_all(asked.folder, asked.objective)
    proposals = Proposals(
        asked.space,
        asked.config,
        num_trials=asked.num_trials,
        num_images=inputs.sizes.num_images,
        seed=asked.seed,
        earlier=earlier,
        keep=partial(write, asked.folder),
        ended=partial(how_it_ended, asked, tracker),
    )
    if not proposals.unended and proposals.num_left <= 0:
        return earlier
    where = replace(asked.where, parent_run=tracker.run_id)
    assignment = Assignment(
        search=asked.name, config=asked.config, where=where, objective=asked.objective
    )

    def look(doing: Doing) -> None:
        # A copy: this runs in another thread than the search.
        watcher.trials([trial for _, trial in sorted(dict(proposals.trials).items())], doing)

    with watching(look) as board:
        quiet()
        tune.Tuner(
            tune.with_resources(
                tune.with_parameters(train_trial, assignment=assignment, board=board),
                reserved(asked.where),
            ),
            tune_config=tune.TuneConfig(
                search_alg=proposals,
                scheduler=scheduler(asked, earlier),
                num_samples=proposals.num_left + len(proposals.unended),
                max_concurrent_trials=num_concurrent,
                trial_name_creator=lambda trial: f"{trial.config[NUMBER]:03d}",
                trial_dirname_creator=lambda trial: f"{trial.config[NUMBER]:03d}",
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=asked.folder.path if asked.folder.is_local else asked.folder.uri,
                failure_config=tune.FailureConfig(max_failures=asked.where.max_failures),
                verbose=0,
            ),
        ).fit()
    return read_all(asked.folder, asked.objective)


def how_it_ended(asked: Search, tracker: Tracker, trial: Trial, failed: bool) -> Trial:
    """Return a trial whose process is over as it ended, and close its MLflow run."""
    found = read(asked.folder, trial.number, asked.objective)
    if found.state == "running":
        why = found.why or "its process ended; the logs of Ray's workers say why"
        found = (
            replace(found, state="failed", why=why) if failed else replace(found, state="stopped")
        )
    close(asked, tracker, found)
    return found


def close(asked: Search, tracker: Tracker, trial: Trial) -> None:
    """Write down in a trial's MLflow run how it ended, if the run began; raises nothing."""
    with told(tracker, what=f"how trial {trial.number} ended"):
        child = tracking.children(tracker).get(name_of(asked.name, trial.number))
        if child is None:
            return
        child.tag("reid.trial", trial.state)
        if trial.objective is not None:
            child.values({f"search/{OBJECTIVE}": trial.objective}, step=trial.rounds[-1]["round"])
        if trial.state != "finished":
            child.finish("FAILED" if trial.state == "failed" else "KILLED")


def quiet() -> None:
    """Keep Tune from writing, from loggers of its own, and from swallowing Ctrl-C."""
    os.environ.update(
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
        TUNE_DISABLE_SIGINT_HANDLER="1",
        RAY_AIR_NEW_OUTPUT="0",
        TUNE_DISABLE_STRICT_METRIC_CHECKING="1",  # rounds without an evaluation have no objective
    )
    logging.getLogger("ray.tune").setLevel(logging.ERROR)


def look_only(
    asked: Search, *, num: int, show: Callable[[str, int, int, str], None]
) -> dict[str, Any]:
    """Make and score the clusterings of a search alone: no trial; return the tier's summary.

    Writes `clustering.png` and `clustering.json` into the search's folder and into an MLflow run.
    """
    asked = replace(asked, where=asked.where.resolved())
    uri = pipeline.tracking_uri(asked.where)
    inputs = open_inputs(asked.config, asked.where, show=show)
    num_images = inputs.sizes.num_images
    grid = grid_of(asked.space, asked.config, num_images=num_images, num=num)
    check([p for p in asked.space if p.path in grid[0]], asked.config, num_images=num_images)
    with connected(asked.where) if asked.where.num_workers else nullcontext():
        job = prepared(asked, show=show)
        tier = sweep(job, inputs, grid, show=show)
    found = looked(asked, tier)
    figures = {CLUSTERING: draw_tier(asked, tier)}
    publish(asked.folder, figures, found, name=TIER)
    tracker = tracking.start(
        uri=uri,
        experiment=asked.where.experiment,
        run_key=f"{asked.folder.path}#clustering-{config_hash(asked.config)}",
        name=f"{asked.name}/clustering",
        params=pipeline.described(asked.config),
        tags={"reid.kind": "clustering", "reid.folder": asked.folder.path},
    )
    with told(tracker, what="the clusterings"):
        send_files(tracker, asked.folder, (*figures, TIER))
        tracker.finish("FINISHED")
    return found

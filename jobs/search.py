"""Search for better values of a run's config: Ray Tune, Optuna's proposals, early stopping.

    python -m jobs.search RUN --trials 20
    python -m jobs.search RUN --trials 20 --space optim.lr=log:1e-4:1e-2 num_clusters=int:100:500
    python -m jobs.search RUN --tier clustering

A trial is a run of RUN with other values, in a folder of its own below the search's. By default it
trains in one process, and as many at a time as this machine has cores; with --cluster.num-workers
each is a worker group with its clustering actors, and --cluster.address says on which cluster.
Every field of the run's config is an option and holds for all trials. The first trial has the
run's own values and is never stopped early. The same command again goes on where a stopped search
was, and with more --trials it adds some.

PATH=VALUES of --space, for any field of the config by dotted path:

    optim.lr=log:1e-4:1e-2       real numbers, evenly on a logarithmic scale
    smoothing=float:0:0.2        real numbers, evenly
    num_clusters=int:100:500     whole numbers, evenly (logint: on a logarithmic scale)
    ema_momentum=ema:0.9:0.999   momenta m, evenly on a logarithmic scale of 1 - m
    dbscan.eps=0.5,0.55,0.6      one of these values
    default                      learning rate, EMA momentum, number of clusters (or dbscan.eps)

--tier clustering trains nothing: it clusters the initial model's features in many ways and scores
them, in seconds.
"""

import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import tyro

from cluster.config import ClusterConfig
from jobs.console import console, exit_codes
from jobs.runs import named_run
from jobs.search_display import SearchDisplay, clustering_table, trials_table
from jobs.worlds import draw_missing
from reid.override import flatten
from reid.recipes import RUNS, RunConfig

Objective = Literal["silhouette", "neighbor_agreement", "camera_mixing", "stability", "oracle"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of the search itself."""

    tier: Literal["training", "clustering"] = "training"
    """train trials, or only score clusterings of the initial model's features"""
    trials: int = 20
    """trials to train, the one with the run's own values among them"""
    space: tuple[str, ...] = ("default",)
    """what varies: PATH=VALUES, or `default`; in place of the default space"""
    objective: Objective = "silhouette"
    """what is maximised: a figure of the round's clusters, which needs no labels, or `oracle`: mAP
    on the target's labelled test split, for upper bounds only"""
    max_concurrent: int | None = None
    """trials at a time; None: as many as the cluster holds"""
    grace_rounds: int | None = None
    """rounds that every trial may train; None: a quarter of the run's"""
    reduction: int = 2
    """at each rung, one trial in so many goes on, to so many times as many rounds"""
    search_seed: int = 0
    """of the proposals; the runs' own is --seed"""
    num_scored: int = 20
    """clusterings that the clustering tier tries: numbers of clusters, or radii"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asked for."""

    name: str
    run: str
    config: RunConfig
    cluster: ClusterConfig
    settings: Settings


def parse(arguments: Sequence[str]) -> Options:
    """Return the options of a command line; exits with code 2 on a wrong one, 0 after --help."""
    name = named_run(arguments, command="jobs.search", about=__doc__)
    default = RUNS[name]
    fields: list[Any] = [
        ("settings", Annotated[Settings, tyro.conf.arg(name="")], Settings()),
        ("config", Annotated[type(default), tyro.conf.arg(name="")], default),
        ("cluster", ClusterConfig, ClusterConfig(num_workers=0, threads_per_worker=1)),
        ("name", str, f"search-{name}"),
    ]
    kind = dataclasses.make_dataclass("Search", fields, frozen=True, kw_only=True)
    kind.__doc__ = f"Search around {name}. `--name` is the search's folder in the storage."
    given: Any = tyro.cli(kind, args=list(arguments[1:]), prog=f"jobs.search {name}")
    return Options(
        name=given.name,
        run=name,
        config=given.config,
        cluster=given.cluster,
        settings=given.settings,
    )


def main(arguments: Sequence[str]) -> None:
    """Search and print tables and the command that trains the best; standard output has JSON."""
    with exit_codes(again="the same command goes on with the trials that are left"):
        options = parse(arguments)
        # Here: they bring Ray Tune, which --help needs not wait for.
        from cluster.search import look_only, search
        from cluster.search_plan import Search
        from cluster.search_space import parse as parse_space

        settings = options.settings
        asked = Search(
            name=options.name,
            config=options.config,
            where=options.cluster,
            space=parse_space(settings.space, options.config),
            num_trials=settings.trials,
            objective=settings.objective,
            max_concurrent=settings.max_concurrent,
            grace_rounds=settings.grace_rounds,
            reduction=settings.reduction,
            seed=settings.search_seed,
        )
        with SearchDisplay(asked) as display:
            draw_missing(options.config, options.cluster, show=display.show)
            if settings.tier == "clustering":
                space_given = settings.space != ("default",)
                asked = asked if space_given else dataclasses.replace(asked, space=())
                summary = look_only(asked, num=settings.num_scored, show=display.show)
            else:
                summary = search(asked, watcher=display)
    tell = tell_clustering if settings.tier == "clustering" else tell_search
    for line in tell(options, summary):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    print(json.dumps(summary))


def tell_search(options: Options, summary: Mapping[str, Any]) -> list[str]:
    """Print a search's table; return what there is to say beneath it."""
    console.print(trials_table(summary))
    if summary["clustering"] is not None:
        console.print(clustering_table(summary["clustering"]))
    best, own = summary["best"], summary["own"]
    if best is None:
        return ["no trial was trained to its end with an objective; see why above"]
    lines = []
    if summary["beats_own"] is None:
        lines.append("the run's own values were not trained to their end: nothing to compare with")
    elif best["number"] == own["number"]:
        lines.append("no trial beat the run's own values")
    else:
        maps = (
            ""
            if None in (best["mAP"], own["mAP"])
            else (f"; mAP {100 * best['mAP']:.1f} % and {100 * own['mAP']:.1f} %")
        )
        lines.append(
            f"trial {best['number']} beats the run's own values: {summary['objective']} "
            f"{best['objective']:.4f} against {own['objective']:.4f}{maps}"
        )
    lines += correlation_lines(summary["correlations"], summary["objective"])
    lines.append(f"the best is trained: {options.cluster.storage}/{best['run']}; again by")
    return [*lines, f"  {train_command(options, best['values'])}"]


def correlation_lines(found: Mapping[str, Any], objective: str) -> list[str]:
    """Return how well scores without labels rank the trials."""
    words = {
        "objective_with_mAP": f"{objective} with mAP on the target's test labels",
        "clustering_tier_with_mAP": "clustering tier (before training) with mAP",
    }
    over = f"over {found['num_trials']} trials trained to their end"
    return [
        f"rank correlation of {name}: "
        + (f"none {over}" if found[key] is None else f"{found[key]:+.2f} {over}")
        for key, name in words.items()
        if key in found
    ]


def tell_clustering(options: Options, summary: Mapping[str, Any]) -> list[str]:
    """Print a clustering tier's table; return what there is to say beneath it."""
    console.print(clustering_table(summary))
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in summary["seconds"].items())
    picture = f"{options.cluster.storage}/{options.name}/clustering.png"
    best = summary["best"]
    lines = [f"{len(summary['rows'])} clusterings: {seconds}; picture: {picture}"]
    if best is None:
        return [*lines, f"no clustering has a {summary['score']}"]
    values = {path: best[path] for path in best if path in flatten(options.config)}
    return [
        *lines,
        f"train with the best {summary['score']} by",
        f"  {train_command(options, values)}",
    ]


def train_command(options: Options, values: Mapping[str, Any]) -> str:
    """Return the command that trains a run with values, and what was asked for all trials."""
    from cluster.search_space import as_options

    default: Any = flatten(RUNS[options.run])
    changed = {p: v for p, v in flatten(options.config).items() if v != default[p]}
    place = {
        f"cluster.{path}": value
        for path, value in flatten(options.cluster).items()
        if path != "threads_per_worker" and value != flatten(ClusterConfig())[path]
    }
    chosen = as_options({**changed, **values, **place})  # type: ignore[dict-item]
    command = ["python", "-m", "jobs.train", options.run, "--name", f"{options.run}-best", *chosen]
    return shlex.join(command)


if __name__ == "__main__":
    main(sys.argv[1:])

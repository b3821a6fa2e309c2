"""What a finished search leaves: `summary.json`, pictures, and its MLflow run."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from cluster.search_figures import importances, parallel_figure, sensitivity_figure, tier_figure
from cluster.search_plan import Search
from cluster.search_tier import Tier, best_of
from cluster.search_trials import BASELINE, Trial, best_of_trials, name_of, rank_correlation
from cluster.storage import Folder
from cluster.tracking import Tracker
from cluster.uploads import SUMMARY, send_files, told
from reid.evaluation.report import save_figure
from reid.override import flatten

PARALLEL, SENSITIVITY, CLUSTERING = "parallel.png", "sensitivity.png", "clustering.png"
TIER_SCORE = "silhouette"
"""by which the clustering tier ranks where the search's objective is no figure of clusters"""


def conclude(
    asked: Search, trials: Sequence[Trial], tier: Tier | None, tracker: Tracker
) -> dict[str, Any]:
    """Write summary and pictures into the search's folder and its MLflow run; return the first."""
    summary = summarised(asked, trials, tier) | {"mlflow_run_id": tracker.run_id}
    title = f"{asked.name}: {len(trials)} trials"
    figures: dict[str, Figure] = {}
    if any(trial.objective is not None for trial in trials):
        for name, draw in ((PARALLEL, parallel_figure), (SENSITIVITY, sensitivity_figure)):
            figures[name] = draw(trials, asked.space, objective=asked.objective, title=title)
    if tier is not None:
        figures[CLUSTERING] = draw_tier(asked, tier)
    publish(asked.folder, figures, summary)
    with told(tracker, what=f"the search's end, which is whole in {asked.folder.path}"):
        send_files(tracker, asked.folder, (*figures, SUMMARY))
        if summary["best"] is not None:
            best = {"search/best_objective": summary["best"]["objective"]}
            if summary["best"]["mAP"] is not None:
                best["search/best_mAP"] = summary["best"]["mAP"]
            tracker.values(best, step=len(trials))
            tracker.tag("reid.best", summary["best"]["run"])
        tracker.finish("FINISHED")
    return summary


def summarised(asked: Search, trials: Sequence[Trial], tier: Tier | None) -> dict[str, Any]:
    """Return the search in plain values."""
    best = best_of_trials(trials)
    own = next((t for t in trials if t.number == BASELINE and t.state == "finished"), None)
    done = [trial for trial in trials if trial.state == "finished" and trial.mAP is not None]
    maps = [float(trial.mAP or 0) for trial in done]
    correlations: dict[str, Any] = {"num_trials": len(done)}
    if asked.objective != "oracle":
        known = [trial.objective for trial in done]
        both = None if None in known else rank_correlation([float(x or 0) for x in known], maps)
        correlations["objective_with_mAP"] = both
    if tier is not None:
        ranked = [nearest(tier.rows, trial.values, tier_score(asked)) for trial in done]
        correlations["clustering_tier_with_mAP"] = (
            None if None in ranked else rank_correlation([float(x or 0) for x in ranked], maps)
        )
    return {
        "search": asked.name,
        "objective": asked.objective,
        "space": [str(parameter) for parameter in asked.space],
        "trials": [row_of(asked, trial) for trial in trials],
        "best": None if best is None else row_of(asked, best),
        "own": None if own is None else row_of(asked, own),
        "beats_own": beats(best, own),
        "correlations": correlations,
        "importances": importances(trials, asked.space),
        "clustering": None if tier is None else dict(tier_summary(tier, tier_score(asked))),
    }


def tier_score(asked: Search) -> str:
    """Return the figure by which clusterings are ranked."""
    others = ("oracle", "stability")  # stability compares with a round before, of which is none
    return TIER_SCORE if asked.objective in others else asked.objective


def tier_summary(tier: Tier, score: str) -> Mapping[str, Any]:
    """Return a tier in plain values."""
    return {
        "score": score,
        "rows": list(tier.rows),
        "best": best_of(tier.rows, score),
        "seconds": dict(tier.seconds),
    }


def row_of(asked: Search, trial: Trial) -> dict[str, Any]:
    """Return a trial in plain values."""
    return {
        "number": trial.number,
        "state": trial.state,
        "why": trial.why,
        "values": dict(trial.values),
        "rounds": trial.rounds[-1]["round"] if trial.rounds else 0,
        "objective": trial.objective,
        "mAP": trial.mAP,
        "run": name_of(asked.name, trial.number),
    }


def beats(best: Trial | None, own: Trial | None) -> bool | None:
    """Whether a search found better values than the run's own; None where one was not trained."""
    if best is None or own is None or best.objective is None or own.objective is None:
        return None
    return best.objective > own.objective


def nearest(rows: Sequence[Mapping[str, Any]], values: Mapping[str, Any], score: str) -> Any:
    """Return the score of the row nearest to values; None where it has none."""
    shared = [path for path in values if path in rows[0]]

    def distance(row: Mapping[str, Any]) -> float:
        return sum(abs(float(row[path]) - float(values[path])) for path in shared)

    return min(rows, key=distance).get(score)


def draw_tier(asked: Search, tier: Tier) -> Figure:
    """Return the picture of a clustering tier."""
    return tier_figure(
        tier.rows,
        best=best_of(tier.rows, tier_score(asked)),
        own=flatten(asked.config),
        title=f"{asked.name}: {asked.config.target} clustered before training",
    )


def publish(
    folder: Folder,
    figures: Mapping[str, Figure],
    summary: Mapping[str, Any],
    *,
    name: str = SUMMARY,
) -> None:
    """Put pictures and a summary, that last, into a folder."""
    with tempfile.TemporaryDirectory() as temporary:
        for picture, figure in figures.items():
            path = Path(temporary) / picture
            save_figure(figure, path)
            folder.write(picture, path.read_bytes())
    folder.write_json(name, summary)

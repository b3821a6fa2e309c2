"""What a finished run leaves for people: summary, ranked galleries, a plot of the rounds."""

import io
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cluster import direct
from cluster.card import Card, with_scores
from cluster.hooks import best_round, ranking_file
from cluster.inputs import Inputs
from cluster.storage import Folder
from cluster.tracking import Tracker
from cluster.uploads import PICTURE, PLOT, SUMMARY, deliver
from cluster.worker import Job
from reid.data.steps import ImageStore
from reid.evaluate import Evaluation, metrics
from reid.evaluation.report import (
    Ranking,
    choose_queries,
    ranking_figure,
    rounds_figure,
    save_figure,
)
from reid.override import config_hash
from reid.recipes import method_of
from reid.types import Retrieval

NUM_QUERIES = 6


def conclude(
    job: Job, inputs: Inputs, tracker: Tracker, card: Card, *, wall_seconds: float
) -> dict[str, Any]:
    """Write `summary.json` and the picture into the run's folder and the tracker; return the first.

    The chosen round is the last, or with `selection="oracle"` the best on the target's test split.
    """
    rounds = read_rounds(job.folder)
    scored = [row for row in rounds if row["metrics"] is not None]
    chosen = scored[-1]
    if job.config.selection == "oracle":
        chosen = next(row for row in scored if row["round"] == best_round(job.folder))
    summary: dict[str, Any] = {
        "run": job.name,
        "config_hash": config_hash(job.config),
        "method": method_of(job.config),
        "source": job.config.source,
        "target": job.config.target,
        "selection": job.config.selection,
        "selected_round": chosen["round"],
    }
    figures: dict[str, Figure] = {}
    if not job.config.clusters:
        summary |= {"direct_transfer": chosen["metrics"], "adapted": None}
    else:
        before = direct.kept(job.folder)
        summary |= {"direct_transfer": metrics(before.scores), "adapted": chosen["metrics"]}
        figures[PICTURE] = draw_rankings(job, inputs, before=before, chosen=chosen)
    summary |= {
        "rounds": [round_row(row) for row in rounds],
        "mlflow_run_id": tracker.run_id,
        "wall_seconds": wall_seconds,
    }
    figures[PLOT] = rounds_figure(
        summary["rounds"], direct_transfer=summary["direct_transfer"], title=job.name
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, figure in figures.items():
            path = Path(folder) / name
            save_figure(figure, path)
            job.folder.write(name, path.read_bytes())
    note = with_scores(card.note, summary)
    deliver(tracker, job.folder, summary, note=note, model=job.where.register)
    # Last: a run that is killed before it concludes again, and is sent again.
    job.folder.write_json(SUMMARY, summary)
    return summary


def read_rounds(run: Folder) -> list[dict[str, Any]]:
    """Return the run's rounds in order, the stretches of each put together."""
    history = run / "history"
    rounds: dict[int, dict[str, Any]] = {}
    for name in history.names():
        part = history.read_json(name)
        row = rounds.setdefault(
            part["round"], {"round": part["round"], "health": {}, "metrics": None, "seconds": {}}
        )
        row["health"] |= part["health"]
        row["metrics"] = part["metrics"] or row["metrics"]
        for key, value in part["seconds"].items():
            row["seconds"][key] = row["seconds"].get(key, 0.0) + value
    return [rounds[number] for number in sorted(rounds)]


def round_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a round as the summary has it; cluster figures are the global view's."""
    health, scores = row["health"].get("global", {}), row["metrics"] or {}
    return {
        "round": row["round"],
        "num_clusters": int(health.get("num_clusters", 0)),
        "ari": health.get("ari"),
        "health": health,
        "mAP": scores.get("mAP"),
        "rank1": scores.get("rank1"),
        "seconds": row["seconds"],
    }


def draw_rankings(
    job: Job, inputs: Inputs, *, before: Evaluation, chosen: dict[str, Any]
) -> Figure:
    """Return the picture of a few queries' galleries before and after adaptation."""
    with np.load(io.BytesIO(job.folder.read(ranking_file(chosen["round"])))) as kept:
        ap, top = kept["ap"], kept["top"]
    scores = chosen["metrics"]
    after = Retrieval(
        mAP=scores["mAP"],
        cmc=np.empty(0),
        mINP=scores["mINP"],
        num_valid_queries=int(np.isfinite(ap).sum()),
        ap=ap,
    )
    queries = choose_queries(before.scores, after, min(NUM_QUERIES, after.num_valid_queries))
    test = inputs.test
    return ranking_figure(
        queries,
        rankings=[
            Ranking(name="direct transfer", scores=before.scores, rows=before.top[queries]),
            Ranking(name="adapted", scores=after, rows=top[queries]),
        ],
        query=test.query,
        gallery=test.gallery,
        query_images=partial(_image, test.query_pixels),
        gallery_images=partial(_image, test.gallery_pixels),
        title=f"{job.name}: {job.config.source} to {job.config.target}",
    )


def _image(store: ImageStore, row: int) -> NDArray[np.uint8]:
    return store.read(np.array([row]))[0]

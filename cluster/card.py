"""What a run says of itself in MLflow: name, parameters, tags, data, description.

The card is kept in the run's folder as `tracking.json`, beside the store and the run's id there, so
that the run can be sent again, and to another server.
"""

import dataclasses
import getpass
import logging
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cluster import tracking
from cluster.inputs import DataPart, Inputs
from cluster.storage import Folder
from cluster.tracking import NoServer, Tracker
from cluster.worker import Job
from reid.override import config_hash, flatten
from reid.recipes import RunConfig, method_of

log = logging.getLogger(__name__)

TRACKING = "tracking.json"
NOTE = "mlflow.note.content"
"""the tag that MLflow's page shows as the run's description (Markdown)"""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What MLflow is told when a run begins."""

    experiment: str
    run_key: str
    name: str
    params: dict[str, Any]
    tags: dict[str, str]
    data: tuple[DataPart, ...] = ()
    parent: str | None = None
    note: str = field(default="")


def card_of(job: Job, inputs: Inputs) -> Card:
    """Return the card of a run."""
    config = job.config
    return Card(
        experiment=job.where.experiment,
        run_key=f"{job.folder.path}#{config_hash(config)}",
        name=job.name,
        parent=job.where.parent_run,
        params=flatten(config),
        tags={
            "reid.config_hash": config_hash(config),
            "reid.method": method_of(config),
            "reid.source": config.source,
            "reid.target": config.target,
            "reid.folder": job.folder.path,
            "reid.workers": str(job.where.num_workers),
            "reid.device": "gpu" if job.where.use_gpu else "cpu",
            **{f"reid.{key}": value for key, value in inputs.manifest.items()},
            **_origin(),
        },
        data=inputs.parts,
        note=_note(config, job.folder.path),
    )


def begin(job: Job, card: Card, *, uri: str) -> Tracker:
    """Return the tracker of a run, and keep its card in the run's folder.

    A run that MLflow knows goes on while the server is away; a new one is refused with NoServer.
    """
    try:
        tracker = tracking.start(uri=uri, **_asked(card))
    except NoServer as error:
        known = job.folder.read_json(TRACKING) if job.folder.exists(TRACKING) else {}
        if known.get("uri") != uri:
            raise
        log.warning("%s; the run goes on and is sent when it is back", error)
        return Tracker(uri=uri, run_id=known["run_id"])
    keep(job.folder, card, tracker)
    return tracker


def keep(run: Folder, card: Card, tracker: Tracker) -> None:
    """Write a run's card and where it is tracked."""
    content = {"uri": tracker.uri, "run_id": tracker.run_id, "card": dataclasses.asdict(card)}
    run.write_json(TRACKING, content)


def read(run: Folder) -> tuple[Card, Tracker]:
    """Return the card in a run's folder and its tracker; FileNotFoundError when there is none."""
    content = run.read_json(TRACKING)
    kept = content["card"]
    data = tuple(DataPart(**part) for part in kept.pop("data"))
    return Card(**kept, data=data), Tracker(uri=content["uri"], run_id=content["run_id"])


def again(card: Card, *, uri: str) -> Tracker:
    """Return the tracker of a card's run in a store, found or made. Raises NoServer."""
    return tracking.start(uri=uri, **_asked(card))


def with_scores(note: str, summary: dict[str, Any]) -> str:
    """Return a run's description with a table of its scores."""
    rows = [("direct transfer", summary["direct_transfer"]), ("adapted", summary["adapted"])]
    if summary["adapted"] is None:
        rows = [("trained", summary["direct_transfer"])]
    names = ("mAP", "rank1", "rank5", "mINP")
    lines = [
        "| % | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
        *(
            f"| {what} | "
            + " | ".join(f"{100 * scores[n]:.1f}" if n in scores else "" for n in names)
            + " |"
            for what, scores in rows
        ),
    ]
    rounds = f"Round {summary['selected_round'] + 1} (selection: {summary['selection']})"
    return f"{note}\n\n" + "\n".join(lines) + f"\n\n{rounds}, {summary['wall_seconds']:.0f} s.\n"


def _asked(card: Card) -> dict[str, Any]:
    """Return a card as `tracking.start` takes it."""
    asked = {f.name: getattr(card, f.name) for f in dataclasses.fields(card) if f.name != "note"}
    return asked | {"tags": {**card.tags, NOTE: card.note}}


def _note(config: RunConfig, folder: str) -> str:
    labels = (
        f"from `{config.source}` (labels) to `{config.target}` (none)"
        if config.clusters
        else f"on the labels of `{config.source}`, tested on `{config.target}`"
    )
    return (
        f"**{method_of(config)}** {labels}: {config.backbone}, {config.height} x {config.width} "
        f"pixels, {config.num_rounds} rounds of {config.steps_per_round} steps, seed "
        f"{config.seed}.\n\nFolder: `{folder}`"
    )


def _origin() -> dict[str, str]:
    """Return who ran what code, as MLflow's pages show it."""
    tags = {
        "mlflow.user": _user(),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": Path(sys.argv[0]).name,
    }
    for package in ("torch", "ray"):
        try:
            tags[f"reid.{package}"] = version(package)
        except PackageNotFoundError:
            continue
    here = Path(__file__).parent
    commit = _git(here, "rev-parse", "HEAD")
    if commit:
        tags["mlflow.source.git.commit"] = commit
        tags["mlflow.source.git.dirty"] = str(bool(_git(here, "status", "--porcelain"))).lower()
    return tags


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in containers
        return ""


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()

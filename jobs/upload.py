"""Send a run to MLflow again, or to another server, or register its network as a model.

    python -m jobs.upload FOLDER [options]

For a run whose server was away when it ended, whatever its figures were; what a server has already
is not sent twice. With --register NAME the run's network becomes a version of a registered model:
a graph that torch loads without this project's code, from pixels to embedding.
"""

import dataclasses
import sys

import tyro

from cluster import card, uploads
from cluster.config import has_password
from cluster.storage import Folder
from cluster.uploads import SUMMARY
from jobs.console import console, exit_codes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to send, and where."""

    folder: tyro.conf.Positional[str]
    """the run's folder, local or s3://"""
    tracking_uri: str | None = None
    """MLflow store; None: the one the run was tracked in"""
    register: str | None = None
    """name of the registered model that the run's network becomes a version of"""


def main(options: Options) -> None:
    """Send it, and print the run's id."""
    with exit_codes():
        run = Folder(options.folder)
        if options.tracking_uri is not None and has_password(options.tracking_uri):
            raise ValueError(
                "--tracking-uri holds a password; leave it out and set MLFLOW_TRACKING_USERNAME "
                "and MLFLOW_TRACKING_PASSWORD"
            )
        if not run.exists(card.TRACKING):
            raise ValueError(f"{run.path} is no run's folder: it has no {card.TRACKING}")
        written, tracker = card.read(run)
        tracker = card.again(written, uri=options.tracking_uri or tracker.uri)
        summary = run.read_json(SUMMARY) if run.exists(SUMMARY) else None
        if options.register is not None and summary is None:
            raise ValueError(f"{run.path} has no {SUMMARY}: the run is not finished")
        uploads.Outbox(tracker, run).send()
        if summary is None:
            tracker.finish("KILLED")
        else:
            uploads.conclude(tracker, run, summary, note=card.with_scores(written.note, summary))
            if options.register is not None:
                version = uploads.register(tracker, run, summary, name=options.register)
                console.print(f"version {version} of {options.register}", markup=False)
    print(tracker.run_id)


if __name__ == "__main__":
    main(tyro.cli(Options, args=sys.argv[1:], prog="jobs.upload", description=__doc__))

"""What a run sends to MLflow, taken from the run's folder, so that it can be sent at any time.

Training writes each stretch to the folder's `history` and never waits for a server. A thread of the
driver sends what is new; a server that is away for a while gets it later, and one that is away for
good can get it from `python -m jobs.upload FOLDER` when the run has long ended.
"""

import dataclasses
import json
import logging
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster import checkpoints
from cluster.storage import Folder
from cluster.tracking import Sample, Tracker, reason
from reid.export import embedding, preprocessing
from reid.recipes import restore
from reid.types import Report

log = logging.getLogger(__name__)

HISTORY, SUMMARY = "history", "summary.json"
BEST = "best.pt"
"""the state after the best round, kept where the run selects by `oracle`"""
PICTURE, PLOT = "ranking.png", "rounds.png"
POLL_S, MAX_PAUSE_S = 5.0, 60.0
"""seconds between looks for something new, and the longest pause while the server is away"""
PATIENCE_S = 90.0
"""seconds a run waits at its end for a server that is away"""
MAX_SAMPLES = 200_000
"""values of nodes kept for a server that is away; the oldest are dropped"""

TakeSamples = Callable[[], Sequence[Sample]]


def keep(run: Folder, report: Report) -> None:
    """Put a report into the run's folder, with the time it was made."""
    kept = {**dataclasses.asdict(report), "time_ms": int(time.time() * 1000)}
    (run / HISTORY).write_json(f"step={report.first_step:08d}.json", kept)


class Outbox:
    """What of a run's folder, and of what is sampled beside it, was not sent yet."""

    def __init__(self, tracker: Tracker, run: Folder, take: TakeSamples | None = None) -> None:
        self.tracker, self.run = tracker, run
        self._take = take
        self._samples: deque[Sample] = deque(maxlen=MAX_SAMPLES)
        self._sent: set[str] = set()
        self._away = False

    def send(self) -> None:
        """Send all that is new; raises whatever MLflow raises."""
        history = self.run / HISTORY
        names = history.names()
        if not self._sent.issuperset(names):
            self._sent |= set(_before(names, self.tracker.sent_steps()))
        for name in names:
            if name not in self._sent:
                part = history.read_json(name)
                time_ms = part.pop("time_ms")
                self.tracker.report(Report(**part), time_ms=time_ms)
                self._sent.add(name)
        if self._take is not None:  # last: without samples of nodes a run is told all the same
            self._samples.extend(self._take())
        if self._samples:
            waiting = list(self._samples)
            self.tracker.samples(waiting)
            self._samples.clear()

    def try_send(self) -> bool:
        """Send all that is new and tell whether it went; a server that is away is no error."""
        try:
            self.send()
        except Exception as error:  # of many libraries; none may end a training
            if not self._away:
                log.warning(
                    "nothing reaches MLflow at %s (%s); training goes on, its figures wait in %s",
                    self.tracker.uri, reason(error), self.run.path,
                )  # fmt: skip
            self._away = True
            return False
        if self._away:
            log.warning("MLflow at %s has all figures again", self.tracker.uri)
        self._away = False
        return True


def _before(names: Sequence[str], step: int) -> list[str]:
    """Return the names of stretches that end at a step or before, in order: where others begin."""
    first = [int(name.removesuffix(".json").partition("=")[2]) for name in names]
    return [name for name, following in zip(names, first[1:], strict=False) if following <= step]


@contextmanager
def sending(tracker: Tracker, run: Folder, *, take: TakeSamples | None = None) -> Iterator[None]:
    """Send from a thread, while the block runs, what is written to a run's folder, and samples.

    `take` returns the samples made since it was last called.
    """
    outbox = Outbox(tracker, run, take)
    done = threading.Event()

    def work() -> None:
        pause = POLL_S
        while not done.wait(pause):
            pause = POLL_S if outbox.try_send() else min(2 * pause, MAX_PAUSE_S)

    thread = threading.Thread(target=work, name="mlflow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        outbox.try_send()


def deliver(
    tracker: Tracker, run: Folder, summary: dict[str, Any], *, note: str, model: str | None
) -> bool:
    """Send all of a finished run, again for `PATIENCE_S` seconds; tell whether it went.

    `model`: the registered model that its network becomes a version of. Where the run was not
    taken, a warning says how to send it later.
    """
    until, pause = time.monotonic() + PATIENCE_S, 1.0
    outbox = Outbox(tracker, run)
    while True:
        try:
            outbox.send()
            conclude(tracker, run, summary, note=note)
            if model is not None:
                register(tracker, run, summary, name=model)
            return True
        except Exception as error:  # of many libraries; none may end a finished training
            if time.monotonic() + pause > until:
                log.warning(
                    "MLflow at %s did not take the run (%s). The run is whole in %s; send it later "
                    "with: python -m jobs.upload %s%s",
                    tracker.uri, reason(error), run.path, run.path,
                    "" if model is None else f" --register {model}",
                )  # fmt: skip
                return False
        time.sleep(pause)
        pause = min(2 * pause, 10.0)


def conclude(tracker: Tracker, run: Folder, summary: dict[str, Any], *, note: str) -> None:
    """Send what stands behind the last round: scores, pictures, summary; close the run."""
    if summary["adapted"] is not None:
        history = run / HISTORY
        first = history.read_json(history.names()[0])["time_ms"]
        scores = summary["direct_transfer"].items()
        tracker.samples([(f"eval/direct_transfer/{key}", x, first, 0) for key, x in scores])
    send_files(tracker, run, [name for name in (PICTURE, PLOT) if run.exists(name)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / SUMMARY
        path.write_text(json.dumps(summary, indent=2), encoding="utf-8")
        tracker.artifact(path)
    tracker.tag("reid.checkpoint", f"{run.path}/checkpoints")
    tracker.tag("mlflow.note.content", note)
    tracker.finish("FINISHED")


def register(tracker: Tracker, run: Folder, summary: dict[str, Any], *, name: str) -> str:
    """Register the network of a finished run's selected round; return the version.

    Raises ValueError when the checkpoint is not that round's, or does not fit this version.
    """
    oracle = summary["selection"] == "oracle" and run.exists(BEST)
    state = checkpoints.read(f"{run.path}/{BEST}" if oracle else run.path)
    if state.round - 1 != summary["selected_round"]:
        raise ValueError(
            f"the checkpoint in {run.path} is of round {state.round - 1}, and the scores are of "
            f"round {summary['selected_round']}, whose state is not there: train it again"
        )
    recipe = restore(state)
    scores = summary["adapted"] or summary["direct_transfer"]
    about = {
        **preprocessing(recipe.config),
        "method": summary["method"],
        "source": summary["source"],
        "target": summary["target"],
        "config_hash": summary["config_hash"],
        "round": state.round - 1,
        "selection": summary["selection"],
    }
    return tracker.register(embedding(recipe), name=name, about=about, scores=scores)


def send_files(tracker: Tracker, run: Folder, names: Iterable[str]) -> None:
    """Send files of a folder."""
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path = Path(folder) / name
            path.write_bytes(run.read(name))
            tracker.artifact(path)


def stop(tracker: Tracker, error: BaseException) -> None:
    """Close what an error ended, or a person, a search or Ray; raises nothing."""
    status = "KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED"
    with told(tracker, what=f"that the run {status}"):  # the run's own error is what matters
        tracker.finish(status)


@contextmanager
def told(tracker: Tracker, *, what: str) -> Iterator[None]:
    """Send in the block what can be done without; where that fails, a warning names it."""
    try:
        yield
    except Exception as error:  # of many libraries; none may end the work that is reported
        log.warning("MLflow at %s was not told %s (%s)", tracker.uri, what, reason(error))

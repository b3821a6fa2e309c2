"""What runs in Ray Train's controller; it imports little, for every run waits for that process."""

from typing import Any

from ray.train import UserCallback

from cluster.tracking import Tracker
from reid.types import Report


class ToTracker(UserCallback):
    """Sends rank 0's reports on: the one writer of the run."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any
    ) -> None:
        """Send rank 0's report."""
        self.tracker.report(Report(**metrics[0]))

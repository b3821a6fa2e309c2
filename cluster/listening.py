"""Who else hears of a run's rounds as they end; imports little, as it runs in the controller."""

from collections.abc import Callable
from typing import Any

from ray.train import UserCallback

from reid.types import Report

Listen = Callable[[Report], None]
"""Called with each report: in this process without workers, else in that of their controller."""


class Listening(UserCallback):
    """Hands rank 0's reports to a listener."""

    def __init__(self, listen: Listen) -> None:
        self.listen = listen

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any
    ) -> None:
        """Hand rank 0's report over."""
        self.listen(Report(**metrics[0]))

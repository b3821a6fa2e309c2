"""What the trials of a search are doing, from their processes to the one that shows it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import ray

from cluster.board import repeated

Doing = Mapping[int, tuple[str, int, int, str]]
"""{number of a trial: (what, done, total, note)}."""

POLL_S = 0.5


class SearchBoard:
    """An actor that holds the last line of each trial."""

    def __init__(self) -> None:
        self._lines: dict[int, tuple[str, int, int, str]] = {}

    def show(self, number: int, what: str, done: int, total: int, note: str) -> None:
        """Replace a trial's line."""
        self._lines[number] = (what, done, total, note)

    def lines(self) -> Doing:
        """Return all lines."""
        return self._lines


@contextmanager
def watching(look: Callable[[Doing], None]) -> Iterator[Any]:
    """Yield a board whose lines are handed to `look` from a thread until the block ends."""
    board = ray.remote(SearchBoard).options(num_cpus=0, scheduling_strategy="DEFAULT").remote()
    lines: Doing = {}

    def watch() -> None:
        nonlocal lines
        with suppress(ray.exceptions.RayError):  # the screen may miss a line
            lines = ray.get(board.lines.remote(), timeout=5)
        look(lines)

    try:
        with repeated(watch, every_s=POLL_S):
            yield board
    finally:
        ray.kill(board)
        look(lines)

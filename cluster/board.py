"""The progress of a run, from the worker that makes it to the driver that shows it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

Show = Callable[[str, int, int, str], None]
POLL_S = 0.25


class Board:
    """An actor that holds the last line of progress."""

    def __init__(self) -> None:
        self._line: tuple[str, int, int, str] = ("", 0, 0, "")

    def show(self, what: str, done: int, total: int, note: str) -> None:
        """Replace the line."""
        self._line = (what, done, total, note)

    def line(self) -> tuple[str, int, int, str]:
        """Return the line."""
        return self._line


@contextmanager
def repeated(look: Callable[[], None], *, every_s: float) -> Iterator[None]:
    """Call a function every so many seconds, from a thread, until the block ends."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(every_s):
            look()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def watched(show: Show) -> Iterator[Any]:
    """Yield a board whose line is handed to `show` from a thread until the block ends."""
    # It may be on any node, and goes to another with an empty line when it loses that one.
    board = (
        ray.remote(Board)
        .options(num_cpus=0, max_restarts=-1, scheduling_strategy="DEFAULT")
        .remote()
    )
    last = None

    def look() -> None:
        nonlocal last
        try:
            line = ray.get(board.line.remote(), timeout=5)
        except ray.exceptions.RayError:
            return  # the screen may miss a line, the run goes on
        if line[0] and line != last:
            show(*line)
            last = line

    try:
        with repeated(look, every_s=POLL_S):
            yield board
    finally:
        ray.kill(board)

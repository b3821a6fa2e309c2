"""What all commands share: progress bars, error lines, exit codes."""

import datetime
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

Show = Callable[[str, int, int, str], None]

console = Console(stderr=True)
"""Progress and errors; standard output carries results only."""

USAGE_ERROR, INTERRUPTED = 2, 130


@contextmanager
def progress_bars() -> Iterator[Show]:
    """Yield `show(what, done, total, note)`: bars on a terminal, else a line a finished part."""
    if not console.is_terminal:
        yield _line
        return
    columns = (
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as bars:

        def show(what: str, done: int, total: int, note: str) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, note=note)
            bars.update(tasks[what], completed=done, total=total, note=note)

        yield show


def _line(what: str, done: int, total: int, note: str) -> None:
    if done >= total > 0:
        now = datetime.datetime.now(tz=datetime.UTC).strftime("%H:%M:%S")
        console.print(f"{now} {what} {done}/{total} {note}", markup=False, highlight=False)


@contextmanager
def exit_codes(*, again: str = "") -> Iterator[None]:
    """Turn a wrong input into one line and exit code 2, Ctrl-C into a word about resuming and 130.

    A ValueError is what the checks before training raise. Errors inside Ray's workers keep their
    trace; a ValueError of training in this process becomes one line too.
    """
    try:
        yield
    except ValueError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(USAGE_ERROR)
    except KeyboardInterrupt:
        line = f"stopped; {again}" if again else "stopped"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
        sys.exit(INTERRUPTED)

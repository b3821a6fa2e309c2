"""A run's checkpoints in its folder: the last two, and the best where the run selects it."""

from cluster.storage import Folder
from reid.checkpoint import RunState, from_bytes, to_bytes

KEEP = 2


class NoCheckpoint(ValueError):  # noqa: N818
    """There is no state where one was looked for."""


def name_of(state: RunState) -> str:
    """Return the file name of a state; names sort in the order of training."""
    return f"round={state.round:04d}-step={state.step:06d}.pt"


def save(run: Folder, state: RunState) -> None:
    """Write a state and forget all but the last two."""
    folder = run / "checkpoints"
    folder.write(name_of(state), to_bytes(state))
    for old in _names(folder)[:-KEEP]:
        folder.delete(old)


def latest(run: Folder) -> RunState | None:
    """Return the last state of a run, None when there is none."""
    folder = run / "checkpoints"
    names = _names(folder)
    if not names:
        return None
    return from_bytes(folder.read(names[-1]), name=f"{folder.uri}/{names[-1]}")


def read(path: str) -> RunState:
    """Return the state in a file, or the last of a run's folder; NoCheckpoint names the path."""
    parent, _, name = path.rstrip("/").rpartition("/")
    try:
        if name.endswith(".pt"):
            return from_bytes(Folder(parent or ".").read(name), name=path)
        state = latest(Folder(path))
    except FileNotFoundError:
        raise NoCheckpoint(f"there is no checkpoint {path}") from None
    if state is None:
        raise NoCheckpoint(f"there is no checkpoint in {path}/checkpoints")
    return state


def _names(folder: Folder) -> list[str]:
    return [name for name in folder.names() if name.startswith("round=")]

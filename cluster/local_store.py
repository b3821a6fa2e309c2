"""MLflow's local store, a sqlite file: where runs' files go, and who may open it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCHEME = "sqlite:///"
ARTIFACTS = "mlartifacts"
"""folder of files beside the store"""


def artifacts_of(uri: str) -> str | None:
    """Return where a sqlite store's files go; None for a server, which knows that for itself."""
    if not uri.startswith(SCHEME):
        return None
    return str(Path(uri.removeprefix(SCHEME)).absolute().parent / ARTIFACTS)


@contextmanager
def opened_alone(uri: str) -> Iterator[None]:
    """Keep other runs from opening a sqlite store: MLflow has no guard while it makes a new one."""
    artifacts = artifacts_of(uri)
    if artifacts is None:
        yield
        return
    folder = Path(artifacts).parent
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)

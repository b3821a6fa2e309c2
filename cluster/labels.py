"""Pseudo-labels of a round in storage: tables first, the manifest last. No manifest, no labels."""

import hashlib
import io
import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage import Folder
from reid.fit import Labelling
from reid.types import PseudoLabels

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
TABLE = "labels.parquet"


def round_folder(run: Folder, round: int) -> Folder:
    """Return where a round's labels lie."""
    return run / "labels" / f"round={round:04d}"


def commit(run: Folder, round: int, labelling: Labelling) -> None:
    """Write a round's labels so that a reader finds all of them or none.

    `labels.parquet` has a column of int64 a view, in row order; `centers-VIEW.npy` is (K,D)
    float32, `extra-VIEW-NAME.npy` what else was found; the manifest names them with their SHA-256.
    """
    folder = round_folder(run, round)
    buffer = io.BytesIO()
    pq.write_table(pa.table({v: x.labels for v, x in labelling.labels.items()}), buffer)
    files = {TABLE: buffer.getvalue()}
    for view, value in labelling.labels.items():
        files[_centers(view)] = _array_bytes(value.centers)
        files |= {_extra(view, name): _array_bytes(x) for name, x in value.extras.items()}
    for name, data in files.items():
        folder.write(name, data)
    manifest = {
        "round": round,
        "views": {view: list(value.extras) for view, value in labelling.labels.items()},
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "seconds": dict(labelling.seconds),
        "health": {view: dict(values) for view, values in labelling.health.items()},
    }
    folder.write_json(MANIFEST, manifest)


def committed(run: Folder, round: int) -> Labelling | None:
    """Return a round's labels, None when they were not (wholly) written."""
    folder = round_folder(run, round)
    if not folder.exists(MANIFEST):
        return None
    manifest = folder.read_json(MANIFEST)
    files = {}
    for name, digest in manifest["sha256"].items():
        files[name] = folder.read(name) if folder.exists(name) else b""
        if hashlib.sha256(files[name]).hexdigest() != digest:
            log.warning("%s/%s is damaged or gone; the round is labelled again", folder.uri, name)
            return None
    table = pq.read_table(io.BytesIO(files[TABLE]))
    labels = {
        view: PseudoLabels(
            labels=table.column(view).to_numpy().copy(),
            centers=_array(files[_centers(view)]),
            extras={name: _array(files[_extra(view, name)]) for name in extras},
        )
        for view, extras in manifest["views"].items()
    }
    return Labelling(labels=labels, seconds=manifest["seconds"], health=manifest["health"])


def _centers(view: str) -> str:
    return f"centers-{view}.npy"


def _extra(view: str, name: str) -> str:
    return f"extra-{view}-{name}.npy"


def _array_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _array(data: bytes) -> np.ndarray:
    array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    return array

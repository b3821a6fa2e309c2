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
    float32; the manifest names them with their SHA-256.
    """
    folder = round_folder(run, round)
    buffer = io.BytesIO()
    pq.write_table(pa.table({v: x.labels for v, x in labelling.labels.items()}), buffer)
    files = {TABLE: buffer.getvalue()}
    for view, value in labelling.labels.items():
        array = io.BytesIO()
        np.save(array, value.centers, allow_pickle=False)
        files[f"centers-{view}.npy"] = array.getvalue()
    for name, data in files.items():
        folder.write(name, data)
    manifest = {
        "round": round,
        "views": list(labelling.labels),
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
            centers=np.load(io.BytesIO(files[f"centers-{view}.npy"]), allow_pickle=False),
        )
        for view in manifest["views"]
    }
    return Labelling(labels=labels, seconds=manifest["seconds"], health=manifest["health"])

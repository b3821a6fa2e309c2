"""Everything a run reads, opened and checked before any training."""

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cluster.config import ClusterConfig
from reid.data.datasets import load
from reid.data.datasets.reading import require_identities
from reid.data.decoding import named
from reid.data.pixel_store import open_pixels
from reid.data.steps import ImageStore, Table
from reid.data.usable import undecodable
from reid.evaluate import TestSplit
from reid.recipes import RunConfig, Sizes
from reid.types import Dataset, Split

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int, str], None]
"""Called with (what, done, total, note)."""


@dataclass(frozen=True, kw_only=True)
class DataPart:
    """A part of a data set that a run reads, as MLflow lists it.

    `context` is `training` or `testing`; `sha256` names the manifest: file names, identities and
    cameras in the table's order.
    """

    name: str
    root: str
    context: str
    num_images: int
    num_identities: int
    num_cameras: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Tables to train on, the split to score on, and the truth for diagnostics."""

    tables: dict[str, Table]
    test: TestSplit
    truth: NDArray[np.int64]
    """identities of the target's training images; never trains anything"""
    sizes: Sizes
    """what recipes are built for"""
    manifest: dict[str, str]
    """a line about each data set, for the tracker"""
    parts: tuple[DataPart, ...]
    """the tables trained and tested on, for the tracker"""


def check_batch(config: RunConfig, where: ClusterConfig) -> None:
    """Refuse a batch that some number of workers a run may have cannot share."""
    for workers in where.world_sizes:
        if workers and config.num_identities % workers:
            raise ValueError(
                f"num_identities is {config.num_identities}, which {workers} workers cannot "
                "share evenly; give a multiple with --num-identities"
            )
        share = config.num_identities * config.num_instances // max(1, workers)
        if config.norm_group is not None and share % config.norm_group:
            raise ValueError(
                f"BatchNorm statistics are of groups of {config.norm_group} images, and each of "
                f"{max(1, workers)} workers has {share}: give a divisor of {share} with "
                "--norm-group, or None for all of a worker's images"
            )


def open_inputs(config: RunConfig, where: ClusterConfig, *, show: Progress) -> Inputs:
    """Read the data sets of a run and decode their images once.

    Raises ValueError naming what is missing or unfit: a folder, a split, images, identities.
    """
    check_batch(config, where)
    target = open_data(*_place(config.target, where), where, show=show)
    if not len(target.query):
        raise ValueError(
            f"{target.root} has no query and gallery images to test on: it can be a --source, not "
            "a --target"
        )
    tables = {"target": _table(target.train, config, where, show, f"decode {config.target} train")}
    manifest = {"data.target": _describe(target)}
    parts = [
        _part(target, "train", context="training"),
        _part(target, "query", context="testing"),
        _part(target, "gallery", context="testing"),
    ]
    num_identities = 0
    if config.reads_source:
        source = target
        if config.source != config.target:
            source = open_data(*_place(config.source, where), where, show=show)
        table = _table(source.train, config, where, show, f"decode {config.source} train")
        identities, labels = np.unique(source.train.pid, return_inverse=True)
        num_identities = len(identities)
        tables["source"] = Table(
            store=table.store, camid=table.camid, labels={"identity": labels.astype(np.int64)}
        )
        manifest["data.source"] = _describe(source)
        if source is not target:
            parts.append(_part(source, "train", context="training"))
    config.check_target(len(target.train))
    return Inputs(
        tables=tables,
        test=open_test(target, config, where, show=show),
        truth=target.train.pid,
        sizes=Sizes(num_identities=num_identities, num_images=len(target.train)),
        manifest=manifest,
        parts=tuple(parts),
    )


def open_data(name: str, root: str, where: ClusterConfig, *, show: Progress) -> Dataset:
    """Read a data set, without the images that do not decode where these are to be skipped.

    Raises ValueError as `load` does, and where those left are no data set.
    """
    data = load(name, root)
    if where.on_undecodable == "error":
        return data
    splits = {
        split: _decodable(getattr(data, split), where, f"{name} {split}", show=show)
        for split in ("train", "query", "gallery")
    }
    for split, left in splits.items():
        if not len(left):
            raise ValueError(f"no {split} image of {data.root} decodes; repair these files")
    if len(splits["train"]) < len(data.train):
        without = len(data.train) - len(splits["train"])
        where_left = f"{data.root} without {without} training images that do not decode"
        require_identities(splits["train"], where=where_left)
    return replace(data, train=splits["train"], query=splits["query"], gallery=splits["gallery"])


def _decodable(split: Split, where: ClusterConfig, name: str, *, show: Progress) -> Split:
    """Return a split without the images that do not decode, which are counted and named."""
    found = undecodable(
        split.path,
        cache_dir=cache_folder(where),
        progress=lambda done, total: show(f"check {name}", done, total, ""),
    )
    if not found:
        return split
    failures = [(str(split.path[row]), reason) for row, reason in found.items()]
    log.warning(
        "%d of %d images of %s do not decode and are left out: %s",
        len(found), len(split), name, named(failures),
    )  # fmt: skip
    return split.take(np.delete(np.arange(len(split)), list(found)))


def _place(name: str, where: ClusterConfig) -> tuple[str, str]:
    """Return reader and folder of a data set called READER, or READER:FOLDER below the root."""
    reader, _, folder = name.partition(":")
    return reader, os.path.join(where.data_root, folder or reader)


def open_test(
    data: Dataset, config: RunConfig, where: ClusterConfig, *, show: Progress
) -> TestSplit:
    """Return a data set's test split with its images decoded."""
    return TestSplit(
        query=data.query,
        gallery=data.gallery,
        query_pixels=_pixels(data.query, config, where, show, f"decode {data.name} query"),
        gallery_pixels=_pixels(data.gallery, config, where, show, f"decode {data.name} gallery"),
    )


def cache_folder(where: ClusterConfig) -> str:
    """Return the local folder of decoded images."""
    if where.cache is not None:
        return where.cache
    local = "://" not in where.storage
    return os.path.join(where.storage if local else os.path.expanduser("~/.cache/reid"), "cache")


def _table(
    split: Split, config: RunConfig, where: ClusterConfig, show: Progress, what: str
) -> Table:
    return Table(store=_pixels(split, config, where, show, what), camid=split.camid, labels={})


def _pixels(
    split: Split, config: RunConfig, where: ClusterConfig, show: Progress, what: str
) -> ImageStore:
    return open_pixels(
        split.path,
        height=config.height,
        width=config.width,
        cache_dir=cache_folder(where),
        budget_bytes=None if where.cache_gb is None else int(where.cache_gb * 1e9),
        progress=lambda done, total: show(what, done, total, ""),
    )


def _part(data: Dataset, split: str, *, context: str) -> DataPart:
    """Return a split as the tracker lists it."""
    table: Split = getattr(data, split)
    trained = context == "training"  # there, 0 is an identity; in a gallery it is distractors
    return DataPart(
        name=f"{data.name} {split}",
        root=data.root,
        context=context,
        num_images=len(table),
        num_identities=len(np.unique(table.pid[trained | (table.pid > 0)])),
        num_cameras=len(np.unique(table.camid)),
        sha256=_digest(table),
    )


def _digest(*splits: Split) -> str:
    """Return a hash of names, identities and cameras in the tables' order."""
    digest = hashlib.sha256()
    for split in splits:
        names = [os.path.basename(path) for path in split.path]
        digest.update("\n".join(names).encode() + split.pid.tobytes() + split.camid.tobytes())
    return digest.hexdigest()


def _describe(data: Dataset) -> str:
    """Return counts and a hash of names, identities and cameras of all splits."""
    train = f"{len(np.unique(data.train.pid))} ids, {len(data.train)} images"
    return (
        f"{data.name}: train {train}; query {len(data.query)}; gallery {len(data.gallery)}; "
        f"sha256 {_digest(data.train, data.query, data.gallery)[:16]}"
    )

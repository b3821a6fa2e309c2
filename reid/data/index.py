"""Checking a data set once: every file is read, decoded and compared with all the others.

What a later run would stumble over, or learn from without anybody's knowledge, is found here: files
that do not decode, images of an unusual kind, the same bytes under two names.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from os import PathLike

import numpy as np
import pyarrow as pa
from jaxtyping import Shaped

from reid.data import files
from reid.data.datasets.reading import JUNK
from reid.data.datasets.table import SPLITS, folder_of, to_arrow, write_arrow
from reid.data.decoding import content_of, look
from reid.types import Dataset, Split

UNREADABLE = "unreadable: "
"""What a note of a file that does not decode begins with."""

_BLOCK = 256  # files between two calls of `progress`


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What one file is: `height` and `width` as seen upright, 0 where unknown.

    `note` is "" for an ordinary image; else what is odd, divided by "; ", or `UNREADABLE` and why.
    """

    height: int = 0
    width: int = 0
    num_bytes: int = 0
    sha256: str = ""
    note: str = ""

    @property
    def is_readable(self) -> bool:
        """Whether the file decodes."""
        return not self.note.startswith(UNREADABLE)


@dataclass(frozen=True, kw_only=True)
class Index:
    """A data set and the facts of its files: `files[split][row]` is image `row` of the split."""

    dataset: Dataset
    files: Mapping[str, tuple[FileFacts, ...]]

    def unreadable(self) -> dict[str, str]:
        """Return the path of every file that does not decode, and why."""
        return {
            path: facts.note.removeprefix(UNREADABLE)
            for name, files in self.files.items()
            for path, facts in zip(_split(self, name).path.tolist(), files, strict=True)
            if not facts.is_readable
        }


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """One split in numbers; junk (pid -1) is no identity.

    `repeated_images` have the bytes of an earlier row of the split; `odd` counts images by kind.
    """

    images: int
    identities: int
    cameras: int
    identities_with_one_image: int
    identities_with_one_camera: int
    repeated_images: int
    unreadable_images: int
    odd: Mapping[str, int] = field(default_factory=dict)


def _split(index: Index, name: str) -> Split:
    split: Split = getattr(index.dataset, name)
    return split


def inspect(path: str) -> FileFacts:
    """Read and decode one file, as a run does."""
    content = content_of(path)
    if isinstance(content, str):
        return FileFacts(note=f"{UNREADABLE}{content}")
    looked = look(content)
    return FileFacts(
        height=looked.height,
        width=looked.width,
        num_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        note=f"{UNREADABLE}{looked.reason}" if looked.reason else "; ".join(looked.kinds),
    )


def build_index(dataset: Dataset, *, progress: Callable[[int, int], None] | None = None) -> Index:
    """Inspect every file of a data set once, on threads.

    `progress` is called with (files done, files in all).
    """
    every = np.concatenate([getattr(dataset, name).path for name in SPLITS])
    unique, row_of = np.unique(every, return_inverse=True)
    paths: list[str] = unique.tolist()
    found: list[FileFacts] = []
    with files.open_threads(paths) as threads:
        for start in range(0, len(paths), _BLOCK):  # Pillow and hashlib work without the GIL
            found += threads.map(inspect, paths[start : start + _BLOCK])
            if progress is not None:
                progress(len(found), len(paths))
    rows = iter(row_of.tolist())
    facts = {name: tuple(found[next(rows)] for _ in getattr(dataset, name).path) for name in SPLITS}
    return Index(dataset=dataset, files=facts)


def _per_identity(split: Split) -> tuple[Shaped[np.ndarray, "P"], Shaped[np.ndarray, "P"]]:
    """Return the numbers of images and of cameras of each identity."""
    known = split.pid != JUNK
    pairs = np.stack([split.pid[known], split.camid[known]], axis=1)
    images = np.unique(pairs[:, 0], return_counts=True)[1]
    cameras = np.unique(np.unique(pairs, axis=0)[:, 0], return_counts=True)[1]
    return images, cameras


def _hashes(files: tuple[FileFacts, ...]) -> list[str]:
    return [facts.sha256 for facts in files if facts.is_readable]


def summarise(index: Index) -> dict[str, SplitCounts]:
    """Return the counts of each split."""
    counts = {}
    for name, every in index.files.items():
        split, hashes = _split(index, name), _hashes(every)
        images, cameras = _per_identity(split)
        readable = [facts for facts in every if facts.is_readable]
        odd = Counter(kind for facts in readable if facts.note for kind in facts.note.split("; "))
        counts[name] = SplitCounts(
            images=len(split),
            identities=len(images),
            cameras=len(np.unique(split.camid)),
            identities_with_one_image=int((images == 1).sum()),
            identities_with_one_camera=int((cameras == 1).sum()),
            repeated_images=len(hashes) - len(set(hashes)),
            unreadable_images=len(every) - len(readable),
            odd=dict(sorted(odd.items())),
        )
    return counts


def shared_images(index: Index) -> dict[tuple[str, str], int]:
    """Return how many different images two splits both hold, byte by byte, for each two."""
    hashes = {name: set(_hashes(files)) for name, files in index.files.items()}
    return {(a, b): len(hashes[a] & hashes[b]) for a, b in combinations(hashes, 2)}


def write_index(index: Index, path: str | PathLike[str]) -> None:
    """Write a row an image, as .parquet or .csv, which `reid.data.datasets.table` reads.

    Columns are path, split, pid, camid, modality if any, height, width, bytes, sha256, note.
    Raises ValueError for another end of the name.
    """
    table = to_arrow(index.dataset, folder=folder_of(path))
    every = [facts for name in SPLITS for facts in index.files[name]]
    for column, kind, values in (
        ("height", pa.int64(), [facts.height for facts in every]),
        ("width", pa.int64(), [facts.width for facts in every]),
        ("bytes", pa.int64(), [facts.num_bytes for facts in every]),
        ("sha256", pa.string(), [facts.sha256 for facts in every]),
        ("note", pa.string(), [facts.note for facts in every]),
    ):
        table = table.append_column(column, pa.array(values, kind))
    write_arrow(table, path)

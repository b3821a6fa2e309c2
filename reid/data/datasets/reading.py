"""What the readers share: listing folders, reading names and lists, and checking what was found.

No image is opened. Every function refuses what it does not understand with a ValueError that names
the folder or file, what it holds and what was expected.
"""

import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from reid.data import files
from reid.types import Dataset, Split

JUNK = -1
NUM_SHOWN = 3


class CountWarning(UserWarning):
    """A data set holds another number of images or identities than its authors published."""


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """How a file name or a line of a list reads: as a pattern with named groups, in words, once."""

    pattern: re.Pattern[str]
    form: str
    example: str


def find_folder(
    root: str | os.PathLike[str], *, title: str, inside: str, archive_names: Sequence[str] = ()
) -> Path:
    """Return the absolute folder that holds `inside`: `root`, or an archive's folder in it.

    Raises ValueError where none of them does.
    """
    root = Path(os.path.abspath(root))
    for folder in (root, *(root / name for name in archive_names)):
        if (folder / inside).exists():
            return folder
    places = " or in ".join(("it", *(f"{name}/" for name in archive_names)))
    raise ValueError(f"{root} is no {title}: expected {inside} in {places}")


def list_images(
    folder: Path, *, example: str, suffixes: tuple[str, ...] = (".jpg",), beside: str = ""
) -> list[str]:
    """Return the names of a folder's images, sorted; files with other suffixes are no part of it.

    `beside` names what the data set's folder should hold. Raises ValueError for a missing folder
    and for one without images.
    """
    if not folder.is_dir():
        raise ValueError(
            f"the folder {folder} is missing: expected {beside or f'files such as {example} in it'}"
        )
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.name.endswith(suffixes))
    if not names:
        raise ValueError(f"{folder} is empty: expected files such as {example}")
    return names


def shown(names: Sequence[str]) -> str:
    """Return the first of some names, and whether there are more."""
    return ", ".join(names[:NUM_SHOWN]) + (", ..." if len(names) > NUM_SHOWN else "")


def match_names(names: Sequence[str], grammar: Grammar, *, folder: Path) -> list[re.Match[str]]:
    """Match every file name of `folder`; ValueError counts and shows those outside the grammar."""
    matches = [match for name in names if (match := grammar.pattern.fullmatch(name))]
    if len(matches) < len(names):
        strange = [name for name in names if not grammar.pattern.fullmatch(name)]
        raise ValueError(
            f"{len(strange)} of {len(names)} names in {folder} do not read {grammar.form}, "
            f"as {grammar.example} does: {shown(strange)}"
        )
    return matches


def read_list(file: Path, grammar: Grammar) -> list[re.Match[str]]:
    """Match every line of a list file that is not blank, in the order of the file.

    Raises ValueError for a missing file, one without lines, and (with its number) a strange line.
    """
    if not file.is_file():
        raise ValueError(
            f"the list {file} is missing: expected lines such as {grammar.example!r} in it"
        )
    matches = []
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if not (line := line.strip()):
            continue
        if (match := grammar.pattern.fullmatch(line)) is None:
            raise ValueError(
                f"{file} line {number} is {line!r}: expected {grammar.form}, "
                f"such as {grammar.example!r}"
            )
        matches.append(match)
    if not matches:
        raise ValueError(f"{file} is empty: expected lines such as {grammar.example!r}")
    return matches


def column(matches: Iterable[re.Match[str]], group: str) -> Int64[np.ndarray, "N"]:
    """Return a named group of every match, as numbers."""
    return np.array([int(match[group]) for match in matches], dtype=np.int64)


def require_images(names: Sequence[str], folder: Path | str, *, source: Path | str) -> None:
    """Check that the images `names` (relative to `folder`), which `source` lists, are there.

    Each folder is read once; of packed images the shards are looked for. Raises ValueError that
    counts the missing images and shows the first.
    """
    held = [os.path.split(files.divide(name)[0]) for name in names]
    parents = sorted({parent for parent, _ in held})
    with files.open_threads([str(folder), *parents]) as threads:
        found = threads.map(lambda parent: files.names_in(files.join(str(folder), parent)), parents)
        present = dict(zip(parents, found, strict=True))
    missing = [
        name
        for name, (parent, file) in zip(names, held, strict=True)
        if file not in present[parent]
    ]
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(names)} images that {source} lists are not in {folder}: "
            f"{shown(missing)}"
        )


def make_split(
    names: Sequence[str], folder: Path, *, pid: Sequence[int] | np.ndarray, camid: np.ndarray
) -> Split:
    """Return the table of the images `names` (relative to the absolute `folder`), sorted by path.

    Raises ValueError where there are none.
    """
    if not len(names):
        raise ValueError(f"{folder} gives a split without images")
    path = np.array([f"{folder.as_posix()}/{name}" for name in names])
    order = np.argsort(path, kind="stable")
    return Split(
        path=path[order],
        pid=np.asarray(pid, dtype=np.int64)[order],
        camid=np.asarray(camid, dtype=np.int64)[order],
    )


def read_named(
    folder: Path,
    grammar: Grammar,
    *,
    suffixes: tuple[str, ...] = (".jpg",),
    first_camera: int = 1,
    keep_junk: bool = True,
    beside: str = "",
) -> Split:
    """Read a folder whose file names give `pid` and `cam`, cameras counted from `first_camera`.

    `keep_junk=False` leaves out pid -1. Raises ValueError as `list_images` and `match_names` do.
    """
    names = list_images(folder, example=grammar.example, suffixes=suffixes, beside=beside)
    matches = match_names(names, grammar, folder=folder)
    kept = [match for match in matches if keep_junk or int(match["pid"]) != JUNK]
    return make_split(
        [match.string for match in kept],
        folder,
        pid=column(kept, "pid"),
        camid=column(kept, "cam") - first_camera,
    )


def require_identities(train: Split, *, where: Path | str) -> None:
    """Raise ValueError where `train`, read from `where`, holds less than two identities."""
    if (found := len(np.unique(train.pid))) < 2:
        raise ValueError(f"{where} shows {found} identity; training needs 2 or more")


def read_folders(
    name: str,
    folder: Path,
    grammar: Grammar,
    *,
    folders: Mapping[str, str],
    suffixes: tuple[str, ...] = (".jpg",),
    first_camera: int = 1,
) -> Dataset:
    """Read a data set of three folders ("train", "query", "gallery") whose file names say it all.

    Training drops junk; query and gallery keep it. Raises ValueError as `read_named` and
    `require_identities` do.
    """
    splits = {
        split: read_named(
            folder / inside,
            grammar,
            suffixes=suffixes,
            first_camera=first_camera,
            keep_junk=split != "train",
            beside=", ".join(folders.values()),
        )
        for split, inside in folders.items()
    }
    require_identities(splits["train"], where=folder / folders["train"])
    return Dataset(name=name, root=str(folder), **splits)


def count(dataset: Dataset) -> dict[str, int]:
    """Return the numbers of images and identities of each split, by "train images" and so on.

    Junk (pid -1) is no identity; all distractors (pid 0) together count as one.
    """
    found = {}
    for name in ("train", "query", "gallery"):
        split: Split = getattr(dataset, name)
        found[f"{name} images"] = len(split)
        found[f"{name} identities"] = len(np.unique(split.pid[split.pid != JUNK]))
    return found


def check_counts(
    dataset_name: str, found: Mapping[str, int], published: Mapping[str, int], *, strict: bool
) -> None:
    """Compare what was found with what the authors published; only published counts are compared.

    Where they differ: ValueError if `strict`, else one `CountWarning`; both name every difference.
    """
    differences = [
        f"{found.get(name, 0)} {name} (published: {number})"
        for name, number in published.items()
        if found.get(name, 0) != number
    ]
    if not differences:
        return
    message = f"{dataset_name} is not as published: {', '.join(differences)}"
    if strict:
        raise ValueError(message)
    warnings.warn(message, CountWarning, stacklevel=4)


def as_published(dataset: Dataset, published: Mapping[str, int], *, strict: bool) -> Dataset:
    """Return `dataset` after `check_counts` of it."""
    check_counts(dataset.name, count(dataset), published, strict=strict)
    return dataset

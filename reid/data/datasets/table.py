"""Any data set as one table: a .csv or .parquet file with a row an image.

    path,pid,camid,split                 columns in any order; others are ignored
    crops/17.jpg,anna,0,train            path relative to the table's folder, or absolute
    crops/18.jpg,ben,3,query

The table may lie at s3://bucket/prefix, its images there too, and these packed into shards by
`python -m jobs.index NAME --root DIR --pack OUT` (`reid.data.files` says how images are named).
There every data set is read so, under its own name.

    pid        an identity: whole numbers stay as they are (-1 junk, 0 a distractor); where the
               column holds names, the rank of the name among the sorted names of the table
    camid      a camera, from 0; 0 throughout where the column is missing
    split      train, query or gallery
    modality   0 visible, 1 infrared; empty, or no such column, where there is one modality

`write_table` writes any data set so, and `load` reads it back as it was.
"""

import os
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
from jaxtyping import Int64, Shaped

from reid.data import files
from reid.data.datasets.reading import NUM_SHOWN, require_identities, require_images, shown
from reid.types import Dataset, Split

NAME = "table"
FILES = ("index.parquet", "index.csv")
SUFFIXES = (".parquet", ".csv")
REQUIRED = ("path", "pid", "split")
SPLITS = ("train", "query", "gallery")


def _find(root: str) -> str:
    """Return the table's file: `root`, or the first of `FILES` in it."""
    is_table = root.endswith(SUFFIXES)
    if os.path.isdir(root) or (files.is_remote(root) and not is_table):
        for name in FILES:
            if files.is_file(f"{root}/{name}"):
                return f"{root}/{name}"
        raise ValueError(
            f"{root} holds no table: expected {' or '.join(FILES)} in it, as `python -m jobs.index "
            f"NAME --root FOLDER --pack {root}` writes it"
        )
    if not files.is_file(root):
        raise ValueError(f"the table {root} is missing: expected a .csv or .parquet file there")
    check_suffix(root)
    return root


def place_of(path: str | os.PathLike[str]) -> str:
    """Return an absolute path, or an address as it is, without a "/" at its end."""
    name = os.fspath(path)
    return name.rstrip("/") if files.is_remote(name) else os.path.abspath(name)


def folder_of(path: str | os.PathLike[str]) -> str:
    """Return the absolute folder, or the address, that a table's images are relative to."""
    return os.path.dirname(place_of(path))


def check_suffix(file: str | os.PathLike[str]) -> None:
    """Raise ValueError where a file's name is not that of a table."""
    if not os.fspath(file).endswith(SUFFIXES):
        raise ValueError(f"{file} is no table: its name must end in {' or '.join(SUFFIXES)}")


def _read(file: str) -> pa.Table:
    """Read the file, dictionaries decoded; ValueError where columns are missing or have gaps."""
    source = pa.BufferReader(files.read(file)) if files.is_remote(file) else file
    try:
        if file.endswith(".csv"):
            options = pa_csv.ConvertOptions(
                column_types={"path": pa.string(), "split": pa.string()},
                null_values=[""],
                strings_can_be_null=True,
            )
            table = pa_csv.read_csv(source, convert_options=options)
        else:
            table = pa_parquet.read_table(source)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} does not read as a table: {error}") from error
    if missing := [name for name in REQUIRED if name not in table.column_names]:
        raise ValueError(
            f"{file} has no column {' and no column '.join(missing)}; "
            f"its columns are {', '.join(table.column_names)}"
        )
    for name in (*REQUIRED, "camid"):
        if name in table.column_names and (gaps := table[name].null_count):
            raise ValueError(f"{file} has {gaps} rows without {name}; fill them or take them out")
    return table


def _strings(table: pa.Table, name: str, file: str) -> Shaped[np.ndarray, "N"]:
    kind = table.schema.field(name).type
    if not _is_text(kind):
        raise ValueError(f"the column {name} of {file} is of type {kind}; expected text")
    return np.array(table[name].to_pylist(), dtype=str)


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _integers(table: pa.Table, name: str, file: str) -> Int64[np.ndarray, "N"]:
    kind = table.schema.field(name).type
    if not pa.types.is_integer(kind):
        also = " or names" if name == "pid" else ""
        shown = ", ".join(str(value) for value in table[name].slice(0, NUM_SHOWN).to_pylist())
        raise ValueError(
            f"the column {name} of {file} is of type {kind} ({shown}): expected whole numbers{also}"
        )
    return np.array(table[name].to_pylist(), dtype=np.int64)


def _pids(table: pa.Table, file: str) -> Int64[np.ndarray, "N"]:
    """Return the pid column: numbers as they are, names as their rank."""
    if not _is_text(table.schema.field("pid").type):
        return _integers(table, "pid", file)
    return np.unique(_strings(table, "pid", file), return_inverse=True)[1].astype(np.int64)


def _modality(values: Sequence[int | None], name: str, file: str) -> Int64[np.ndarray, "N"] | None:
    """Return the modality of the rows of the split `name`, None where all are empty."""
    gaps = values.count(None)
    if gaps == len(values):
        return None
    if gaps:
        raise ValueError(
            f"{file} has {gaps} of {len(values)} {name} rows without modality; fill all or none"
        )
    if strange := [value for value in values if value not in (0, 1)]:
        raise ValueError(
            f"the column modality of {file} holds {strange[0]!r}: "
            "expected 0 (visible) or 1 (infrared)"
        )
    return np.array(values, dtype=np.int64)


def _make_split(
    columns: Mapping[str, np.ndarray], rows: Int64[np.ndarray, "n"], *, name: str, file: str
) -> Split:
    """Return the rows of one split, sorted by path."""
    path = columns["path"][rows]
    unique, times = np.unique(path, return_counts=True)
    if len(repeated := unique[times > 1]):
        raise ValueError(
            f"{file} lists {len(repeated)} images more than once in the split {name}: "
            f"{shown(repeated.tolist())}"
        )
    rows = rows[np.argsort(path, kind="stable")]
    return Split(
        path=np.array(columns["path"][rows].tolist(), dtype=str),  # as wide as this split's longest
        pid=columns["pid"][rows],
        camid=columns["camid"][rows],
        modality=_modality(columns["modality"][rows].tolist(), name, file),
    )


def load(root: str | os.PathLike[str], *, strict: bool = False) -> Dataset:
    """Read a table: a .csv or .parquet file, or the folder that holds index.parquet or index.csv.

    No image is opened. `strict` has no effect: own data has no published counts to differ from.
    Without rows of query and gallery it is a data set to learn from only.
    Raises ValueError for a file that is no table, a missing column, an empty or wrong value, an
    unknown or empty split, images that are missing or twice in a split, and fewer than two training
    identities.
    """
    file = _find(place_of(root))
    folder = os.path.dirname(file)
    table = _read(file)
    split = _strings(table, "split", file)
    if unknown := sorted(set(split.tolist()) - set(SPLITS)):
        raise ValueError(
            f"{file} has the split {shown([repr(name) for name in unknown])}: "
            f"expected {', '.join(SPLITS)}"
        )
    lacking = [name for name in SPLITS if name not in set(split.tolist())]
    if lacking and lacking != ["query", "gallery"]:  # without both: a data set to learn from
        raise ValueError(
            f"{file} has no rows of the split {lacking[0]}; a data set needs train, and query and "
            "gallery or neither"
        )
    path = [files.join(folder, name) for name in _strings(table, "path", file).tolist()]
    require_images(path, folder, source=file)
    columns = {
        "path": np.array(path),
        "pid": _pids(table, file),
        "camid": np.zeros(len(path), dtype=np.int64),
        "modality": np.full(len(path), None),
    }
    if "camid" in table.column_names:
        columns["camid"] = _integers(table, "camid", file)
    if "modality" in table.column_names:
        columns["modality"] = np.array(table["modality"].to_pylist(), dtype=object)
    splits = {
        name: _make_split(columns, np.flatnonzero(split == name), name=name, file=file)
        for name in SPLITS
    }
    require_identities(splits["train"], where=file)
    return Dataset(name=NAME, root=folder, **splits)


def to_arrow(dataset: Dataset, *, folder: str | os.PathLike[str]) -> pa.Table:
    """Return all rows of a data set, split after split; paths inside `folder` are relative to it.

    There is a column `modality` where some split has one.
    """
    splits: list[tuple[str, Split]] = [(name, getattr(dataset, name)) for name in SPLITS]
    inside = f"{os.fspath(folder).rstrip('/')}/"
    columns = {
        "path": [path.removeprefix(inside) for _, split in splits for path in split.path.tolist()],
        "split": [name for name, split in splits for _ in range(len(split))],
        "pid": np.concatenate([split.pid for _, split in splits]),
        "camid": np.concatenate([split.camid for _, split in splits]),
    }
    table = pa.table(columns)
    if all(split.modality is None for _, split in splits):
        return table
    modality = [
        value
        for _, split in splits
        for value in ([None] * len(split) if split.modality is None else split.modality.tolist())
    ]
    return table.append_column("modality", pa.array(modality, pa.int64()))


def write_arrow(table: pa.Table, path: str | os.PathLike[str]) -> None:
    """Write a table as .csv or .parquet, by the name's end; the file appears when it is complete.

    Raises ValueError for another end of the name.
    """
    file = place_of(path)
    check_suffix(file)
    sink = pa.BufferOutputStream()
    write = pa_csv.write_csv if file.endswith(".csv") else pa_parquet.write_table
    write(table, sink)
    files.write(file, sink.getvalue())


def write_table(dataset: Dataset, path: str | os.PathLike[str]) -> None:
    """Write any data set as a .csv or .parquet table that `load` reads back the same.

    Images in the table's folder or below are named relative to it, so that both may move together.
    Raises ValueError for another end of the name.
    """
    write_arrow(to_arrow(dataset, folder=folder_of(path)), path)

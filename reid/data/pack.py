"""A data set's images in a few large files: what object storage reads fast.

    OUT/index.parquet                   the table; its paths are pack-00000-1f3a9c2b.parquet#NAME
    OUT/pack-00000-1f3a9c2b.parquet     a shard: columns `path` (NAME) and `bytes`, as the files
    OUT/pack-00001-90e7d1b4.parquet     were; numbered in the order of the paths

Rows keep their order, so a run on the packed set is the run on the files. A shard's name holds a
hash of its content, and the table is written last: who reads OUT while it is packed anew reads the
old set or the new one.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet

from reid.data import files
from reid.data.datasets.table import FILES, SPLITS
from reid.data.index import Index, write_index

SHARD_BYTES = 256 * 10**6

_GROUP_BYTES = 10**6  # what reading one image reads
_BLOCK = 256  # images read before they are written
_SCHEMA = pa.schema([("path", pa.string()), ("bytes", pa.binary())])


def pack(
    index: Index,
    folder: str,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write all images of an index to `folder`, local or s3://, in shards, and then their table.

    `progress` is called with (images done, images in all). Raises ValueError where images do not
    decode, or two would have one name.
    """
    if unreadable := index.unreadable():
        raise ValueError(f"{len(unreadable)} images do not decode, {next(iter(unreadable))} first")
    every = np.concatenate([getattr(index.dataset, split).path for split in SPLITS])
    paths: list[str] = np.unique(every).tolist()
    names = _names(paths)
    where: dict[str, str] = {}
    with files.open_threads(paths) as threads:
        blocks = (
            zip(names[start : start + _BLOCK], threads.map(files.read, block), strict=True)
            for start in range(0, len(paths), _BLOCK)
            for block in [paths[start : start + _BLOCK]]
        )
        images = (image for block in blocks for image in block)
        for number, (inside, content) in enumerate(_shards(images, shard_bytes=shard_bytes)):
            shard = f"pack-{number:05}-{hashlib.sha256(content).hexdigest()[:8]}.parquet"
            files.write(files.join(folder, shard), content)
            done = len(where)
            where |= zip(
                paths[done : done + len(inside)],
                [f"{shard}#{name}" for name in inside],
                strict=True,
            )
            if progress is not None:
                progress(len(where), len(paths))
    splits = {split: getattr(index.dataset, split) for split in SPLITS}
    packed = {
        name: replace(split, path=np.array([where[path] for path in split.path.tolist()]))
        for name, split in splits.items()
    }
    dataset = replace(index.dataset, **packed)
    write_index(replace(index, dataset=dataset), files.join(folder, FILES[0]))


def _names(paths: Sequence[str]) -> list[str]:
    """Return the paths without what all have in common; of packed images, their names."""
    names = [files.divide(path)[1] or path for path in paths]
    first, last = min(names), max(names)
    same = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first)
    )
    names = [name[first.rfind("/", 0, same) + 1 :] for name in names]
    if len(set(names)) < len(names):
        raise ValueError("two images of the shards would have one name; pack the files themselves")
    return names


def _shards(
    images: Iterator[tuple[str, bytes]], *, shard_bytes: int
) -> Iterator[tuple[list[str], Any]]:
    """Yield the names in each shard and its bytes."""
    write = partial(
        pa_parquet.ParquetWriter,
        schema=_SCHEMA,
        compression="none",  # images are compressed
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    )
    group: list[tuple[str, bytes]] = []
    names: list[str] = []
    num_bytes = group_bytes = 0
    sink = pa.BufferOutputStream()
    writer = write(sink)
    for image in images:
        if num_bytes >= shard_bytes:
            _write_group(writer, group)
            writer.close()
            yield names, sink.getvalue()
            sink = pa.BufferOutputStream()
            writer, group, names = write(sink), [], []
            num_bytes = group_bytes = 0
        group.append(image)
        names.append(image[0])
        num_bytes += len(image[1])
        group_bytes += len(image[1])
        if group_bytes >= _GROUP_BYTES:
            _write_group(writer, group)
            group, group_bytes = [], 0
    _write_group(writer, group)
    writer.close()
    yield names, sink.getvalue()


def _write_group(writer: Any, images: Sequence[tuple[str, bytes]]) -> None:
    if images:
        columns = [pa.array(column) for column in zip(*images, strict=True)]
        writer.write_table(pa.table(columns, schema=_SCHEMA))

"""Files by name, wherever they lie: on this machine, in object storage, or packed in a shard.

    crops/17.jpg                           a path
    s3://bucket/crops/17.jpg               an object; credentials, region and endpoint come from
                                           AWS_* variables (AWS_ENDPOINT_URL) or ~/.aws
    s3://bucket/pack-00003.parquet#17.jpg  an image in a shard, which may be local too

Throttled and broken transfers are repeated, each time after twice the pause. Reading an object
takes two requests, one for its size; reading a packed image, its row group of about 1 MB, of which
the last are kept.
"""

import errno
import hashlib
import os
import posixpath
import re
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
import pyarrow.parquet as pa_parquet
from pyarrow import fs

ATTEMPTS = 4  # each of the AWS library's ten requests over seconds
PAUSE_S = 0.5  # before the second attempt

_T = TypeVar("_T")
_NUM_THREADS = 32  # requests in flight: an object's bytes are mostly waited for
_SHARD = ".parquet#"
_KIND = re.compile(r"AWS Error (\w+)")
_CREDENTIALS = re.compile(r"(?<=://)(?:[^/@]+|[^/@]*:(?!\d+/)[^@]*)@")
_NO_BUCKET = re.compile(r"AWS Error NO_SUCH_BUCKET|Bucket '.*' not found")
_REFUSED = {
    "ACCESS_DENIED",
    "CLIENT_SIGNING_FAILURE",
    "INVALID_ACCESS_KEY_ID",
    "INVALID_CLIENT_TOKEN_ID",
    "INVALID_SIGNATURE",
    "MISSING_AUTHENTICATION_TOKEN",
    "SIGNATURE_DOES_NOT_MATCH",
    "UNRECOGNIZED_CLIENT",
}


class Absent(FileNotFoundError, ValueError):  # noqa: N818 (an object is absent)
    """An object, or an image of a shard, is not there; one line says which."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


def is_remote(name: str) -> bool:
    """Whether a name is an address and not a path of this machine."""
    return "://" in name


def join(folder: str, name: str) -> str:
    """Return a name seen from a folder, without `.` and `..`; absolute names stay."""
    if is_remote(name) or not is_remote(folder) or name.startswith("/"):
        return name if is_remote(name) else os.path.normpath(os.path.join(folder, name))
    scheme, _, rest = folder.partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(rest, name))}"


def divide(name: str) -> tuple[str, str]:
    """Return the file a name lies in and its name inside, "" where it is a file itself."""
    head, mark, inside = name.partition(_SHARD)
    return (f"{head}{_SHARD[:-1]}", inside) if mark else (name, "")


def open_system(name: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of a name, one a bucket, and the path in it."""
    if not is_remote(name):
        return fs.LocalFileSystem(), os.path.abspath(name)
    scheme, _, rest = name.partition("://")
    bucket, _, key = rest.partition("/")
    system, base = open_bucket(f"{scheme}://{bucket}")
    return system, f"{base}/{key}"


@lru_cache
def open_bucket(address: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of a bucket, one a process, and the bucket's path in it."""
    system, base = fs.FileSystem.from_uri(address)  # honours AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_S3
    return system, base


def attempt(name: str, action: Callable[[], _T]) -> _T:
    """Return `action()`, which reads or writes `name`; in object storage repeated while it fails.

    There it raises `Absent` for a missing object, ValueError for a missing bucket or refused
    credentials, and ConnectionError after `ATTEMPTS`; all in one line.
    """
    if not is_remote(name):
        return action()
    if _CREDENTIALS.search(name):  # which errors, logs and summaries would repeat
        raise ValueError(
            f"{_CREDENTIALS.sub('***@', name)}: credentials do not belong in an address; give them "
            "in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or ~/.aws"
        )
    bucket = "/".join(name.split("/")[:3])
    for number in range(ATTEMPTS):
        if number:  # callers of many names come back at different times
            spread = zlib.crc32(name.encode()) / 2**32
            time.sleep(PAUSE_S * 2 ** (number - 1) * (0.5 + spread))
        try:
            return action()
        except Absent:
            raise
        except FileNotFoundError as error:
            what = "no such object" if _has_bucket(bucket) else f"no such bucket ({bucket})"
            raise Absent(errno.ENOENT, what, name) from error
        except OSError as error:
            _refuse(name, bucket, error)
            last = error
    raise ConnectionError(f"{name} failed in {ATTEMPTS} attempts, the last with: {last}") from last


def _refuse(name: str, bucket: str, error: OSError) -> None:
    """Raise ValueError where another attempt would fail as this one did."""
    kind = found[1] if (found := _KIND.search(str(error))) else ""
    if _NO_BUCKET.search(str(error)):
        raise ValueError(f"{name}: no such bucket ({bucket})") from error
    if kind in _REFUSED:
        raise ValueError(
            f"{name} is refused ({kind}): give credentials that may use it, in AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY or ~/.aws, and check that it exists"
        ) from error


def _has_bucket(address: str) -> bool:
    try:
        system, base = open_bucket(address)
        return bool(system.get_file_info(base).type != fs.FileType.NotFound)
    except OSError:
        return True  # nothing says otherwise


def read(name: str) -> bytes:
    """Return the bytes of a file, an object or a packed image; errors as `attempt` has them."""
    file, inside = divide(name)
    if inside:
        return _shard(file).read(inside)
    if not is_remote(name):
        return Path(name).read_bytes()

    def fetch() -> bytes:
        system, path = open_system(name)
        with system.open_input_file(path) as stream:
            return bytes(stream.read(stream.size()))

    return attempt(name, fetch)


def write(name: str, data: Any) -> None:
    """Write a file: readers see the old bytes or the new ones, never a part."""

    def upload() -> None:  # an object appears when its upload is complete
        system, path = open_system(name)
        with system.open_output_stream(path) as stream:
            stream.write(data)

    if is_remote(name):
        attempt(name, upload)
        return
    path = os.path.abspath(name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{uuid4().hex}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, path) from error  # a full disk names no file
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def is_file(name: str) -> bool:
    """Whether a file or an object is there."""

    def look() -> bool:
        system, path = open_system(name)
        return bool(system.get_file_info(path).type == fs.FileType.File)

    return attempt(name, look)


def names_in(folder: str) -> set[str]:
    """Return the names directly in a folder; none where it is absent."""
    if is_remote(folder):
        return set(_listing(folder))
    if not os.path.isdir(folder):
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


def _listing(folder: str) -> dict[str, str]:
    """Return the stamps of the objects directly in a folder, by name."""

    def look() -> dict[str, str]:
        system, path = open_system(folder)
        infos = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return {info.base_name: f"{info.size} {info.mtime_ns}" for info in infos}

    return attempt(folder, look)


def open_threads(names: Sequence[str]) -> ThreadPoolExecutor:
    """Return threads to read `names` with: more of them where the bytes come over a network."""
    return ThreadPoolExecutor(_NUM_THREADS if any(map(is_remote, names)) else None)


def fingerprint(names: Sequence[str], threads: ThreadPoolExecutor, *, rule: str) -> str:
    """Return a hash of `rule`, the names, and sizes and modification times of what they name."""
    held = [divide(name)[0] for name in names]
    remote = stamps([file for file in held if is_remote(file)])
    digest = hashlib.sha256(rule.encode())
    marks = threads.map(lambda file: remote.get(file) or _stamp(file), held)
    for name, mark in zip(names, marks, strict=True):
        digest.update(f"\0{name}\0{mark}".encode())
    return digest.hexdigest()[:32]


def stamps(remote: Sequence[str]) -> dict[str, str]:
    """Return "bytes time" of each object, by its name; "missing" where there is none.

    Objects are listed a folder at a time, which is cheaper than asking for each.
    """
    folders = sorted({posixpath.dirname(file) for file in remote})
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        listings = dict(zip(folders, threads.map(_listing, folders), strict=True))
    return {
        file: listings[posixpath.dirname(file)].get(posixpath.basename(file), "missing")
        for file in remote
    }


def _stamp(path: str) -> str:
    try:
        status = Path(path).stat()
    except OSError:
        return "missing"  # which reading the file will tell
    return f"{status.st_size} {status.st_mtime_ns}"


class _Shard:
    """A Parquet file of encoded images, columns `path` and `bytes`."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._metadata: Any = None
        self._metadata = attempt(file, lambda: self._open().metadata)
        names = attempt(file, lambda: self._open().read(columns=["path"]))["path"].to_pylist()
        self._row = {name: row for row, name in enumerate(names)}
        groups = range(self._metadata.num_row_groups)
        self._ends = np.cumsum([self._metadata.row_group(group).num_rows for group in groups])
        self._locks = [Lock() for _ in groups]

    def _open(self) -> pa_parquet.ParquetFile:
        system, path = open_system(self._file)
        return pa_parquet.ParquetFile(
            system.open_input_file(path), metadata=self._metadata, page_checksum_verification=True
        )

    def read(self, name: str) -> bytes:
        """Return the bytes of one image."""
        if name not in self._row:
            raise Absent(errno.ENOENT, "no such image in the shard", f"{self._file}#{name}")
        row = self._row[name]
        group = int(np.searchsorted(self._ends, row, side="right"))
        with self._locks[group]:  # others that want the group wait for it
            column = _group(self, group)
        return bytes(column[row - int(self._ends[group])].as_py())  # counted from the group's end

    def group(self, number: int) -> Any:
        """Return the bytes of the images of one row group."""
        return attempt(self._file, lambda: self._open().read_row_group(number, ["bytes"])["bytes"])


_OPENING = Lock()


def _shard(file: str) -> _Shard:
    with _OPENING:
        return _open_shard(file)


_open_shard = lru_cache(maxsize=128)(_Shard)


@lru_cache(maxsize=64)
def _group(shard: _Shard, number: int) -> Any:
    return shard.group(number)

"""Files of a run, on local disk or S3, written whole or not at all.

In object storage what is throttled or broken is repeated (`reid.data.files.attempt`).
"""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from reid.data import files


@dataclass(frozen=True)
class Folder:
    """A folder, named by a local path or `s3://bucket/prefix`; safe to send to other processes."""

    uri: str

    def __truediv__(self, name: str) -> "Folder":
        """Return the folder inside this one."""
        return Folder(f"{self.uri.rstrip('/')}/{name}")

    @property
    def is_local(self) -> bool:
        """Whether the folder is a path of this machine."""
        return not files.is_remote(self.uri)

    @property
    def path(self) -> str:
        """The absolute path of a local folder, else the address."""
        return os.path.abspath(self.uri) if self.is_local else self.uri

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rstrip("/").rpartition("/")[2]

    def read(self, name: str) -> bytes:
        """Return a file's bytes; FileNotFoundError when it is absent."""
        return files.read(self._at(name))

    def write(self, name: str, data: bytes) -> None:
        """Write a file: readers see the old bytes or the new ones, never a part."""
        files.write(self._at(name), data)

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        return files.is_file(self._at(name))

    def names(self) -> list[str]:
        """Return the sorted names of the files and folders directly inside; none when absent."""
        return sorted(name for name in files.names_in(self.path) if not name.endswith(".tmp"))

    def delete(self, name: str) -> None:
        """Delete a file, if it is there: another process, or a repeated request, may be first."""
        with suppress(FileNotFoundError):
            files.attempt(self._at(name), partial(_delete, self._at(name)))

    def read_json(self, name: str) -> Any:
        """Return a JSON file's value."""
        return json.loads(self.read(name))

    def write_json(self, name: str, value: object) -> None:
        """Write a value as JSON."""
        self.write(name, json.dumps(value, indent=2).encode())

    def _at(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{name}"


def _delete(name: str) -> None:
    system, path = files.open_system(name)
    system.delete_file(path)

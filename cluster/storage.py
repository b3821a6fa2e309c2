"""Files of a run, on local disk or S3, written whole or not at all."""

import json
import os
import uuid
from dataclasses import dataclass
from typing import Any

from pyarrow import fs


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
        return "://" not in self.uri

    @property
    def path(self) -> str:
        """The absolute path of a local folder, else the address."""
        return os.path.abspath(self.uri) if self.is_local else self.uri

    def read(self, name: str) -> bytes:
        """Return a file's bytes; FileNotFoundError when it is absent."""
        system, root = self._open()
        with system.open_input_stream(f"{root}/{name}") as stream:
            return bytes(stream.read())

    def write(self, name: str, data: bytes) -> None:
        """Write a file: readers see the old bytes or the new ones, never a part."""
        system, root = self._open()
        path = f"{root}/{name}"
        if not self.is_local:  # an object appears when its upload is complete
            with system.open_output_stream(path) as stream:
                stream.write(data)
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = f"{path}.{uuid.uuid4().hex}.tmp"
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        system, root = self._open()
        return bool(system.get_file_info(f"{root}/{name}").type == fs.FileType.File)

    def names(self) -> list[str]:
        """Return the sorted names of the files and folders directly inside; none when absent."""
        system, root = self._open()
        infos = system.get_file_info(fs.FileSelector(root, allow_not_found=True))
        return sorted(info.base_name for info in infos if not info.base_name.endswith(".tmp"))

    def delete(self, name: str) -> None:
        """Delete a file."""
        system, root = self._open()
        system.delete_file(f"{root}/{name}")

    def read_json(self, name: str) -> Any:
        """Return a JSON file's value."""
        return json.loads(self.read(name))

    def write_json(self, name: str, value: object) -> None:
        """Write a value as JSON."""
        self.write(name, json.dumps(value, indent=2).encode())

    def _open(self) -> tuple[fs.FileSystem, str]:
        if self.is_local:
            return fs.LocalFileSystem(), os.path.abspath(self.uri)
        system, path = fs.FileSystem.from_uri(self.uri)
        return system, path

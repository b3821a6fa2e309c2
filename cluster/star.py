"""Small messages among the processes of a group, by way of rank 0.

A step of seeding moves a few hundred bytes. gloo hands them on by threads of its own, and on a
machine with fewer cores than processes each hand-over waits for a core; here a process sleeps in
`recv` and is woken once. What is large goes over the process group, each to each.
"""

import hmac
import secrets
import socket
import struct
from collections.abc import Sequence
from typing import Any

from reid import dist
from reid.dist import PeerLost

_LARGE = 64 << 10  # bytes; from here on the way through rank 0 costs more than it saves
_TOKEN_BYTES = 16
_GREETING_S = 10.0  # of a member, who sends its token at once
_LENGTH = struct.Struct("<Q")
_PLACE = "star"


class Star:
    """The connections of one process. Rank 0 has one to every other, the others one to it.

    Where one process is lost its connections end, rank 0 ends its own, and all raise PeerLost.
    """

    def __init__(self, store: Any, host: str, *, rank: int, size: int, timeout_s: float) -> None:
        """Meet the others by `store`, where all read what one wrote; raises PeerLost."""
        self.rank, self.size, self.timeout_s = rank, size, timeout_s
        self._links: list[socket.socket] = []
        try:
            if rank == 0:
                self._accept(store, host)
            else:
                self._connect(store)
        except (OSError, RuntimeError) as error:
            raise self._lost(error) from error

    def all_gather(self, data: bytes) -> Sequence[bytes | memoryview]:
        """Return every process's bytes in rank order. Raises PeerLost."""
        inline = data if len(data) < _LARGE else b""
        try:
            sizes, parts = self._exchange(len(data), inline)
        except OSError as error:
            raise self._lost(error) from error
        if max(sizes) < _LARGE:
            return parts
        padded = dist.all_gather_padded(data, length=max(sizes))
        return [part[:size] for part, size in zip(padded, sizes, strict=True)]

    def close(self) -> None:
        """End all connections."""
        for link in self._links:
            link.close()

    def _exchange(self, length: int, inline: bytes) -> tuple[list[int], list[bytes]]:
        """Return the sizes of all processes' data, and the data that came along."""
        message = _LENGTH.pack(length) + inline
        if self.rank:
            (link,) = self._links
            link.sendall(message)
            messages = [_message(link) for _ in range(self.size)]
        else:
            messages = [message, *(_message(link) for link in self._links)]
            for link in self._links:
                link.sendall(b"".join(messages))
        return [_size(each) for each in messages], [each[_LENGTH.size :] for each in messages]

    def _accept(self, store: Any, host: str) -> None:
        token = secrets.token_bytes(_TOKEN_BYTES)
        links: dict[int, socket.socket] = {}
        with socket.create_server((host, 0)) as server:
            server.settimeout(self.timeout_s)
            port = server.getsockname()[1]
            store.set(_PLACE, f"{host} {port} {token.hex()}")
            while len(links) < self.size - 1:
                link, _ = server.accept()
                rank = _greeted(link, token)
                if rank is None:  # a stranger
                    link.close()
                else:
                    self._tune(link)
                    links[rank] = link
        self._links = [links[rank] for rank in sorted(links)]

    def _connect(self, store: Any) -> None:
        host, port, token = store.get(_PLACE).decode().split()
        link = socket.create_connection((host, int(port)), timeout=self.timeout_s)
        self._tune(link)
        link.sendall(bytes.fromhex(token) + _LENGTH.pack(self.rank))
        self._links = [link]

    def _tune(self, link: socket.socket) -> None:
        link.settimeout(self.timeout_s)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _lost(self, error: Exception) -> PeerLost:
        self.close()  # so that those who wait for this process stop as well
        return PeerLost(f"process {self.rank} of {self.size} lost its group: {error}")


def _greeted(link: socket.socket, token: bytes) -> int | None:
    """Return the rank of who knocks, None where it does not know the token."""
    link.settimeout(_GREETING_S)
    try:
        if not hmac.compare_digest(_receive(link, _TOKEN_BYTES), token):
            return None
        return int(_LENGTH.unpack(_receive(link, _LENGTH.size))[0])
    except OSError:
        return None


def _message(link: socket.socket) -> bytes:
    head = _receive(link, _LENGTH.size)
    size = _LENGTH.unpack(head)[0]
    return head + (_receive(link, size) if size < _LARGE else b"")


def _size(message: bytes) -> int:
    size: int = _LENGTH.unpack_from(message)[0]
    return size


def _receive(link: socket.socket, count: int) -> bytes:
    """Return exactly `count` bytes; ConnectionError when the other end is closed."""
    data = bytearray(count)
    view = memoryview(data)
    while view:
        read = link.recv_into(view)
        if not read:
            raise ConnectionError("the connection was closed")
        view = view[read:]
    return bytes(data)

"""Messages by way of rank 0: order, strangers, losses."""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cluster.star import Star
from reid.dist import PeerLost

SIZE = 3


class Store:
    """What all read that one wrote, as torch's TCPStore."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.changed = threading.Condition()

    def set(self, name: str, value: str) -> None:
        with self.changed:
            self.values[name] = value.encode()
            self.changed.notify_all()

    def get(self, name: str) -> bytes:
        with self.changed:
            assert self.changed.wait_for(lambda: name in self.values, timeout=10)
            return self.values[name]


def together(act: Callable[[int], Any]) -> list[Any]:
    """Return what each rank returns or raises."""

    def one(rank: int) -> Any:
        try:
            return act(rank)
        except PeerLost as error:
            return error

    with ThreadPoolExecutor(SIZE) as threads:
        return list(threads.map(one, range(SIZE)))


def meet(store: Store, *, timeout_s: float = 20.0) -> list[Star]:
    at = {"size": SIZE, "timeout_s": timeout_s}
    stars = together(lambda rank: Star(store, "127.0.0.1", rank=rank, **at))
    assert all(isinstance(star, Star) for star in stars), stars
    return stars


def test_all_bring_and_get_bytes_of_any_small_size_in_rank_order() -> None:
    stars = meet(Store())
    for turn in range(50):
        brought = [bytes([rank, turn]) * (rank * 37 * turn) for rank in range(SIZE)]
        found = together(lambda rank, brought=brought: stars[rank].all_gather(brought[rank]))
        assert found == [brought] * SIZE


def test_a_stranger_is_turned_away() -> None:
    store = Store()
    store_get = store.get

    def get_after_a_stranger(name: str) -> bytes:
        value = store_get(name)
        host, port, _ = value.decode().split()
        with socket.create_connection((host, int(port)), timeout=10) as stranger:
            stranger.sendall(b"x" * 16)
            assert stranger.recv(1) == b""  # closed at once
        socket.create_connection((host, int(port)), timeout=10).close()  # and one says nothing
        return value

    store.get = get_after_a_stranger  # type: ignore[method-assign]
    stars = meet(store)
    found = together(lambda rank: stars[rank].all_gather(b"%d" % rank))
    assert found == [[b"0", b"1", b"2"]] * SIZE


@pytest.mark.parametrize("lost", range(SIZE))
def test_all_hear_at_once_that_one_is_lost(lost: int) -> None:
    stars = meet(Store())
    started = time.monotonic()

    def act(rank: int) -> Any:
        if rank == lost:
            stars[rank].close()
            return None
        return stars[rank].all_gather(b"here")

    found = together(act)
    assert time.monotonic() - started < 5
    assert [isinstance(each, PeerLost) for each in found] == [rank != lost for rank in range(SIZE)]


def test_one_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    stars = meet(Store(), timeout_s=0.5)
    found = together(lambda rank: stars[rank].all_gather(b"here") if rank != 2 else None)
    assert "process 0 of 3 lost its group: timed out" in str(found[0])
    assert isinstance(found[1], PeerLost)

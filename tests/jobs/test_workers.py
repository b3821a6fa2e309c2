"""What the benchmark of workers notes of the driver, and how it is shown."""

import shutil
import socket

import pytest

from jobs.benchmarks import workers
from jobs.benchmarks.workers import Meter, connections, table_of


@pytest.mark.skipif(shutil.which("ss") is None, reason="needs ss, of iproute2")
def test_connections_count_what_this_process_moves() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
        ends = " ".join(f"{host}:{port}" for host, port in (near.getsockname(), far.getsockname()))
        before = connections().get(ends, 0)
        near.sendall(bytes(100_000))
        left = 100_000
        while left:
            left -= len(far.recv(left))
        assert connections()[ends] - before == 100_000
        near.close()
        far.close()


def test_meter_takes_medians_of_rounds_but_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, int, int, str]] = []
    moved = iter(range(0, 100_000, 2048))
    monkeypatch.setattr(workers, "connections", lambda: {"one": next(moved)})
    meter = Meter(lambda *line: shown.append(line))
    for round in range(1, 4):
        meter.show(f"round {round}/3: train", 0, 2, "")
        meter.show(f"round {round}/3: train", 2, 2, "loss 1")
    assert len(shown) == 6
    assert list(meter.rounds) == [f"round {round}/3: train" for round in (1, 2, 3)]
    assert meter.a_round()["driver_kib"] == 4
    assert Meter(lambda *line: None).a_round()["driver_kib"] is None


def test_table_has_a_line_a_run() -> None:
    shares = {"extract": 0.3, "exchange": 0.1, "cluster": 0.1, "train": 0.5}
    row = {
        "workers": 1, "images": 64, "round_s": 2.0, "images_per_s": 50.0,
        "efficiency": None, "possible": 1.0,
        **{f"{part}_share": share for part, share in shares.items()},
        "driver_kib": 12.0, "driver_own_kib": 0.0, "driver_mapped_kib": None,
    }  # fmt: skip
    table = table_of([row, {**row, "workers": 2, "efficiency": 0.8}])
    assert table.row_count == 2
    assert list(table.columns[4].cells) == ["", "80 %"]

"""What benchmarks share: turns, rows and tables; the cases of some of them."""

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from jobs.benchmark import main
from jobs.benchmarks import clustering, data, messaging, timing
from reid.data.encoded_store import EncodedStore
from reid.data.pixel_store import PixelStore


@pytest.mark.parametrize("warm", [False, True])
def test_turns_alternate_and_the_first_is_not_measured(warm: bool) -> None:
    calls: list[str] = []
    cases = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = timing.interleaved(cases, repeats=2, warm=warm)
    assert calls == ["a", "b"] * (not warm) + ["a", "b", "b", "a"]
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}
    assert timing.median_ratio([2.0, 9.0, 4.0], [1.0, 1.0, 4.0]) == 2.0


def counted(clock: list[float], **changes: Any) -> timing.Case:
    """Return a case of a second each run, the peer's of two, that returns when it began."""

    def run(seconds: float) -> float:
        clock[0] += seconds
        return clock[0] - seconds

    def parity(ours: tuple[float, ...], theirs: tuple[float, ...]) -> str:
        return f"{ours} {theirs} {clock[0]}"

    sides = {"ours": lambda: run(1.0), "theirs": lambda: run(2.0)}
    return timing.Case(name="x", peer="y", parity=parity, **sides, **changes)


def test_a_case_is_measured_after_its_parity(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(timing, "cpu_seconds", lambda: clock[0])
    case = counted(clock, tries=2, peak_mib=lambda: (1.0, 2.0))
    row = timing.measured(case, repeats=3)
    assert row["parity"] == "(0.0, 3.0) (1.0, 4.0) 6.0"
    assert clock == [6 + 9]
    assert (row["ours_cpu_s"], row["peer_cpu_s"], row["ratio"]) == (1, 2, 2)
    assert (row["ours_peak_mib"], row["peer_peak_mib"]) == (1, 2)


def test_times_are_of_a_unit_and_of_all_the_peers_work(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(timing, "cpu_seconds", lambda: clock[0])
    row = timing.measured(counted(clock, units=4, share=0.1), repeats=3)
    assert (row["ours_cpu_s"], row["peer_cpu_s"], row["ratio"]) == (0.25, 5, 20)
    assert row["ours_peak_mib"] is None


def test_processor_time_is_counted_with_that_of_ended_children() -> None:
    before = timing.cpu_seconds()
    code = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert 0.3 <= timing.cpu_seconds() - before < 3


def test_data_cases_make_a_pass_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    num_read = multiprocessing.Value("q")  # shared: the peer reads in other processes

    def count(owner: type, name: str) -> None:
        read = getattr(owner, name)

        def counted(self: Any, rows: Any) -> Any:
            with num_read.get_lock():
                num_read.value += np.size(rows)
            return read(self, rows)

        monkeypatch.setattr(owner, name, counted)

    count(data.Peer, "__getitem__")
    count(EncodedStore, "read")
    count(EncodedStore, "encoded")
    count(PixelStore, "read")
    paths = data.write_images(tmp_path, 40, 20, 90, count=2 * data.BATCH)
    cases = data.loader_cases(paths, tmp_path)
    assert len(cases) == 6
    for name, case in cases.items():
        num_read.value = 0
        case()
        assert num_read.value == len(paths), name
    batches = torch.utils.data.DataLoader(data.Peer(list(paths)), batch_size=4)
    assert next(iter(batches)).shape == (4, 3, data.HEIGHT, data.WIDTH)


def test_rows_compare_with_the_peer_under_the_names_of_the_api() -> None:
    row = timing.compared(
        "small: x", [1.0, 1.0], peer="p", theirs=[2.0, 4.0], parity="equal", per=10
    )
    assert row == {
        "case": "small: x",
        "ours_cpu_s": 0.1,
        "peer": "p",
        "peer_cpu_s": 0.3,
        "ratio": 3.0,
        "ours_peak_mib": None,
        "peer_peak_mib": None,
        "parity": "equal",
    }
    with_memory = timing.compared(
        "large: x", [1.0], peer="p", theirs=[2.0], parity="equal", peak_mib=(10.0, 200.0)
    )
    without = timing.compared("large: y", [3.0], peer="p", theirs=[6.0], parity="equal")
    console = Console(width=120)
    with console.capture() as capture:
        console.print(timing.tables_of_compared([row, with_memory, without]))
    small, large = capture.get().split("large, against p")
    assert "small, against p" in small
    for text, table in (("100 ms │ 300 ms │         3.0", small), ("1 s │  2 s │", large)):
        assert text in table
    assert "10 / 200" in large
    assert "3 s │  6 s │" in large
    assert "MiB" not in small


def test_data_parity_is_found_before_times(tmp_path: Path) -> None:
    paths = data.write_images(tmp_path, 40, 20, 90, count=8)
    parity = data.decoding_parity(paths)
    assert parity["torch"] == "grey levels apart: mean 0.00, most 0"
    Image.new("RGB", (20, 40)).save(paths[0])
    assert parity["dali"] != data.decoding_parity(paths)["dali"]


@pytest.fixture
def few_identities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sampler of the data benchmark draw from 70 identities: 2 batches of 32 a pass."""
    monkeypatch.setattr(data, "NUM_IMAGES_OF_ALL", 1400)
    monkeypatch.setattr(data, "NUM_IDENTITIES_OF_ALL", 70)


# Of 20 images on 50 cameras there is always one of another camera.
@pytest.mark.parametrize(("num_cameras", "others"), [(1, "0.0"), (50, "100.0")])
def test_sampler_parity_is_found_before_times(
    num_cameras: int, others: str, few_identities: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "NUM_CAMERAS", num_cameras)
    index, camid, _ = data.sampler_cases()
    assert data.sampler_parity(index, camid) == (
        f"each once, 4 images of it, {others} % of other cameras"
    )
    drawn = data.pk_rows
    for wrong in (
        lambda *args, **at: np.roll(drawn(*args, **at), 1),  # images of two identities together
        lambda *args, **at: drawn(*args, **{**at, "step": 0}),  # one batch again and again
    ):
        monkeypatch.setattr(data, "pk_rows", wrong)
        with pytest.raises(ArithmeticError, match="draws other identities than the loop"):
            data.sampler_parity(index, camid)


def test_sampler_cases_draw_their_passes(
    few_identities: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(data, "pk_rows", lambda _, **at: asked.append((at["round"], at["step"])))
    data.sampler_cases()[2]["pk_rows"]()
    assert asked == [(round, step) for round in range(data.PASSES) for step in (0, 1)]


def test_data_times_are_of_an_image_and_of_an_identity(
    few_identities: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, seen = [0.0], []

    def taking(seconds: float) -> Callable[[], None]:
        return lambda: clock.__setitem__(0, clock[0] + seconds)

    decoding, warm = "dali_loader, decoding each time", "dali_loader, PixelStore warm"
    loaders = {data.PEER: taking(8.0), decoding: taking(2.0), warm: taking(1.0)}
    samplers = {"loop": taking(128.0), "pk_rows": taking(64.0 * data.PASSES)}
    monkeypatch.setattr(timing, "cpu_seconds", lambda: clock[0])
    monkeypatch.setattr(data, "KINDS", {"small": (40, 20, 90)})
    monkeypatch.setattr(data, "decoding_parity", lambda _: {"torch": "same", "dali": "near"})
    monkeypatch.setattr(data, "loader_cases", lambda *_: loaders)
    monkeypatch.setattr(data, "sampler_cases", lambda: (None, None, samplers))
    monkeypatch.setattr(data, "sampler_parity", lambda *_: "each once")
    monkeypatch.setattr(data, "BATCH", 4)
    options = data.Options(num_images=4, repeats=2)
    rows = data.measure(options, show=lambda _, done, total, __: seen.append(done / total))
    columns = ("case", "ours_cpu_s", "peer_cpu_s", "ratio", "parity")
    assert [tuple(row[column] for column in columns) for row in rows] == [
        (f"small: {decoding}", 2 / 4, 8 / 4, 4.0, "near"),
        (f"small: {warm}", 1 / 4, 8 / 4, 8.0, "same"),
        ("identities of VERI-Wild: pk_rows", 64 / 64, 128 / 64, 2.0, "each once"),
    ]
    assert seen == [0.0, 0.5, 1.0]
    with pytest.raises(ValueError, match="num_images is 6; give a multiple of a batch's 4"):
        data.measure(data.Options(num_images=6), show=lambda *_: None)


def test_clustering_measures_the_cases_of_both_parts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[Any, ...]] = []
    for module in (clustering.clustering_kmeans, clustering.clustering_sparse):
        monkeypatch.setattr(
            module,
            "cases",
            lambda features, *rest: asked.append((features.shape, *rest)) or [counted([0.0])],
        )
    file = tmp_path / "rows.json"
    main(["clustering", "--num-images", "60", "--num-features", "8", "--json", str(file)])
    result = json.loads(file.read_text())
    assert result["what"] == "clustering"
    assert [row["case"] for row in result["rows"]] == ["k-means: x", "clustering: x"]
    assert asked == [((60, 8), 700), ((60, 8),)]


def test_durations() -> None:
    assert [timing.duration(s) for s in (12.34, 0.5, 2.5e-6, 3e-8)] == [
        "12.3 s",
        "500 ms",
        "2.5 us",
        "30 ns",
    ]


def test_rows_are_shown_and_kept_in_a_folder_that_was_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, seen = tmp_path / "new" / "rows.json", []

    def measure(options: Any, *, show: Any) -> list[dict[str, int]]:
        assert file.parent.is_dir()  # before, not after hours
        return [{"x": 1}]

    def table_of(rows: Any) -> str:
        seen.append(file.exists())
        return "table"

    monkeypatch.setattr(messaging, "measure", measure)
    monkeypatch.setattr(messaging, "table_of", table_of)
    main(["messaging", "--json", str(file)])
    assert json.loads(file.read_text())["rows"] == [{"x": 1}]
    assert seen == [False]

"""The comparison of methods: what is run, from which start, for how many rounds, and its rows."""

import json
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from jobs import train
from jobs.benchmark import main
from jobs.benchmarks import methods
from jobs.benchmarks.methods import Options, arguments_of, finished, measure, table_of
from jobs.benchmarks.methods_cases import ABLATIONS, cases_of, run_of
from jobs.benchmarks.methods_figure import apart, ranked
from jobs.benchmarks.timing import memory_kib
from jobs.tables import spread
from reid.recipes import RUNS

MAP = {"source": 0.3, "supervised": 0.9, "mean_teacher": 0.5, "spcl": 0.4, "pplr": 0.4, "mmt": 0.4}


def silent(*_: object) -> None:
    """Show nothing."""


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, str]]:
    """Replace training by made scores, a point more each seed; return each run's options."""
    seen: list[dict[str, str]] = []

    def run(command: Sequence[str]) -> tuple[dict[str, Any], dict[str, float]]:
        method = command[0].removesuffix("-demo")
        words = iter(command[1:])
        given = {"run": method}
        for word in words:
            key = word.removeprefix("--")
            given[key] = "" if key.startswith("no-") else next(words)
        seen.append(given)
        Path(given["cluster.storage"], given["name"]).mkdir(parents=True, exist_ok=True)
        worse = 0.15 if "memory" in given else 0.0
        score = {"mAP": MAP[method] + 0.01 * int(given["seed"]) - worse, "rank1": 0.5}
        is_source = method in ("source", "supervised")
        summary = {
            "direct_transfer": score,
            "adapted": None if is_source else score,
            "config_hash": "abc",
            "rounds": [
                {"round": 0, "mAP": 0.2, "ari": None, "seconds": {"train": 1.0, "extract": 2.0}},
                {
                    "round": 1,
                    "mAP": score["mAP"],
                    "ari": 0.7,
                    "seconds": {"train": 4.0, "extract": 1.0},
                },
            ],
        }
        return summary, {"peak_mib": 100.0 + len(seen), "cpu_s": 10.0 * len(seen)}

    monkeypatch.setattr(methods, "finished", run)
    monkeypatch.setattr(methods, "draw_worlds", lambda *_, **__: None)
    return seen


def test_methods_share_a_start_and_a_budget(commands: list[dict[str, str]], tmp_path: Path) -> None:
    options = Options(
        seeds=2, worlds=("vehicle",), only=("mean_teacher", "pplr"), storage=str(tmp_path)
    )
    rows = measure(options, show=silent)
    assert [(row["case"], row["seed"]) for row in rows] == [
        (case, seed)
        for seed in (1, 2)
        for case in ("direct transfer", "supervised", "mean_teacher", "pplr")
    ]
    of = {(given["run"], given["seed"]): given for given in commands}
    adapted, alone = of["mean_teacher", "2"], of["pplr", "2"]
    assert adapted["initial"] == str(tmp_path / "vehicle-source-seed2")
    # Three times the persons' 5 and 8.
    assert (of["source", "2"]["num-rounds"], adapted["num-rounds"]) == ("15", "24")
    assert alone["num-rounds"] == "39"
    assert "initial" not in alone
    assert (adapted["source"], adapted["target"]) == ("synthetic_vehicle_a", "synthetic_vehicle_b")
    assert {(given["height"], given["width"]) for given in commands} == {("48", "48")}
    assert of["supervised", "1"]["source"] == "synthetic_vehicle_b"
    row = next(row for row in rows if (row["case"], row["seed"]) == ("mean_teacher", 2))
    assert row["gain"] == pytest.approx(0.2)
    assert row["gain_of_rounds"] == pytest.approx(0.32)
    assert (row["ari"], row["round_s"]) == (0.7, 4.0)
    assert row["curve"] == [[16, 0.2], [17, pytest.approx(0.52)]]  # behind 15 of the source
    console = Console(width=140)
    with console.capture() as capture:
        console.print(table_of(rows))
    assert "51.5 ± 0.7" in capture.get()  # of 51 and 52 %


def test_a_second_start_shares_the_first_rounds_and_has_as_many(
    commands: list[dict[str, str]], tmp_path: Path
) -> None:
    options = Options(seeds=1, worlds=("person",), only=("mmt",), storage=str(tmp_path))
    measure(options, show=silent)
    of = {(given["run"], given["seed"]): given for given in commands}
    first, second = (str(tmp_path / f"person-source-seed{seed}") for seed in (1, 1001))
    begun = next(given for given in commands if given["name"] == "person-source_begun-seed1")
    assert (begun["run"], begun["seed"], begun["num-rounds"]) == ("source", "1", "2")
    assert of["source", "1001"]["initial"] == str(tmp_path / begun["name"])
    assert of["source", "1001"]["num-rounds"] == "3"
    (whole,) = (given for given in commands if given["name"] == "person-source-seed1")
    assert ("initial" not in whole, whole["num-rounds"]) == (True, "5")
    assert (of["mmt", "1"]["initial"], of["mmt", "1"]["second-initial"]) == (first, second)


def test_memory_and_time_are_of_the_first_time(
    commands: list[dict[str, str]], tmp_path: Path
) -> None:
    options = Options(seeds=1, worlds=("person",), only=("spcl",), storage=str(tmp_path))
    first, again = measure(options, show=silent), measure(options, show=silent)
    for figure in ("peak_mib", "cpu_s"):
        assert [row[figure] for row in again] == [row[figure] for row in first]


def test_cases_are_the_demos_and_variants_change_options_that_exist() -> None:
    vary = ("lf2 --batches three --num-rounds 2", "lf2 --batches=three --num-rounds=2")
    cases = cases_of(ablations=True, vary=vary)
    demos = {name.removesuffix("-demo") for name in RUNS if name.endswith("-demo")}
    assert {case.method for case in cases} == demos - {"source", "supervised"}
    whole = [case for case in cases if not case.changes]
    assert {case.name for case in whole} == {case.method for case in whole}
    assert {case.name for case in cases} >= {*ABLATIONS, *vary}
    for case in cases:
        run = run_of("person", 1, case, source_rounds=5, rounds=8)
        own = train.parse(arguments_of(Options(), run)).config
        if case.name in vary:
            assert (own.num_rounds, own.batches) == (2, "three")  # type: ignore[union-attr]
    assert {case.method for case in cases_of(("pplr",), ablations=True)} == {"pplr"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(only=("magic",)), "there is no method 'magic'; known are"),
        (Options(vary=("magic --lr 1",)), "there is no method 'magic'; known are"),
        (Options(at_once=0), "at_once is 0; it must be at least 1"),
    ],
)
def test_wrong_options_end_before_any_run(
    commands: list[dict[str, str]], options: Options, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        measure(options, show=silent)
    assert not commands


def test_a_wrong_option_of_a_variant_ends_before_any_run(
    commands: list[dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["methods", "--only", "spcl", "--vary", "spcl --memry kept"])
    assert ended.value.code == 2
    assert "--memry" in capsys.readouterr().err
    assert not commands


def test_a_variant_says_what_its_part_buys(commands: list[dict[str, str]], tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    place = ["--storage", str(tmp_path), "--worlds", "person", "--json", str(file)]
    main(
        [
            "methods",
            *place,
            "--only",
            "spcl",
            "--vary",
            "spcl --memory kept",
            "pplr --onehot-weight 1",
        ]
    )
    rows = json.loads(file.read_text())["rows"]
    of = {(row["case"], row["seed"]): row for row in rows}
    assert len(rows) == len(of) == 5 * 3
    for seed in (1, 2, 3):
        assert of["spcl --memory kept", seed]["buys"] == pytest.approx(0.15)
        assert of["spcl", seed]["buys"] is None
        assert of["pplr --onehot-weight 1", seed]["buys"] is None  # PPLR itself was not asked for
    folders = {Path(given["name"]) for given in commands if given.get("memory") == "kept"}
    assert folders == {Path(f"person-spcl_--memory_kept-seed{seed}") for seed in (1, 2, 3)}


def test_runs_at_a_time_wait_for_what_they_start_from(
    commands: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, most, running = set[str](), 0, 0
    lock, run = threading.Lock(), methods.finished

    def slow(command: Sequence[str]) -> tuple[dict[str, Any], dict[str, float]]:
        nonlocal most, running
        with lock:
            running += 1
            most = max(most, running)
            result = run(command)
            given = commands[-1]
            for field in ("initial", "second-initial"):
                assert field not in given or Path(given[field]).name in made
        time.sleep(0.02)
        with lock:
            running -= 1
            made.add(given["name"])
        return result

    monkeypatch.setattr(methods, "finished", slow)
    options = Options(only=("mmt", "spcl", "pplr"), at_once=3, storage=str(tmp_path))
    rows = measure(options, show=silent)
    assert most == 3
    assert len(rows) == 2 * 3 * 5
    assert len(made) == len(commands) == 2 * 3 * (5 + 2)  # each once; MMT's second start has two


def test_after_a_failure_no_run_begins(
    commands: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def fails(command: Sequence[str]) -> tuple[dict[str, Any], dict[str, float]]:
        begun.append(command[0])
        raise RuntimeError("no room")

    monkeypatch.setattr(methods, "finished", fails)
    with pytest.raises(RuntimeError, match="no room"):
        measure(Options(only=("spcl",), at_once=1, storage=str(tmp_path)), show=silent)
    assert 1 <= len(begun) < 2 * 3


def test_the_figure_has_all_worlds_best_first_and_names_apart(
    commands: list[dict[str, str]], tmp_path: Path
) -> None:
    options = Options(only=("mean_teacher", "spcl"), ablations=True, storage=str(tmp_path))
    rows = measure(options, show=silent)
    with Image.open(tmp_path / "methods.png") as image:
        assert image.size == (1500, 960)
    assert ranked(rows) == ["mean_teacher", "spcl"]
    assert apart([9.0, 8.5, 4.0, 3.0], 2.0) == [9.0, 7.0, 4.0, 2.0]


def test_mean_and_deviation() -> None:
    values = [0.5, 0.6, 0.75]
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    assert spread(values) == f"{100 * mean:.1f} ± {100 * deviation:.1f}"
    assert (spread([0.5]), spread([])) == ("50.0", "")


def test_a_run_tells_its_memory_and_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(methods.train, "main", lambda arguments: print(json.dumps(arguments)))
    start = time.process_time()
    methods.main(["spcl-demo", "--seed", "1"])
    said, process = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert said == ["spcl-demo", "--seed", "1"]
    assert 50 < process["peak_mib"] <= memory_kib("VmHWM") / 1024
    assert start <= process["cpu_s"] <= time.process_time()
    assert memory_kib("VmRSS") <= memory_kib("VmHWM")


def test_a_run_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"ended with 2: .*there is no run 'sbcl-demo'"):
        finished(["sbcl-demo"])

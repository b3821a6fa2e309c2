"""The comparison of methods: what is run, from which start, for how many rounds, and its rows."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jobs.benchmarks import methods
from jobs.benchmarks.methods import Options, cases_of, finished, measure, table_of
from jobs.benchmarks.timing import memory_kib
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
        score = {"mAP": MAP[method] + 0.01 * int(given["seed"]), "rank1": 0.5}
        is_source = method in ("source", "supervised")
        summary = {
            "direct_transfer": score,
            "adapted": None if is_source else score,
            "config_hash": "abc",
            "rounds": [
                {"mAP": 0.2, "ari": None, "seconds": {"train": 1.0, "extract": 2.0}},
                {"mAP": score["mAP"], "ari": 0.7, "seconds": {"train": 4.0, "extract": 1.0}},
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
    assert (of["source", "2"]["num-rounds"], adapted["num-rounds"]) == ("5", "8")
    assert alone["num-rounds"] == "13"
    assert "initial" not in alone
    assert (adapted["source"], adapted["target"]) == ("synthetic_vehicle_a", "synthetic_vehicle_b")
    assert {(given["height"], given["width"]) for given in commands} == {("48", "48")}
    assert of["supervised", "1"]["source"] == "synthetic_vehicle_b"
    row = next(row for row in rows if (row["case"], row["seed"]) == ("mean_teacher", 2))
    assert row["gain"] == pytest.approx(0.2)
    assert row["gain_of_rounds"] == pytest.approx(0.32)
    assert (row["ari"], row["round_s"]) == (0.7, 4.0)
    console = Console(width=140)
    with console.capture() as capture:
        console.print(table_of(rows))
    assert "51.5 ± 0.7" in capture.get()  # of 51 and 52 %


def test_a_second_start_has_its_own_seed_and_begins_with_the_first(
    commands: list[dict[str, str]], tmp_path: Path
) -> None:
    options = Options(seeds=1, worlds=("person",), only=("mmt",), storage=str(tmp_path))
    measure(options, show=silent)
    of = {(given["run"], given["seed"]): given for given in commands}
    first, second = (str(tmp_path / f"person-source-seed{seed}") for seed in (1, 1001))
    assert "initial" not in of["source", "1"]
    assert of["source", "1001"]["initial"] == first
    assert (of["mmt", "1"]["initial"], of["mmt", "1"]["second-initial"]) == (first, second)


def test_memory_and_time_are_of_the_first_time(
    commands: list[dict[str, str]], tmp_path: Path
) -> None:
    options = Options(seeds=1, worlds=("person",), only=("spcl",), storage=str(tmp_path))
    first, again = measure(options, show=silent), measure(options, show=silent)
    for figure in ("peak_mib", "cpu_s"):
        assert [row[figure] for row in again] == [row[figure] for row in first]


def test_cases_are_the_demos_and_ablations_change_options_that_exist() -> None:
    cases = cases_of(Options(ablations=True))
    demos = {name.removesuffix("-demo") for name in RUNS if name.endswith("-demo")}
    assert {case.method for case in cases} == demos - {"source", "supervised"}
    for case in cases:
        config = RUNS[f"{case.method}-demo"]
        for option in case.changes:
            assert hasattr(config, option.removeprefix("no-").replace("-", "_")), case.name
    with pytest.raises(ValueError, match="there is no method 'magic'"):
        cases_of(Options(only=("magic",)))


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

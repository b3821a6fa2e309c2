"""docs/model_zoo.md: that it is what the runs say, and how our figures come into it."""

import json
from pathlib import Path

from jobs import zoo
from reid.override import config_hash
from reid.recipes import RUNS

DOCUMENT = Path(__file__).parents[2] / "docs" / "model_zoo.md"


def line_of(text: str, run: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if f"`python -m jobs.train {run}`" in line]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_document_is_what_the_generator_writes() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == zoo.document(zoo.kept(text)), "run `python -m jobs.zoo` and commit the file"


def test_every_run_has_a_line_with_its_hash_and_what_its_paper_says() -> None:
    text = zoo.document({})
    assert all(line_of(text, name)[-1] == f"`{config_hash(run)}`" for name, run in RUNS.items())
    expected = ["market1501", "cuhk03_np", "resnet101"]
    line = line_of(text, "core_reid_v2-market1501-cuhk03_np")
    assert line[:3] == expected
    assert line[4:7] == ["66.4 / 66.9", "main tables", ""]
    assert line_of(text, "core_reid_v2-vehicleid_800-veri776-resnet18")[4] == "40.17 / 73.00"
    assert line_of(text, "core_reid_v2-demo")[4:7] == ["", "", ""]


def test_our_figures_come_from_runs_and_stay_while_the_config_does(tmp_path: Path) -> None:
    adapted, source = "lf2-demo", "source-demo"
    scores = {"mAP": 0.70349, "rank1": 0.9}
    for name, summary in {
        adapted: {"direct_transfer": {"mAP": 0.1, "rank1": 0.2}, "adapted": scores},
        source: {"direct_transfer": {"mAP": 0.1, "rank1": 0.2}, "adapted": None},
    }.items():
        folder = tmp_path / "runs" / f"{name}-of-mine"
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(
            json.dumps({"config_hash": config_hash(RUNS[name]), **summary})
        )
    (tmp_path / "runs" / "search-of-mine").mkdir()
    (tmp_path / "runs" / "search-of-mine" / "summary.json").write_text('{"search": "x"}')
    out = tmp_path / "docs" / "zoo.md"
    zoo.main(zoo.Options(out=str(out), results=str(tmp_path / "runs")))
    first = out.read_text(encoding="utf-8")
    assert line_of(first, adapted)[6] == "70.3 / 90.0"
    assert line_of(first, source)[6] == "10.0 / 20.0"
    assert sum(bool(ours.strip()) for ours, _ in zoo.OURS.findall(first)) == 2
    zoo.main(zoo.Options(out=str(out)))
    assert out.read_text(encoding="utf-8") == first
    out.write_text(first.replace(config_hash(RUNS[adapted]), "0" * 12), encoding="utf-8")
    zoo.main(zoo.Options(out=str(out)))
    assert line_of(out.read_text(encoding="utf-8"), adapted)[6] == ""

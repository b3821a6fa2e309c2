"""The evaluation command: the run's own scores, as JSON; its words on wrong input."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs import evaluate

Capture = pytest.CaptureFixture[str]


def options(tiny_runs: Any, **changes: str) -> evaluate.Options:
    settings: dict[str, Any] = {
        "checkpoint": f"{tiny_runs.place.storage}/{tiny_runs.name}",
        "dataset": "synthetic_b",
        "root": f"{tiny_runs.place.data_root}/synthetic_b",
        "cache": f"{tiny_runs.place.storage}/cache",
    }
    return evaluate.Options(**{**settings, **changes})


def printed(asked: evaluate.Options, capsys: Capture) -> Any:
    evaluate.main(asked)
    return json.loads(capsys.readouterr().out)


def refusal(asked: evaluate.Options, capsys: Capture) -> str:
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(asked)
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    return line


def test_last_checkpoint_scores_as_the_run_did(tiny_runs: Any, capsys: Capture) -> None:
    found = printed(options(tiny_runs), capsys)
    assert found.pop("num_valid_queries") == 4 * 2
    assert found == tiny_runs.summary["adapted"]


def test_source_checkpoint_scores_direct_transfer(tiny_runs: Any, capsys: Capture) -> None:
    found = printed(options(tiny_runs, checkpoint=tiny_runs.source), capsys)
    del found["num_valid_queries"]
    assert found == tiny_runs.summary["direct_transfer"]


def test_earlier_checkpoint_file_scores_its_round(tiny_runs: Any, capsys: Capture) -> None:
    folder = Path(tiny_runs.place.storage, tiny_runs.name, "checkpoints")
    first = min(folder.iterdir())
    found = printed(options(tiny_runs, checkpoint=str(first)), capsys)
    assert found["mAP"] == tiny_runs.summary["rounds"][0]["mAP"]


def test_absent_checkpoint(tiny_runs: Any, capsys: Capture, tmp_path: Path) -> None:
    line = refusal(options(tiny_runs, checkpoint=f"{tmp_path}/absent"), capsys)
    assert f"there is no checkpoint in {tmp_path}/absent" in line


def test_unknown_data_set(tiny_runs: Any, capsys: Capture) -> None:
    line = refusal(options(tiny_runs, dataset="market1502"), capsys)
    assert "there is no data set 'market1502'; did you mean market1501" in line


def test_missing_folder(tiny_runs: Any, capsys: Capture, tmp_path: Path) -> None:
    line = refusal(options(tiny_runs, root=f"{tmp_path}/nowhere"), capsys)
    assert f"{tmp_path}/nowhere is no Market-1501" in line

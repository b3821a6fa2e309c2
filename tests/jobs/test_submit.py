"""jobs.submit's command line: what is refused before anything is sent, and what is asked for."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.submission import ADDRESS_VARIABLES, JobState
from jobs import submit
from jobs.submit import Options, checked, commands, main, request

TRAIN = shlex.split(
    "train core_reid_v2-demo --num-rounds 3 --cluster.storage s3://bucket/runs "
    "--cluster.data-root /shared/data"
)
OPTIONS = Options()


def test_every_command_can_be_submitted() -> None:
    files = Path(submit.__file__).parent.glob("*.py")
    runnable = {file.stem for file in files if '__name__ == "__main__"' in file.read_text()}
    assert set(commands()) == runnable - {"submit"}


@pytest.mark.parametrize("command", commands())
def test_every_command_can_be_checked(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        checked([command, "--help"])
    assert ended.value.code == 0
    assert f"jobs.{command}" in capsys.readouterr().out


def test_what_is_sent() -> None:
    options = replace(
        OPTIONS,
        python="/opt/venv/bin/python",
        labels=("ray.io/market-type=on-demand", "role=head"),
        resources=("driver=0.5",),
        env=("OMP_NUM_THREADS=2", "NOTE=a=b"),
        metadata=("ticket=7",),
        cpus=1.0,
    )
    job = request(options, TRAIN)
    assert shlex.split(job.entrypoint) == ["/opt/venv/bin/python", "-m", "jobs.train", *TRAIN[1:]]
    assert job.labels == {"ray.io/market-type": "on-demand", "role": "head"}
    assert job.resources == {"driver": 0.5}
    assert job.env_vars == {"OMP_NUM_THREADS": "2", "NOTE": "a=b"}
    assert job.metadata["ticket"] == "7"
    assert job.num_cpus == 1.0


def test_a_job_with_spaces_in_its_words_stays_one_word() -> None:
    words = [*TRAIN, "--name", "a run; rm -r x"]
    job = request(OPTIONS, words)
    assert shlex.split(job.entrypoint)[3:] == words[1:]
    assert job.id.startswith("a-run--rm--r-x-")


def test_the_id_is_a_function_of_what_is_asked() -> None:
    first = request(OPTIONS, TRAIN).id
    assert first.startswith("core_reid_v2-demo-")
    assert request(replace(OPTIONS, env=("A=b",)), TRAIN).id == first
    assert request(OPTIONS, [*TRAIN, "--seed", "2"]).id != first
    assert request(OPTIONS, [*TRAIN, "--cluster.num-workers", "2"]).id != first
    assert request(replace(OPTIONS, attempt=2), TRAIN).id == f"{first}-2"
    assert request(replace(OPTIONS, id="mine", attempt=3), TRAIN).id == "mine-3"


def test_the_id_changes_with_a_default_of_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    from reid.recipes import RUNS

    before = request(OPTIONS, TRAIN).id
    changed = replace(RUNS["core_reid_v2-demo"], seed=77)
    monkeypatch.setitem(RUNS, "core_reid_v2-demo", changed)
    assert request(OPTIONS, TRAIN).id != before


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "one of"),
        ("--list --stop x", "--list and --stop"),
        ("--list -- plan --images 5", "a job"),
        ("-- training x", "evaluate"),
        ("--", "one of"),
        ("-- train core_reid_v2-demi", "did you mean 'core_reid_v2-demo'"),
        ("-- train core_reid_v2-demo", "--cluster.storage /shared/runs"),
        ("-- train core_reid_v2-demo --cluster.storage /s", "--cluster.data-root"),
        ("-- demo", "--storage"),
        ("--env X -- plan --images 5", "NAME=VALUE"),
        ("--resources X=much -- plan --images 5", "amount"),
        ("--attempt 0 -- plan --images 5", "--attempt is 0"),
        ("--working-dir / -- plan --images 5", "jobs/plan.py"),
        ("--address 10.0.0.1:6379 --list", "http://HOST:8265"),
        ("--address ray://h:10001 --list", "http://HOST:8265"),
        ("--list", "no cluster is named"),
        ("-- plan --images 5", "no cluster is named"),
        ("--address http://127.0.0.1:9 --list", "does not answer"),
    ],
)
def test_refused_in_one_line(
    line: str, says: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ADDRESS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(line))
    out, err = capfd.readouterr()
    assert ended.value.code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", ["train core_reid_v2-demo --num-round 3", "plan --image 3"])
def test_a_wrong_option_of_the_job_is_told_here(
    words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--", *shlex.split(words)])
    assert ended.value.code == 2
    assert "--" in capfd.readouterr().err


PLANTED = "Pl4nted+S3cret"


@pytest.mark.parametrize(
    "line",
    [
        f"--env AWS_SECRET_ACCESS_KEY={PLANTED} -- plan --images 5",
        f"--env MLFLOW_TRACKING_PASSWORD={PLANTED} -- plan --images 5",
        f"--env RAY_AUTH_TOKEN={PLANTED} -- plan --images 5",
        f"--env PLACE=s3://user:{PLANTED}@bucket/x -- plan --images 5",
        f"--address http://user:{PLANTED}@host:8265 --list",
        f"-- evaluate --checkpoint s3://key:{PLANTED}@bucket/x --dataset a --root /d",
    ],
)
def test_secrets_are_neither_sent_nor_said(line: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(line))
    assert ended.value.code == 2
    out, err = capfd.readouterr()
    assert "secret" in err
    assert PLANTED not in out + err


def test_jobs_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [
        JobState(id="a-1", status="SUCCEEDED", entrypoint="x", start_s=60.0, end_s=150.0),
        JobState(id="b-2", status="PENDING", entrypoint="y"),
    ]
    table = submit.overview(jobs)
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == ["a-1", "b-2"]
    assert cells[2] == ["1970-01-01 00:01", ""]
    assert cells[3] == ["1.5", ""]

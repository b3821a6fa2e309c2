"""Jobs of a running cluster: found again, followed over broken connections, kept from strangers."""

import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cluster import submission
from cluster.environment import keep_token_private
from cluster.redaction import redacted
from cluster.submission import (
    EXCLUDES,
    Client,
    JobState,
    Submission,
    Unreachable,
    attempt_id,
    exit_code,
    next_attempt,
)

ROOT = Path(__file__).parents[2]
JOB = {"entrypoint": "python -m jobs.plan"}


def state(status: str, **values: Any) -> JobState:
    return JobState(id="a", status=status, entrypoint="", **values)


@pytest.mark.parametrize(
    ("job", "code"),
    [
        (state("SUCCEEDED", exit_code=0), 0),
        (state("FAILED", exit_code=2), 2),
        (state("FAILED", exit_code=-9), 1),
        (state("FAILED", exit_code=0), 1),
        (state("STOPPED"), 1),
    ],
)
def test_exit_code_is_the_jobs(job: JobState, code: int) -> None:
    assert exit_code(job) == code


def test_attempts_follow_each_other() -> None:
    taken = [JobState(id=each, status="FAILED", entrypoint="") for each in ("a", "a-2", "b")]
    assert [next_attempt(taken, stem) for stem in ("a", "b", "c")] == [3, 2, 1]
    assert [attempt_id("a", number) for number in (1, 2)] == ["a", "a-2"]


class Flaky:
    """A client whose output breaks off; `script` has one entry a connection."""

    def __init__(self, script: list[tuple[list[str], Exception | None]]) -> None:
        self.script = script

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        pieces, error = self.script.pop(0)
        for piece in pieces:
            yield piece
        if error is not None:
            raise error


def followed(
    script: list[tuple[list[str], Exception | None]],
    states: list[JobState | Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[str, JobState]:
    def next_state(self: Client, job_id: str) -> JobState:
        found = states.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(submission, "LOST_PAUSE_S", 0.0)
    monkeypatch.setattr(Client, "state", next_state)
    client = object.__new__(Client)
    client.address = "http://head:8265"
    client._jobs = Flaky(script)
    said: list[str] = []
    end = client.follow("a", said.append)
    return "".join(said), end


def test_a_broken_connection_is_made_again_and_nothing_said_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script: list[tuple[list[str], Exception | None]] = [
        (["one\n", "two\n"], RuntimeError("closed unexpectedly")),
        (["one\n"], ConnectionResetError()),
        ([], Unreachable("away")),
        (["one\ntwo\nth", "ree\n"], None),
    ]
    states: list[JobState | Exception] = [
        state("RUNNING"),
        Unreachable("away"),
        RuntimeError("502: bad gateway"),
        state("SUCCEEDED"),
    ]
    said, end = followed(script, states, monkeypatch)
    assert said == "one\ntwo\nthree\n"
    assert end.status == "SUCCEEDED"


def test_a_head_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "GIVE_UP_S", -1.0)
    with pytest.raises(ValueError, match="--status a"):
        followed([([], ConnectionResetError())], [], monkeypatch)


def test_a_job_whose_output_is_lost_still_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    script: list[tuple[list[str], Exception | None]] = [(["x"], RuntimeError("node died"))]
    said, end = followed(script, [state("FAILED", exit_code=7)], monkeypatch)
    assert (said, end.exit_code) == ("x", 7)


def test_a_head_that_was_started_anew_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="knows no job"):
        followed([([], RuntimeError("404"))], [ValueError("knows no job a")], monkeypatch)


class Starting:
    """A head that answers a submission with each of these, and takes it for an empty one."""

    def __init__(self, answers: list[str]) -> None:
        self.answers = answers
        self.taken: list[str] = []

    def submit_job(self, *, submission_id: str, **_: Any) -> None:
        if answer := self.answers.pop(0):
            raise RuntimeError(f"Request failed with status code 500: {answer}.")
        self.taken.append(submission_id)

    def get_job_info(self, job_id: str) -> None:
        raise RuntimeError("Request failed with status code 404: none")


def submitted(answers: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[str, Starting]:
    monkeypatch.setattr(submission, "LOST_PAUSE_S", 0.0)
    client = object.__new__(Client)
    client.address = "http://head:8265"
    client._jobs = jobs = Starting(answers)
    return client.submit(Submission(id="a", entrypoint="true")), jobs


def test_a_head_that_is_starting_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    late = "No available agent to submit job, please try again later."
    found, jobs = submitted([late, late, ""], monkeypatch)
    assert (found, jobs.taken, jobs.answers) == ("new", ["a"], [])
    monkeypatch.setattr(submission, "AGENT_S", -1.0)
    with pytest.raises(ValueError, match=r"http://head:8265 has had no job agent"):
        submitted([late], monkeypatch)
    with pytest.raises(RuntimeError, match="something else"):
        submitted(["something else", ""], monkeypatch)


def test_code_is_sent_without_data_tests_and_caches(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import create_package

    tree = tmp_path / "tree"
    kept = {"jobs/train.py", "reid/data/files.py", "pyproject.toml"}
    left = {".git/HEAD", ".venv/bin/python", "runs/demo/x.json", "tests/test_a.py", "mlflow.db"}
    left |= {"reid/__pycache__/a.pyc", ".mypy_cache/x", "data/a.jpg", "runs/a/checkpoints/1.pt"}
    for name in kept | left:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("x")
    package = tmp_path / "code.zip"
    create_package(str(tree), package, include_gitignore=True, excludes=list(EXCLUDES))
    with zipfile.ZipFile(package) as archive:
        assert {name for name in archive.namelist() if not name.endswith("/")} == kept


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://AKIAABCDEFGHIJKLMNOP:abc/def@bucket/x", "s3://***@bucket/x"),
        ("s3://user:pass@bucket/x and s3://b/y", "s3://***@bucket/x and s3://b/y"),
        ("postgresql://u:p%40w@db/mlflow", "postgresql://***@db/mlflow"),
        ("https://b/x?X-Amz-Signature=ab12&a=1", "https://b/x?X-Amz-Signature=***&a=1"),
        ("key AKIAABCDEFGHIJKLMNOP is", "key *** is"),
        ("s3://bucket/a@b.jpg", "s3://bucket/a@b.jpg"),
        ("s3://bucket/a:b@c.jpg", "s3://bucket/a:b@c.jpg"),
        ("http://host:8265/x@y", "http://host:8265/x@y"),
        ("runs/demo", "runs/demo"),
    ],
)
def test_redacted(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_the_token_of_own_clusters_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    keep_token_private()
    file = tmp_path / ".ray" / "auth_token"
    token = file.read_text()
    assert len(bytes.fromhex(token)) == 32
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    keep_token_private()
    assert (file.read_text(), file.stat().st_mode & 0o777) == (token, 0o600)

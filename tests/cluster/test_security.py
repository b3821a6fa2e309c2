"""A head as we start it: without the token nobody does anything, with it a job is run once."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
TOKEN = "c0ffee" * 10
START_S = 400.0
SEVERAL = """
import contextlib, io, json, sys
from jobs.submit import main
found = []
for line in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(line)
        except SystemExit as ended:
            code = ended.code
    found.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Head:
    """A Ray head of the tests' own: its dashboard, and the environment it was given."""

    dashboard: str
    env: dict[str, str]

    def submit(self, *lines: list[str], **changes: str | None) -> list[tuple[int, str, str]]:
        """Return exit code, output and messages of uses of jobs.submit, one after another."""
        env = {**self.env, **{k: v for k, v in changes.items() if v is not None}}
        for name in (name for name, value in changes.items() if value is None):
            env.pop(name)
        asked = [["--address", self.dashboard, "--python", sys.executable, *line] for line in lines]
        command = [sys.executable, "-c", SEVERAL, json.dumps(asked)]
        done = subprocess.run(
            command, env=env, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return [tuple(each) for each in json.loads(done.stdout.splitlines()[-1])]

    def status(self, path: str, *, method: str = "GET", token: str | None = None) -> int:
        """Return the status of an answer of the dashboard."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        body = json.dumps({"entrypoint": "true"}).encode() if method == "POST" else None
        request = Request(f"{self.dashboard}{path}", data=body, method=method, headers=headers)
        try:
            with urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """Start a head as ray_cluster.yaml does, with a home and a token of its own."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    token = folder / "home" / ".ray" / "auth_token"
    token.parent.mkdir(parents=True)
    token.write_text(TOKEN)
    token.chmod(0o600)
    gone = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    env = {name: value for name, value in os.environ.items() if name not in gone}
    env |= {"HOME": str(folder / "home"), "RAY_AUTH_MODE": "token", "PYTHONPATH": str(ROOT)}
    env |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    # A busy machine takes longer to start a job's first process than Ray gives it.
    env |= {
        "RAY_worker_register_timeout_seconds": f"{START_S:.0f}",
        "RAY_agent_register_timeout_ms": f"{1000 * START_S:.0f}",
    }
    gcs, dashboard = free_port(), free_port()
    ray = str(Path(sys.executable).with_name("ray"))
    options = f"--port={gcs} --dashboard-host=127.0.0.1 --dashboard-port={dashboard} --num-cpus=2"
    more = (
        f"--ray-client-server-port={free_port()} --labels=role=head --disable-usage-stats --block"
    )
    process = subprocess.Popen(
        [ray, "start", "--head", *options.split(), *more.split(), f"--temp-dir={folder / 'r'}"],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    found = Head(f"http://127.0.0.1:{dashboard}", env)
    try:
        until = time.monotonic() + START_S
        while not answers(found):
            assert process.poll() is None, "ray start has ended"
            assert time.monotonic() < until, "the dashboard does not answer"
            time.sleep(0.5)
        yield found
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def answers(head: Head) -> bool:
    try:
        return head.status("/api/jobs/", token=TOKEN) == 200
    except (URLError, OSError):
        return False


def test_without_the_token_nobody_lists_or_submits(head: Head) -> None:
    assert head.status("/api/jobs/") == 401
    assert head.status("/api/jobs/", method="POST") == 401
    assert head.status("/api/jobs/", token="another") == 403
    assert head.status("/api/jobs/", method="POST", token="another") == 403
    assert head.status("/api/jobs/", token=TOKEN) == 200


def test_jobs_submit_says_what_is_missing(head: Head, tmp_path: Path) -> None:
    lines = ["--list"], ["--", "plan", "--images", "5"]
    for code, out, err in head.submit(*lines, HOME=str(tmp_path)):
        assert (code, out) == (2, "")
        assert "asks for a token" in err
        assert "~/.ray/auth_token" in err
    for code, out, err in head.submit(*lines, RAY_AUTH_TOKEN="another"):
        assert (code, out) == (2, "")
        assert "refuses this token" in err
        assert TOKEN not in err
        assert "another" not in err


@pytest.mark.server
def test_a_job_is_submitted_once_and_followed(head: Head) -> None:
    job = ["--", "plan", "--images", "12936", "--gpus", "0"]
    fails = ["--", "evaluate", "--checkpoint", "/none", "--dataset", "regdb", "--root", "/none"]
    first, again, after, third, failed, listed = head.submit(
        ["--no-follow", *job],
        job,
        job,
        ["--no-follow", "--attempt", "2", *job],
        ["--metadata", "ticket=7", *fails],
        ["--list"],
    )
    assert first[0] == 0, first
    assert "submitted plan-" in first[2]
    name = json.loads(first[1])["id"]
    assert again[0] == 0, again
    assert f"{name} was submitted before and is" in again[2]
    assert '"advice"' in again[2]  # its output
    assert json.loads(again[1])["status"] == "SUCCEEDED"
    assert "--attempt 2" in after[2]
    assert json.loads(third[1])["id"] == f"{name}-2"
    assert failed[0] == 2  # the job's own exit code
    assert "there is no checkpoint in /none" in failed[2]
    states: dict[str, Any] = {job["id"]: job["status"] for job in json.loads(listed[1])}
    assert states[name] == "SUCCEEDED"
    assert len(states) == 3
    assert TOKEN not in "".join(part for done in (first, again, listed) for part in done[1:])

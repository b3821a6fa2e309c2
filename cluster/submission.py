"""Jobs on a running Ray cluster, through its Jobs API: submit once, follow, stop, list.

Ray keeps a job under its submission id for as long as the cluster lives, and takes each id once. So
an id that is a function of what is asked makes submitting idempotent.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from cluster.environment import TOKEN_REMEDY
from cluster.redaction import check_no_secrets

ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
EXCLUDES = (
    ".git/",
    ".venv/",
    "__pycache__/",
    ".*_cache/",
    ".hypothesis/",
    "*.egg-info/",
    "/runs/",
    "/data/",
    "/mlruns/",
    "/mlartifacts/",
    "/docs/",
    "/tests/",
    "/dist/",
    "*.db",
    "*.pt",
)
"""what of the project's folder no job needs; Ray leaves out what .gitignore names as well"""
CHATTY = (
    "ray._private.runtime_env.packaging",
    "ray._private.runtime_env.working_dir",
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
)
"""loggers of Ray that tell of each step of an upload"""
TERMINAL = ("SUCCEEDED", "FAILED", "STOPPED")
LOST_PAUSE_S = 2.0
GIVE_UP_S = 300.0
"""how long a head that does not answer is asked again while a job is followed"""
AGENT_S = 180.0
"""how long a head is asked again that cannot start jobs yet: it is new, or busy"""
NO_AGENT = "No available agent"
SILENCE_S = 20.0
"""after so long without a line the status is asked for: the connection may be dead"""


class Unreachable(ValueError):  # noqa: N818 (a state)
    """The cluster does not answer."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What a job is: its id, its command, the code and variables it gets, where it may run.

    The resources and labels are the driver's alone; what it starts asks for its own.
    """

    id: str
    entrypoint: str
    working_dir: str | None = None
    env_vars: Mapping[str, str] = field(default_factory=dict)
    num_cpus: float = 0.0
    num_gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what everybody who may list jobs would read: secrets."""
        check_no_secrets(self.entrypoint, what="the job's command")
        for name, value in self.env_vars.items():
            check_no_secrets(value, what=f"the variable {name}", name=name)


@dataclass(frozen=True, kw_only=True)
class JobState:
    """What the cluster says of a job."""

    id: str
    status: str
    entrypoint: str
    message: str = ""
    exit_code: int | None = None
    start_s: float | None = None
    end_s: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status in TERMINAL


class Client:
    """One cluster's jobs. Every method raises ValueError, with the remedy, when it is refused."""

    def __init__(self, address: str | None) -> None:
        """Connect to a dashboard's address, or to the one that Ray's variables name."""
        from ray.job_submission import JobSubmissionClient

        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        self.address = dashboard_address(address)
        os.environ[ADDRESS_VARIABLES[0]] = self.address  # Ray prefers the variable to the argument
        with _explained(self.address):
            self._jobs = JobSubmissionClient(self.address)

    def submit(self, job: Submission) -> Literal["new", "known"]:
        """Submit a job unless its id is known to the cluster."""
        if self.find(job.id) is not None:
            return "known"
        code = {"working_dir": job.working_dir, "excludes": list(EXCLUDES)}
        until = time.monotonic() + AGENT_S
        while True:
            try:
                with _explained(self.address):
                    self._jobs.submit_job(
                        entrypoint=job.entrypoint,
                        submission_id=job.id,
                        runtime_env={
                            "env_vars": dict(job.env_vars),
                            **(code if job.working_dir is not None else {}),
                        },
                        metadata=dict(job.metadata),
                        entrypoint_num_cpus=job.num_cpus or None,
                        entrypoint_num_gpus=job.num_gpus or None,
                        entrypoint_resources=dict(job.resources) or None,
                        entrypoint_label_selector=dict(job.labels) or None,
                    )
                return "new"
            except RuntimeError as error:
                if self.find(job.id) is not None:
                    return "known"  # somebody was quicker
                if NO_AGENT not in str(error):
                    raise
                if time.monotonic() > until:
                    raise ValueError(
                        f"the head at {self.address} has had no job agent for {AGENT_S:.0f} s; "
                        "dashboard_agent.log in its Ray session's logs says why"
                    ) from None
            time.sleep(LOST_PAUSE_S)

    def find(self, job_id: str) -> JobState | None:
        """Return what the cluster says of a job, None when it knows none of the id."""
        with _explained(self.address):
            try:
                return _state(self._jobs.get_job_info(job_id))
            except RuntimeError as error:
                if "status code 404" in str(error):
                    return None
                raise

    def state(self, job_id: str) -> JobState:
        """Return what the cluster says of a job; ValueError when it knows none of the id."""
        found = self.find(job_id)
        if found is None:
            raise ValueError(
                f"{self.address} knows no job {job_id}; --list shows those it knows, which are gone"
                " when its head was started anew"
            )
        return found

    def stop(self, job_id: str) -> bool:
        """Ask a job to end; False when it had ended before."""
        self.state(job_id)
        with _explained(self.address):
            return bool(self._jobs.stop_job(job_id))

    def jobs(self) -> list[JobState]:
        """Return the submitted jobs, the oldest first."""
        with _explained(self.address):
            found = [_state(job) for job in self._jobs.list_jobs() if job.submission_id]
        return sorted(found, key=lambda job: job.start_s or 0.0)

    def follow(self, job_id: str, say: Callable[[str], None]) -> JobState:
        """Hand a job's output to `say` as it comes, from its beginning; return how it ended.

        A connection that breaks is made again for `GIVE_UP_S` seconds.
        """
        output, broken_since = _Output(say), 0.0
        while True:
            try:
                asyncio.run(self._tail(job_id, output))
                state = self.state(job_id)
            except (Unreachable, OSError, RuntimeError, _client_error()) as error:
                now = time.monotonic()
                if not broken_since or output.last_s > broken_since:
                    broken_since = now
                if now - broken_since > GIVE_UP_S:
                    raise ValueError(
                        f"{self.address} has not answered for {GIVE_UP_S:.0f} s ({error}); the job "
                        f"may be running: look again with --status {job_id}"
                    ) from None
                state = None
                with suppress(Unreachable, OSError, RuntimeError):
                    state = self.state(job_id)  # its output may be lost with its node
            if state is not None and state.is_over:
                return state
            time.sleep(LOST_PAUSE_S)

    async def _tail(self, job_id: str, output: "_Output") -> None:
        """Pass on a job's output from its beginning until it ends."""
        output.again()
        pieces = aiter(self._jobs.tail_job_logs(job_id))
        with suppress(StopAsyncIteration):
            while True:
                piece = asyncio.ensure_future(anext(pieces))
                while not (await asyncio.wait({piece}, timeout=SILENCE_S))[0]:
                    if (await asyncio.to_thread(self.state, job_id)).is_over:
                        piece.cancel()
                        return
                output.take(piece.result())


class _Output:
    """What comes of a job, each part passed on once however often it is read from the start."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.last_s = 0.0
        self._say, self._said, self._seen = say, 0, 0

    def again(self) -> None:
        """Expect the beginning."""
        self._seen = 0

    def take(self, text: str) -> None:
        """Pass on what is new of the next piece."""
        self.last_s = time.monotonic()
        new = text[max(0, self._said - self._seen) :]
        self._seen += len(text)
        self._said = max(self._said, self._seen)
        if new:
            self._say(new)


def dashboard_address(given: str | None) -> str:
    """Return the address of a cluster's dashboard; ValueError when there is none, or another."""
    source, address = "--address", given
    for name in ADDRESS_VARIABLES:
        if address is None and os.environ.get(name):
            source, address = name, os.environ[name]
    if address is None:
        raise ValueError(
            "no cluster is named; give --address http://HOST:8265, the head's dashboard (through "
            "`ssh -L 8265:127.0.0.1:8265 HEAD` it is http://127.0.0.1:8265), or set "
            f"{ADDRESS_VARIABLES[0]}"
        )
    check_no_secrets(address, what=source)
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"{source} is {address}, which is no dashboard; give http://HOST:8265 "
            "(https:// behind a proxy)"
        )
    return address.rstrip("/")


def exit_code(state: JobState) -> int:
    """Return what a command ends with that stands for the job: the job's own code where it has one.

    0 only for a job that succeeded.
    """
    if state.status == "SUCCEEDED":
        return 0
    code = state.exit_code
    return code if code is not None and 0 < code < 256 else 1


def next_attempt(jobs: Sequence[JobState], stem: str) -> int:
    """Return the first attempt of a job that no submission has taken."""
    used = {job.id for job in jobs}
    attempt = 1
    while attempt_id(stem, attempt) in used:
        attempt += 1
    return attempt


def attempt_id(stem: str, attempt: int) -> str:
    """Return the submission id of an attempt: the stem itself for the first."""
    return stem if attempt == 1 else f"{stem}-{attempt}"


def _state(job: Any) -> JobState:
    return JobState(
        id=job.submission_id,
        status=str(job.status.value),
        entrypoint=job.entrypoint,
        message=(job.message or "").strip().split("\n")[0],  # behind it may come the whole output
        exit_code=job.driver_exit_code,
        start_s=job.start_time / 1000 if job.start_time else None,
        end_s=job.end_time / 1000 if job.end_time else None,
    )


def _client_error() -> type[Exception]:
    from aiohttp import ClientError

    return ClientError


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Turn what Ray's client raises into a ValueError of one line with the remedy."""
    from ray.exceptions import AuthenticationError
    from requests import RequestException

    try:
        yield
    except AuthenticationError as error:
        refused = "Forbidden" in str(error)
        asked = "refuses this token" if refused else "asks for a token, and none was found"
        raise ValueError(f"{address} {asked}: {TOKEN_REMEDY}") from None
    except (ConnectionError, RequestException) as error:
        kind = type(error).__name__
        raise Unreachable(
            f"{address} does not answer as a Ray dashboard ({kind}); is the cluster up (`ray "
            "status` on its head), and the tunnel to its port?"
        ) from None

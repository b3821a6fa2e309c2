"""Environment variables that must be set before torch, Ray or MLflow are imported."""

import os
import secrets
import sys
from pathlib import Path

VARIABLES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # MLflow's own 7 repetitions of 2 minutes each would hold up a run's end; ours come later.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A job's variables and those of its driver are the same; Ray refuses names that both have.
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
    # `uv run` above a Ray driver would otherwise start once more in every worker.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Ray runs its workers at niceness 15: beside one busy process an import of 10 s took 2 minutes.
    "RAY_worker_niceness": "0",
    # OpenMP threads that spin at barriers stand still for a whole time slice whenever another
    # process has the core: 0.5 s became 11 s a training step beside one busy process (LOG.md).
    "OMP_WAIT_POLICY": "PASSIVE",
    # Large pages for batches: halves the time of normalising 256x128 images.
    "THP_MEM_ALLOC_ENABLE": "1",
}


TOKEN_MODE = "RAY_AUTH_MODE"
TOKEN_REMEDY = (
    "put the cluster's token into ~/.ray/auth_token (chmod 600), or name its file in "
    "RAY_AUTH_TOKEN_PATH, and leave RAY_AUTH_MODE unset or 'token'"
)
TOKEN_SOURCES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def set_variables() -> None:
    """Set every variable that the user has not set."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    if "ray" not in sys.modules:  # which reads the mode when it is imported
        os.environ.setdefault(TOKEN_MODE, "token")


def passed_on() -> dict[str, str]:
    """Return the variables as this process has them, for the workers it starts."""
    return {name: os.environ.get(name, value) for name, value in VARIABLES.items()}


def keep_token_private() -> None:
    """Let nobody else on this machine read the token of the clusters this user starts.

    Ray makes the file when it is missing, readable by all where the umask lets it.
    """
    if any(name in os.environ for name in TOKEN_SOURCES):
        return  # wherever that is, it is the user's own
    path = Path.home() / ".ray" / "auth_token"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        path.chmod(0o600)
        return
    with os.fdopen(made, "w") as file:
        file.write(secrets.token_hex(32))

"""Environment variables that must be set before torch, Ray or MLflow are imported."""

import os

VARIABLES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # MLflow's own 7 repetitions of 2 minutes each would hold up a run's end; ours come later.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "RAY_USAGE_STATS_ENABLED": "0",
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


def set_variables() -> None:
    """Set every variable that the user has not set."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)

"""Things a person runs: each module is `python -m jobs.NAME --help`."""

import cluster

__all__ = ["cluster"]  # imported first: it sets variables that torch, Ray and MLflow read

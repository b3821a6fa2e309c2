"""Orchestration of `reid` over Ray: workers, clustering pool, storage, tracking."""

from cluster.environment import set_variables

set_variables()

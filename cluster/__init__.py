"""Orchestration of `reid` over Ray: workers, clustering pool, storage, tracking."""

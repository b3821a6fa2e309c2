"""What the tests of `cluster` share: a private Ray cluster, what a killed run leaves."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """Start a Ray cluster of this session's own; yield its address.

    Nothing outside sees it and it sees nothing outside: "local" never joins a running cluster, the
    files are in a folder of its own (with a short name, for the paths of Unix sockets are limited)
    and so is HOME, where Ray leaves a token.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    (folder / "home").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder / "home"))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        context = ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=str(folder / "r"),
        )
        address = context.address_info["address"]
        # Ray Train's clean-up processes look here first, and else for the machine's own cluster.
        patch.setenv("RAY_ADDRESS", address)
        try:
            yield address
        finally:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


def saved_reports(history: Path) -> dict[str, bytes]:
    """Return the files of a run's reports, but the last.

    A state was saved after each of these: who goes on from it leaves them, who starts over writes
    them again, with another time in them.
    """
    return {file.name: file.read_bytes() for file in sorted(history.glob("*.json"))[:-1]}

"""Three made hosts for the whole session, and the run that nothing disturbed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.machines import Machines
from tests.hosts.network import why_not
from tests.hosts.runs import Outcome, Run, say

DISK_MB = 900
"""two and a half checkpoints, and what else a run keeps"""


@pytest.fixture(scope="session")
def machines() -> Iterator[Machines]:
    """Boot three hosts with Ray, object storage and MLflow; draw the worlds; train the source."""
    reason = why_not()
    if reason:
        pytest.skip(f"no hosts can be made here: {reason}")
    from reid.data.synthetic import WorldConfig, write_world

    folder = Path(tempfile.mkdtemp(prefix="hosts"))
    for domain in ("a", "b"):
        sizes = {"num_train_identities": 8, "num_test_identities": 4, "num_train_images": 96}
        config = WorldConfig(
            domain=domain, height=32, width=16, num_distractors=4, num_junk=4, **sizes
        )
        write_world(folder / "data" / f"synthetic_{domain}", config)
    made = Machines(folder, disk_mb=DISK_MB)
    say(f"three hosts are up, their files in {folder}")
    try:
        words = Run(made, "source").train("source-demo", "--num-rounds=2", workers=0)
        made.run("python", "-m", f"jobs.{words[0]}", *words[1:], timeout_s=900)
        yield made
    finally:
        made.end()
        if "REID_KEEP_HOSTS" not in os.environ:
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def undisturbed(machines: Machines) -> Outcome:
    """Return what the run that nothing disturbs ends with."""
    run = Run(machines, "undisturbed")
    run.submit()
    run.ended(seconds=1200)
    outcome = run.outcome()
    run.assert_nothing_left()
    return outcome

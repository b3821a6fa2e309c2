"""A run over three hosts, and what may happen to it: it ends with the bits of the undisturbed run.

    make test-cluster        (root, Linux; REID_KEEP_HOSTS=1 keeps the hosts' files and logs)

Faults follow one another within a run, the next only after the run has gone on from the last.
"""

import time

import pytest

from tests.hosts.machines import Machines
from tests.hosts.network import PATIENCE, Host, wait_for
from tests.hosts.runs import NUM_ROUNDS, ROUND_S, STEPS, Outcome, Run, say

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(2400 * PATIENCE)]

RANK, SHARD = "ray::RayTrainWorker", "ray::ShardActor"


def test_two_ranks_and_the_pool_are_on_different_hosts(
    machines: Machines, undisturbed: Outcome
) -> None:
    """What the others compare themselves with was what they say it was."""
    assert len(undisturbed.labels) == NUM_ROUNDS * 4
    nodes = {node["node_id"]: node["node_ip"] for node in machines.state("nodes")}
    assert len(set(nodes.values())) == 3
    hosts: dict[str, set[str]] = {}
    for actor in machines.state("actors"):
        hosts.setdefault(actor["class_name"], set()).add(nodes[actor["node_id"]])
    assert len(hosts["ShardActor"]) == 3
    assert len(hosts["RayTrainWorker"]) == 2


def return_to_cluster(machines: Machines, host: Host) -> None:
    """Start Ray on a host again, as whoever keeps the hosts would."""
    machines.start_ray(host)
    wait_for(f"{host.name} is back", lambda: len(machines.nodes()) == 3, seconds=180)
    say(f"{host.name} is back")


def test_hosts_and_links_fail(machines: Machines, undisturbed: Outcome) -> None:
    run = Run(machines, "links")
    run.submit()
    run.reach(1, seconds=600)

    say("a cable is pulled for five seconds")
    victim = next(host for host in machines.workers if machines.has(host, RANK))
    victim.plugged(False)
    time.sleep(5)
    victim.plugged(True)
    run.reach(run.num_reports() + 1)

    say(f"a slow link: {victim.slowed(megabits=100, delay_ms=20)}")
    run.reach(run.num_reports() + 1)
    victim.slowed(megabits=None)

    say(f"{victim.name} is cut off")
    victim.plugged(False)
    wait_for("Ray sees that it is gone", lambda: len(machines.nodes()) == 2, seconds=300)
    say("and plugged in again")
    victim.plugged(True)
    return_to_cluster(machines, victim)
    run.reach(run.num_reports() + 1, seconds=3 * ROUND_S)

    wait_for("the pool", lambda: any(machines.has(h, SHARD) for h in machines.workers), seconds=60)
    victim = next(host for host in reversed(machines.workers) if machines.has(host, SHARD))
    assert run.num_reports() < NUM_ROUNDS
    say(f"{victim.name} loses its power")
    victim.kill()
    victim.boot()
    return_to_cluster(machines, victim)

    run.ended(seconds=4 * ROUND_S)
    run.assert_equals(undisturbed)
    run.assert_nothing_left()


def test_servers_and_the_driver_fail(machines: Machines, undisturbed: Outcome) -> None:
    run = Run(machines, "servers")
    run.submit()
    run.reach(1, seconds=600)

    say("MLflow goes away")
    machines.mlflow.kill()

    say("object storage is throttling")
    url = f"{machines.objects_url}/?fault=slow_down&count=25"
    machines.run("curl", "-sS", "-X", "PUT", url)
    run.reach(run.num_reports() + 1)  # training goes on without MLflow

    say("object storage is away for a minute")
    machines.s3.kill()
    time.sleep(60)
    machines.s3.start()
    machines.mlflow.start()
    say("both are back")
    run.reach(run.num_reports() + 1, seconds=2 * ROUND_S)

    say("the driver is killed")
    assert run.num_reports() < NUM_ROUNDS
    machines.head.run("kill", "-KILL", *(str(pid) for pid in run.drivers()))
    run.ended()
    assert "summary.json" not in run.files()
    machines.mlflow.wait()
    run.submit()
    run.ended(seconds=4 * ROUND_S)

    run.assert_equals(undisturbed)
    run.assert_nothing_left()
    assert_tracked(machines, run)


def assert_tracked(machines: Machines, run: Run) -> None:
    """Check that MLflow has every value of the run, once."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{machines.folder}/mlflow.db")
    summary = run.json("summary.json")
    run_id = summary["mlflow_run_id"]
    steps = [metric.step for metric in client.get_metric_history(run_id, "train/lr")]
    assert sorted(steps) == list(range(NUM_ROUNDS * STEPS))
    scores = client.get_metric_history(run_id, "eval/target/mAP")
    found = {metric.step // STEPS - 1: metric.value for metric in scores}
    rows = summary["rounds"]
    assert found == {row["round"]: row["mAP"] for row in rows if row["mAP"] is not None}
    assert client.get_run(run_id).info.status == "FINISHED"


def test_the_disk_is_full(machines: Machines, undisturbed: Outcome) -> None:
    run = Run(machines, "disk", on_disk=True)
    run.submit("--cluster.max-failures=1")
    run.reach(1, seconds=600)

    switch = machines.network.switch
    ballast = f"{switch.disk}/ballast"
    say("the disk fills up")
    switch.run("sh", "-c", f"head --bytes=100G /dev/zero > {ballast} 2>/dev/null || true")
    run.ended(seconds=4 * ROUND_S)
    assert "No space left on device" in run.log()
    assert not [name for name in run.files() if name.endswith(".tmp")]

    say("somebody makes room")
    switch.run("rm", ballast)
    run.submit("--cluster.max-failures=1")
    run.ended(seconds=4 * ROUND_S)
    run.assert_equals(undisturbed)
    run.assert_nothing_left()


def test_hosts_keep_no_temporary_files(machines: Machines) -> None:
    """Not even after the failures before; what libraries keep from use to use has other names."""
    left = [
        path
        for host in machines.network.hosts.values()
        for path in (host.folder / "tmp").glob("tmp*")
    ]
    assert not left

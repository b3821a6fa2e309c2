"""The room for workers as Ray Train counts it: without the clustering pool's part and lost nodes.

Before Ray Train starts or grows an elastic worker group it asks Ray's autoscaling coordinator. That
one counts whole nodes, less what it was asked for, and looks at the cluster every 20 s. Actors that
were started without asking it, as a pool's are, and nodes that were just lost would count as room,
for which a worker group waits in vain until its time to start is over.
"""

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator as coordinators
from ray.exceptions import RayError
from ray.train.v2._internal.execution.callback import ControllerCallback

from cluster.answers import ActorHandle
from cluster.board import repeated
from cluster.shard_actor import WATCH

# Nothing public tells the coordinator anything: Ray Train and Ray Data use the same two classes.

EVERY_S = 20.0
"""a restarted actor may be on another node"""
FORGOTTEN_S = 90.0
"""after so long the coordinator forgets the pool of a driver that was killed"""
ANSWER_S = 10.0
"""how long is waited for actors and the coordinator"""
KEPT_S = 1.5
"""longer than Ray Train keeps the last answer"""
A_LITTLE = 0.001
"""of a node's own resource, by which a bundle belongs to that node"""


@contextmanager
def counted(actors: Sequence[ActorHandle], *, num_cpus: float, num_gpus: float) -> Iterator[None]:
    """Let what each actor takes of its node be no room for workers until the block ends."""
    coordinator = coordinators.DefaultAutoscalingCoordinator(f"pool-{uuid.uuid4()}")

    def tell() -> None:
        with suppress(RayError):  # where an actor is that starts again is told the next time
            calls = [actor.node_id.options(concurrency_group=WATCH).remote() for actor in actors]
            coordinator.request_resources(
                taken(ray.get(calls, timeout=ANSWER_S), num_cpus=num_cpus, num_gpus=num_gpus),
                expire_after_s=FORGOTTEN_S,
                priority=coordinators.ResourceRequestPriority.HIGH,
            )

    tell()
    try:
        with repeated(tell, every_s=EVERY_S):
            yield
    finally:
        coordinator.cancel_request()


def taken(node_ids: Sequence[str], *, num_cpus: float, num_gpus: float) -> list[dict[str, float]]:
    """Return what actors on these nodes take, one entry an actor: {name of a resource: amount}."""
    addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
    amounts = {"CPU": num_cpus, "GPU": num_gpus}
    return [
        {name: amount for name, amount in amounts.items() if amount}
        | {f"node:{addresses[node_id]}": A_LITTLE}
        for node_id in node_ids
    ]


class CountedAnew(ControllerCallback):
    """Has the cluster looked at before the size of the next worker group is chosen."""

    def before_controller_execute_failure_decision(self, failure_decision: Any) -> None:
        """Called when a worker group has failed."""
        coordinator = coordinators.get_or_create_autoscaling_coordinator()
        with suppress(RayError):
            ray.get(coordinator.get_reserved_resources.remote("", recompute=True), timeout=ANSWER_S)
        time.sleep(KEPT_S)

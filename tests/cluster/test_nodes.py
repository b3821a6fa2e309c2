"""How busy nodes are, as MLflow shows it."""

import time

import pytest
import ray

from cluster.nodes import Sampler, everywhere, here, node_names, parse_gpus

ANSWER = """97, 1024, 81920, 612.5
0, 0, 81920, [N/A]
[N/A], [N/A], [N/A], [N/A]
"""


def test_this_machine_has_figures_in_range() -> None:
    ((name, figures),) = here()().items()
    assert name
    assert 0 <= figures["cpu_utilization_percentage"] <= 100
    assert 0 < figures["system_memory_usage_percentage"] <= 100
    assert figures["system_memory_usage_megabytes"] > 10
    assert figures["network_receive_megabytes"] >= 0
    assert figures["disk_available_megabytes"] > 0


def test_gpus_say_what_they_know() -> None:
    assert parse_gpus(ANSWER) == {
        "gpu_0_utilization_percentage": 97.0,
        "gpu_0_memory_usage_megabytes": pytest.approx(1073.741824),
        "gpu_0_memory_usage_percentage": 1.25,
        "gpu_0_power_usage_watts": 612.5,
        "gpu_1_utilization_percentage": 0.0,
        "gpu_1_memory_usage_megabytes": 0.0,
        "gpu_1_memory_usage_percentage": 0.0,
    }
    assert parse_gpus("") == {}


def test_samples_come_as_often_as_asked_and_count_seconds_of_the_run() -> None:
    asked = []

    def ask() -> dict[str, dict[str, float]]:
        asked.append(time.monotonic())
        return {"north": {"cpu": 12.5}}

    never = Sampler(ask, interval_s=3600, started=0.0)
    assert never.take() == []
    often = Sampler(ask, interval_s=0.0, started=time.time() - 90)
    ((key, value, time_ms, step),) = often.take()
    assert (key, value) == ("system/north/cpu", 12.5)
    assert abs(time_ms / 1000 - time.time()) < 60
    assert 90 <= step < 150
    assert len(asked) == 1


def test_nodes_of_one_host_keep_apart() -> None:
    nodes = [
        {"NodeID": "a" * 40, "NodeManagerHostname": "north", "Alive": True},
        {"NodeID": "b" * 40, "NodeManagerHostname": "south", "Alive": True},
        {"NodeID": "c" * 40, "NodeManagerHostname": "north", "Alive": True},
        {"NodeID": "d" * 40, "NodeManagerHostname": "south", "Alive": False},
    ]
    assert list(node_names(nodes).values()) == ["north-aaaaaa", "south", "north-cccccc"]


@pytest.mark.ray
def test_every_node_is_asked(ray_cluster: str) -> None:
    with everywhere() as ask:
        deadline = time.monotonic() + 120
        while not (first := ask()):
            assert time.monotonic() < deadline
        ((name, figures),) = first.items()
        assert name == ray.nodes()[0]["NodeManagerHostname"]
        assert 0 < figures["system_memory_usage_percentage"] <= 100

"""The files for Ray's cluster launcher: by Ray's own schema, and by rules it does not have."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cluster.redaction import redacted

ROOT = Path(__file__).parents[2]
FILES = ("ray_cluster.yaml", "infra/onprem/ray_cluster.yaml")
PINNED = re.compile(r"[\w.-]+(/[\w.-]+)+:\d+\.\d+\.\d+")
KEY = re.compile(r"\b[0-9a-fA-F]{32,}\b|\bAKIA[0-9A-Z]{16}\b|PRIVATE KEY")
Config = dict[str, Any]


def load(name: str) -> Config:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def ray_schema() -> Any:
    spec = find_spec("ray")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0]) / "autoscaler" / "ray-schema.json"
    return json.loads(path.read_text(encoding="utf-8"))


def texts(value: Any) -> Iterator[str]:
    """Yield every string of a value, keys included."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, str):
        yield value


def findings(config: Config) -> list[str]:
    """Return what is wrong with a file, whoever its provider is."""
    found = [f"every address: {text}" for text in texts(config) if "0.0.0.0" in text]
    found += [f"a secret: {text[:20]}" for text in texts(config) if KEY.search(text)]
    found += [f"a secret: {redacted(text)}" for text in texts(config) if redacted(text) != text]
    starts = [
        command
        for side in ("head", "worker")
        for command in config[f"{side}_start_ray_commands"]
        if "ray start" in command
    ]
    if len(starts) != 2:
        found.append("not one `ray start` for the head and one for the workers")
    found += [f"no token: {command}" for command in starts if "RAY_AUTH_MODE=token" not in command]
    if "--dashboard-host=127.0.0.1" not in starts[0]:
        found.append("the dashboard is not on loopback")
    if config["file_mounts"].get("~/.ray/auth_token") != "~/.ray/auth_token":
        found.append("nodes do not get the token")
    if any(config[key] for key in config if key.endswith("setup_commands")):
        found.append("nodes install something when they start")
    return [*found, *(type_findings(config) if "available_node_types" in config else [])]


def type_findings(config: Config) -> list[str]:
    """Return what is wrong with the node types."""
    types, head = config["available_node_types"], config["head_node_type"]
    if head not in types:
        return [f"head_node_type {head} is no node type"]
    found = []
    for name, node in types.items():
        counts = {"min_workers": node["min_workers"], "max_workers": node["max_workers"]}
        for key, value in {**counts, **node["resources"]}.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                found.append(f"{name}: {key} is {value!r}, no count")
        if node["min_workers"] > node["max_workers"]:
            found.append(f"{name}: min_workers is above max_workers")
        labels, options = node["labels"], node["node_config"].get("InstanceMarketOptions", {})
        if (options.get("MarketType") == "spot") != (labels["ray.io/market-type"] == "spot"):
            found.append(f"{name}: label and market differ")
        if labels["role"] not in ("head", "train", "cluster"):
            found.append(f"{name}: role {labels['role']}")
        if node["node_config"]["MetadataOptions"]["HttpTokens"] != "required":
            found.append(f"{name}: instance metadata without a session token")
        if any(not disk["Ebs"]["Encrypted"] for disk in node["node_config"]["BlockDeviceMappings"]):
            found.append(f"{name}: a disk is not encrypted")
        image = node.get("docker", {}).get("worker_image", config["docker"]["image"])
        if not PINNED.fullmatch(image):
            found.append(f"{name}: image {image} is not pinned")
        if ("GPU" in node["resources"]) != ("-gpu:" in image):
            found.append(f"{name}: image {image} does not fit its GPUs")
    if types[head]["max_workers"] or types[head]["labels"]["ray.io/market-type"] == "spot":
        found.append("the head is no single on-demand node")
    if types[head]["resources"].get("CPU") != 0:
        found.append("workers may be put on the head")
    total = sum(node["max_workers"] for node in types.values())
    if config["max_workers"] != total:
        found.append(f"max_workers is {config['max_workers']}, the types' sum {total}")
    return found


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    monkeypatch.setenv("HOME", str(tmp_path))
    config = load(name)
    jsonschema.validate(config, ray_schema())
    validate_config(config)
    prepared = prepare_config(copy.deepcopy(config))
    assert "0.0.0.0" not in "".join(texts(prepared))  # Ray's defaults are all replaced
    assert "pip install" not in "".join(texts(prepared))


def test_what_ray_accepts_is_a_filled_in_file() -> None:
    from ray.autoscaler._private.util import prepare_config

    prepared = prepare_config(load("infra/onprem/ray_cluster.yaml"))
    (node_type,) = prepared["available_node_types"].values()
    assert node_type["max_workers"] == len(prepared["provider"]["worker_ips"]) == 3


@pytest.mark.parametrize("name", FILES)
def test_no_rule_is_broken(name: str) -> None:
    assert findings(load(name)) == []


def put(*path: Any) -> Callable[[Config], None]:
    """Return a fault: the value at a path replaced, or taken out where it is None."""
    *way, last, value = path

    def plant(config: Config) -> None:
        node: Any = config
        for key in way:
            node = node[key]
        if value is None:
            del node[last]
        else:
            node[last] = value

    return plant


TYPES = "available_node_types"
FAULTS: list[tuple[Callable[[Config], None], str]] = [
    (put("max_workers", 17), "the types' sum 18"),
    (put(TYPES, "train_spot", "min_workers", 9), "above max_workers"),
    (put(TYPES, "train_spot", "min_workers", -1), "no count"),
    (put(TYPES, "train_spot", "resources", "GPU", 0.5), "no count"),
    (put(TYPES, "train_spot", "labels", "ray.io/market-type", "on-demand"), "market"),
    (put(TYPES, "train_spot", "labels", "role", "training"), "role training"),
    (put(TYPES, "cluster_cpu", "resources", "GPU", 1), "does not fit"),
    (put(TYPES, "head", "resources", "CPU", 8), "on the head"),
    (put(TYPES, "head", "node_config", "MetadataOptions", {"HttpTokens": "optional"}), "metadata"),
    (put("head_node_type", "heads"), "no node type"),
    (put("docker", "image", "rayproject/ray:nightly"), "not pinned"),
    (put("docker", "image", "registry.example.com/reid/cluster"), "not pinned"),
    (put("file_mounts", "~/.ray/auth_token", None), "get the token"),
    (put("setup_commands", ["pip install ray"]), "install"),
    (put("cluster_name", "0" * 40), "a secret"),
    (put("cluster_name", "s3://user:pass@bucket"), "a secret"),
    (put("head_start_ray_commands", 1, "ray start --head --dashboard-host=0.0.0.0"), "loopback"),
    (put("worker_start_ray_commands", 1, "ray start --address=x"), "no token"),
]


@pytest.mark.parametrize(("plant", "says"), FAULTS)
def test_each_rule_finds_its_fault(plant: Callable[[Config], None], says: str) -> None:
    config = copy.deepcopy(load("ray_cluster.yaml"))
    config[TYPES] = {name: copy.deepcopy(node) for name, node in config[TYPES].items()}
    plant(config)
    assert any(says in found for found in findings(config))


@pytest.mark.parametrize(
    "plant", [put("availble_node_types", {}), put("provider", None), put("max_workers", "18")]
)
def test_rays_schema_is_looked_at(plant: Callable[[Config], None]) -> None:
    config = load("ray_cluster.yaml")
    plant(config)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config, ray_schema())

"""The Kubernetes manifests: by trimmed schemas of their kinds, and by rules of our own."""

import copy
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.infra.schemas import KINDS
from tests.infra.test_launcher import KEY, PINNED, put, texts

FOLDER = Path(__file__).parents[2] / "infra" / "k8s"
Object = dict[str, Any]


def objects() -> list[Object]:
    """Return all objects, none sharing a part with another as anchors make them."""
    found = [
        document
        for file in sorted(FOLDER.glob("*.yaml"))
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))
    ]
    return [copy_apart(document) for document in found]


def copy_apart(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: copy_apart(inner) for key, inner in value.items()}
    return [copy_apart(inner) for inner in value] if isinstance(value, list) else value


def pods(value: Any) -> Iterator[Object]:
    """Yield every pod's spec inside an object."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for inner in value.values():
            yield from pods(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from pods(inner)


def groups(cluster: Object) -> list[Object]:
    return [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]


def findings(found: list[Object]) -> list[str]:
    """Return what is wrong with the objects together."""
    (cluster,) = [each for each in found if each["kind"] == "RayCluster"]
    return [
        *(line for each in found for line in object_findings(each)),
        *cluster_findings(cluster),
        *network_findings([each for each in found if each["kind"] == "NetworkPolicy"]),
    ]


def object_findings(each: Object) -> list[str]:
    name = f"{each['kind']} {each['metadata']['name']}"
    found = [f"{name}: a secret" for text in texts(each) if KEY.search(text)]
    if each["kind"] == "Secret":
        found.append(f"{name}: secrets are made by hand")
    if each["metadata"]["namespace"] != "reid":
        found.append(f"{name}: another namespace")
    for pod in pods(each):
        context = pod.get("securityContext", {})
        if not context.get("runAsNonRoot") or not context.get("runAsUser"):
            found.append(f"{name}: a pod may run as root")
        for container in pod["containers"]:
            found += [f"{name}: {line}" for line in container_findings(container)]
    return found


def container_findings(container: Object) -> list[str]:
    found = []
    if not PINNED.fullmatch(container["image"].removesuffix("-alpine")):
        found.append(f"image {container['image']} is not pinned")
    context = container.get("securityContext", {})
    if context.get("allowPrivilegeEscalation") is not False:
        found.append("may gain privileges")
    if context.get("capabilities", {}).get("drop") != ["ALL"] or context.get("privileged"):
        found.append("keeps capabilities")
    for side in ("requests", "limits"):
        if not {"cpu", "memory"} <= set(container.get("resources", {}).get(side, {})):
            found.append(f"no {side} of cpu and memory")
    for variable in container.get("env", []):
        secret = any(word in variable["name"] for word in ("TOKEN", "PASSWORD", "SECRET", "KEY"))
        if secret and "value" in variable:
            found.append(f"{variable['name']} is written out")
    return found


def cluster_findings(cluster: Object) -> list[str]:
    spec, found = cluster["spec"], []
    if spec["authOptions"]["mode"] != "token" or not spec["authOptions"].get("secretName"):
        found.append("no token")
    if not spec["enableInTreeAutoscaling"] or spec["autoscalerOptions"]["version"] != "v2":
        found.append("labels need the autoscaler's version 2")
    if "gcsFaultToleranceOptions" not in spec:
        found.append("the head forgets")
    if spec["headGroupSpec"]["resources"].get("CPU") != "0":
        found.append("workers may be put on the head")
    if spec["headGroupSpec"].get("serviceType") != "ClusterIP":
        found.append("the head can be reached from outside")
    for group in spec["workerGroupSpecs"]:
        name, (container,) = group["groupName"], group["template"]["spec"]["containers"]
        if not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
            found.append(f"{name}: replicas")
        if group["template"]["spec"].get("automountServiceAccountToken") is not False:
            found.append(f"{name}: holds a token of Kubernetes")
        gpus = int(container["resources"]["limits"].get("nvidia.com/gpu", 0))
        if (gpus > 0) != (group["labels"]["role"] == "train") or (gpus > 0) != (
            "-gpu:" in container["image"]
        ):
            found.append(f"{name}: role, GPUs and image differ")
        if (
            container["resources"]["requests"]["memory"]
            != container["resources"]["limits"]["memory"]
        ):
            found.append(f"{name}: memory it may not get")
    return found


def network_findings(policies: list[Object]) -> list[str]:
    found = []
    everyone = [each["spec"] for each in policies if each["spec"]["podSelector"] == {}]
    if [spec.get("ingress") for spec in everyone] != [None]:
        found.append("what no policy names is not refused")
    for each in policies:
        for rule in each["spec"].get("ingress", []):
            outside = [peer for peer in rule["from"] if "namespaceSelector" in peer]
            if outside and not {port["port"] for port in rule.get("ports", [])} <= {8080, 8265}:
                found.append(f"{each['metadata']['name']}: another namespace reaches more")
            if outside and not rule.get("ports"):
                found.append(f"{each['metadata']['name']}: another namespace reaches all ports")
    return found


@pytest.mark.parametrize("each", objects(), ids=lambda each: each["metadata"]["name"])
def test_objects_fit_their_schemas(each: Object) -> None:
    errors = jsonschema.Draft7Validator(KINDS[each["kind"]]).iter_errors(each)
    assert [error.message for error in errors] == []


def test_no_rule_is_broken() -> None:
    assert findings(objects()) == []


def test_rays_version_is_the_locks() -> None:
    lock = (FOLDER.parents[1] / "requirements.lock").read_text(encoding="utf-8")
    (cluster,) = [each for each in objects() if each["kind"] == "RayCluster"]
    assert f"\nray=={cluster['spec']['rayVersion']} " in lock.replace(
        "ray[default,train,tune]", "ray"
    )


def test_every_policy_selects_pods_that_there_are() -> None:
    (cluster,) = [each for each in objects() if each["kind"] == "RayCluster"]
    name = cluster["metadata"]["name"]  # KubeRay labels each pod with its cluster and kind
    labels = [{"ray.io/cluster": name, "ray.io/node-type": kind} for kind in ("head", "worker")]
    for each in objects():
        template = each["spec"].get("template") or each["spec"].get("submitterPodTemplate")
        labels += [template["metadata"]["labels"]] if template else []
    for policy in (each["spec"] for each in objects() if each["kind"] == "NetworkPolicy"):
        peers = [peer for rule in policy.get("ingress", []) for peer in rule["from"]]
        chosen = [policy["podSelector"], *(p["podSelector"] for p in peers if "podSelector" in p)]
        for wanted in (each["matchLabels"] for each in chosen if each):
            assert any(wanted.items() <= have.items() for have in labels), wanted


def test_the_job_is_one_that_runs_on_the_cluster() -> None:
    from jobs.submit import checked

    (job,) = [each for each in objects() if each["kind"] == "RayJob"]
    (cluster,) = [each for each in objects() if each["kind"] == "RayCluster"]
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "jobs.train"]
    where = checked(["train", *words[3:]]).cluster
    have = [set(group["labels"].items()) for group in groups(cluster)]
    for wanted in (where.train_labels, where.pool_labels):
        pairs = {tuple(each.split("=")) for each in wanted}
        assert wanted
        assert any(pairs <= labels for labels in have)
    mounts = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert where.cache in {mount["mountPath"] for mount in mounts}
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}


CLUSTER, HEAD = "RayCluster", ("spec", "headGroupSpec")
CONTAINER = (*HEAD, "template", "spec", "containers", 0)
FAULTS: list[tuple[str, Callable[[Object], None], str]] = [
    (CLUSTER, put("spec", "authOptions", "mode", "disabled"), "no token"),
    (CLUSTER, put("spec", "autoscalerOptions", "version", "v1"), "version 2"),
    (CLUSTER, put("spec", "gcsFaultToleranceOptions", None), "forgets"),
    (CLUSTER, put(*HEAD, "resources", "CPU", "8"), "on the head"),
    (CLUSTER, put(*HEAD, "serviceType", "LoadBalancer"), "from outside"),
    (CLUSTER, put(*HEAD, "template", "spec", "securityContext", "runAsUser", 0), "root"),
    (CLUSTER, put(*CONTAINER, "image", "rayproject/ray:nightly"), "not pinned"),
    (CLUSTER, put(*CONTAINER, "resources", "limits", None), "no limits"),
    (CLUSTER, put(*CONTAINER, "securityContext", "privileged", True), "capabilities"),
    (
        CLUSTER,
        put(*CONTAINER, "env", [{"name": "RAY_AUTH_TOKEN", "value": "x"}]),
        "RAY_AUTH_TOKEN is written out",
    ),
    (CLUSTER, put("spec", "workerGroupSpecs", 1, "replicas", 9), "replicas"),
    (CLUSTER, put("spec", "workerGroupSpecs", 1, "labels", "role", "cluster"), "differ"),
    (CLUSTER, put("metadata", "namespace", "default"), "namespace"),
    ("NetworkPolicy", put("spec", "ingress", [{"from": [{"podSelector": {}}]}]), "not refused"),
    ("RayJob", put("spec", "entrypoint", "x " + "a1" * 20), "a secret"),
]


@pytest.mark.parametrize(("kind", "plant", "says"), FAULTS)
def test_each_rule_finds_its_fault(kind: str, plant: Callable[[Object], None], says: str) -> None:
    found = copy.deepcopy(objects())
    plant(next(each for each in found if each["kind"] == kind))
    assert any(says in line for line in findings(found))


@pytest.mark.parametrize(
    "plant",
    [
        put("spec", "headGroupSpecs", {}),
        put(*CONTAINER, "resources", "limits", "memory", "16Gb"),
        put("spec", "authOptions", "mode", "tokens"),
        put(*HEAD, "template", None),
        put("apiVersion", "ray.io/v1alpha1"),
    ],
)
def test_schemas_refuse(plant: Callable[[Object], None]) -> None:
    (cluster,) = [each for each in objects() if each["kind"] == "RayCluster"]
    plant(cluster)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(cluster, KINDS["RayCluster"])

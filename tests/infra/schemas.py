"""JSON schemas of the Kubernetes objects in infra/k8s, trimmed to the fields they use.

Facts from KubeRay's CRDs (helm-chart/kuberay-operator/crds/ray.io_rayclusters.yaml and
ray.io_rayjobs.yaml, API of KubeRay 1.6) and from Kubernetes' API reference: core/v1, apps/v1,
networking.k8s.io/v1. A field that is not here is refused, so that a misspelt one is found.
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
QUANTITY: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|[KMGTPE]i?)?$"}
QUANTITIES: Schema = {"type": "object", "additionalProperties": QUANTITY}
LABEL_VALUE: Schema = {
    "type": "string",
    "pattern": r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$",
}
LABELS: Schema = {"type": "object", "additionalProperties": LABEL_VALUE}
NAME: Schema = {"type": "string", "pattern": r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"}


def table(required: str = "", **fields: Schema) -> Schema:
    """Return the schema of an object with these fields; `required` names some, by spaces."""
    return {
        "type": "object",
        "properties": fields,
        "required": required.split(),
        "additionalProperties": False,
    }


def several(items: Schema, least: int = 0) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": items, "minItems": least}


def one_of(*values: str) -> Schema:
    """Return the schema of a choice."""
    return {"enum": list(values)}


REFERENCE = table("name key", name=NAME, key=TEXT)
FROM_SECRET = table("secretKeyRef", secretKeyRef=REFERENCE)
VARIABLE: Schema = {
    "oneOf": [
        table("name value", name=TEXT, value=TEXT),
        table("name valueFrom", name=TEXT, valueFrom=FROM_SECRET),
    ]
}
RESOURCES = table("requests limits", requests=QUANTITIES, limits=QUANTITIES)
CONFINED = table(
    allowPrivilegeEscalation=FLAG,
    capabilities=table(drop=several(TEXT), add=several(TEXT)),
    privileged=FLAG,
    readOnlyRootFilesystem=FLAG,
)
ORDINARY = table(
    runAsNonRoot=FLAG,
    runAsUser=COUNT,
    runAsGroup=COUNT,
    fsGroup=COUNT,
    seccompProfile=table("type", type=one_of("RuntimeDefault", "Localhost", "Unconfined")),
)
PORT = table("name containerPort", name=NAME, containerPort=COUNT)
CONTAINER = table(
    "name image",
    name=NAME,
    image=TEXT,
    command=several(TEXT),
    args=several(TEXT),
    env=several(VARIABLE),
    envFrom=several(table("secretRef", secretRef=table("name", name=NAME))),
    ports=several(PORT),
    resources=RESOURCES,
    securityContext=CONFINED,
    volumeMounts=several(table("name mountPath", name=NAME, mountPath=TEXT)),
)
POD = table(
    "containers",
    restartPolicy=one_of("Always", "OnFailure", "Never"),
    automountServiceAccountToken=FLAG,
    terminationGracePeriodSeconds=COUNT,
    securityContext=ORDINARY,
    tolerations=several(
        table(
            key=TEXT,
            operator=one_of("Exists", "Equal"),
            effect=one_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
        )
    ),
    nodeSelector=LABELS,
    containers=several(CONTAINER, 1),
    volumes=several(table("name", name=NAME, emptyDir=table(sizeLimit=QUANTITY))),
)
TEMPLATE = table("spec", metadata=table(labels=LABELS), spec=POD)
META = table("name namespace", name=NAME, namespace=NAME)


def kind(api: str, name: str, spec: Schema) -> Schema:
    """Return the schema of a kind of object."""
    return table(
        "apiVersion kind metadata spec",
        apiVersion={"const": api},
        kind={"const": name},
        metadata=META,
        spec=spec,
    )


AUTOSCALER = table(
    version=one_of("v1", "v2"),
    idleTimeoutSeconds=COUNT,
    upscalingMode=one_of("Default", "Aggressive", "Conservative"),
    resources=RESOURCES,
    securityContext=CONFINED,
)
RAY_CLUSTER = table(
    "headGroupSpec rayVersion",
    rayVersion=TEXT,
    authOptions=table(mode=one_of("disabled", "token"), secretName=NAME, enableK8sTokenAuth=FLAG),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=AUTOSCALER,
    gcsFaultToleranceOptions=table(
        "redisAddress", redisAddress=TEXT, redisPassword=table("valueFrom", valueFrom=FROM_SECRET)
    ),
    headGroupSpec=table(
        "rayStartParams template",
        serviceType=one_of("ClusterIP", "NodePort", "LoadBalancer"),
        rayStartParams=TEXTS,
        resources=TEXTS,
        labels=LABELS,
        template=TEMPLATE,
    ),
    workerGroupSpecs=several(
        table(
            "groupName minReplicas maxReplicas rayStartParams template",
            groupName=NAME,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            numOfHosts=COUNT,
            rayStartParams=TEXTS,
            resources=TEXTS,
            labels=LABELS,
            template=TEMPLATE,
        )
    ),
)
RAY_JOB = table(
    "entrypoint",
    entrypoint=TEXT,
    runtimeEnvYAML=TEXT,
    clusterSelector=LABELS,
    rayClusterSpec=RAY_CLUSTER,
    submissionMode=one_of("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"),
    submitterConfig=table(backoffLimit=COUNT),
    submitterPodTemplate=TEMPLATE,
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    activeDeadlineSeconds=COUNT,
    backoffLimit=COUNT,
    metadata=TEXTS,
)
SELECTOR = table(matchLabels=LABELS)
PEER = table(podSelector=SELECTOR, namespaceSelector=SELECTOR)
NETWORK_POLICY = table(
    "podSelector policyTypes",
    podSelector=SELECTOR,
    policyTypes=several(one_of("Ingress", "Egress"), 1),
    ingress={
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "from": several(PEER, 1),
                "ports": several(table("port", protocol=one_of("TCP", "UDP"), port=COUNT), 1),
            },
            "required": ["from"],
            "additionalProperties": False,
        },
    },
)
SERVICE = table(
    "selector ports",
    type=one_of("ClusterIP"),
    selector=LABELS,
    ports=several(table("name port", name=NAME, port=COUNT, targetPort=TEXT), 1),
)
STATEFUL_SET = table(
    "serviceName selector template",
    serviceName=NAME,
    replicas=COUNT,
    selector=SELECTOR,
    template=TEMPLATE,
    volumeClaimTemplates=several(
        table(
            "metadata spec",
            metadata=table("name", name=NAME),
            spec=table(
                "accessModes resources",
                accessModes=several(one_of("ReadWriteOnce", "ReadWriteMany"), 1),
                resources=table("requests", requests=QUANTITIES),
            ),
        )
    ),
)
KINDS = {
    "RayCluster": kind("ray.io/v1", "RayCluster", RAY_CLUSTER),
    "RayJob": kind("ray.io/v1", "RayJob", RAY_JOB),
    "NetworkPolicy": kind("networking.k8s.io/v1", "NetworkPolicy", NETWORK_POLICY),
    "Service": kind("v1", "Service", SERVICE),
    "StatefulSet": kind("apps/v1", "StatefulSet", STATEFUL_SET),
}

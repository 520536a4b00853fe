"""JSON schemas of the part of JobSet (jobset.x-k8s.io/v1alpha2) and of SkyPilot's task file that `launch/` uses.

Written after the JobSet API reference, the Kubernetes API of Job and Pod, and SkyPilot's YAML reference. Every object
is closed: a key that is misspelt, or that these lists lack, fails.
"""

from typing import Any


def closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required or properties),
        "additionalProperties": False,
    }


def several(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


TEXT = {"type": "string", "minLength": 1}
NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
COUNT = {"type": "integer", "minimum": 1}
NATURAL = {"type": "integer", "minimum": 0}
CODES = several({"type": "integer", "minimum": 1, "maximum": 255})
LABELS = {"type": "object", "additionalProperties": TEXT, "minProperties": 1}
DEVICES = {
    "type": "object",
    "propertyNames": {"enum": ["google.com/tpu", "nvidia.com/gpu"]},
    "additionalProperties": COUNT,
}

CONTAINER = closed(
    {
        "name": NAME,
        "image": TEXT,
        "command": several(TEXT),
        "env": several(
            closed(
                {
                    "name": {"type": "string", "pattern": "^[A-Z_]+$"},
                    "value": TEXT,
                    "valueFrom": closed({"fieldRef": closed({"fieldPath": TEXT})}),
                },
                "name",
            )
        ),
        "ports": several(closed({"containerPort": {"type": "integer", "minimum": 1, "maximum": 65535}})),
        "resources": closed({"requests": DEVICES, "limits": DEVICES}, "limits"),
        "volumeMounts": several(closed({"name": NAME, "mountPath": {"type": "string", "pattern": "^/"}})),
    },
    "name",
    "image",
    "command",
    "resources",
    "volumeMounts",
)
VOLUME = closed(
    {
        "name": NAME,
        "persistentVolumeClaim": closed({"claimName": NAME}),
        "emptyDir": closed({"medium": {"const": "Memory"}}),
    },
    "name",
)
POD = closed(
    {
        "restartPolicy": {"const": "Never"},  # what a podFailurePolicy demands
        "shareProcessNamespace": {"const": True},
        "terminationGracePeriodSeconds": COUNT,
        "hostNetwork": {"const": True},
        "dnsPolicy": {"enum": ["ClusterFirst", "ClusterFirstWithHostNet"]},
        "nodeSelector": LABELS,
        "containers": several(CONTAINER),
        "volumes": several(VOLUME),
    },
    "restartPolicy",
    "shareProcessNamespace",
    "terminationGracePeriodSeconds",
    "nodeSelector",
    "containers",
    "volumes",
)
JOB = closed(
    {
        "parallelism": COUNT,
        "completions": COUNT,
        "backoffLimit": {"const": 0},
        "podFailurePolicy": closed(
            {
                "rules": several(
                    closed(
                        {
                            "action": {"enum": ["FailJob", "Ignore", "Count", "FailIndex"]},
                            "onExitCodes": closed(
                                {"containerName": NAME, "operator": {"enum": ["In", "NotIn"]}, "values": CODES}
                            ),
                        }
                    )
                )
            }
        ),
        "template": closed({"spec": POD}),
    }
)
JOBSET = closed(
    {
        "apiVersion": {"const": "jobset.x-k8s.io/v1alpha2"},
        "kind": {"const": "JobSet"},
        "metadata": closed({"name": NAME, "annotations": LABELS}, "name"),
        "spec": closed(
            {
                "network": closed(
                    {"enableDNSHostnames": {"type": "boolean"}, "publishNotReadyAddresses": {"type": "boolean"}}
                ),
                "failurePolicy": closed(
                    {
                        "maxRestarts": NATURAL,
                        "rules": several(
                            closed(
                                {
                                    "name": {"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:-]*[A-Za-z0-9_])?$"},
                                    "action": {
                                        "enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]
                                    },
                                    "onJobFailureReasons": several(
                                        {
                                            "enum": [
                                                "BackoffLimitExceeded",
                                                "DeadlineExceeded",
                                                "FailedIndexes",
                                                "MaxFailedIndexesExceeded",
                                                "PodFailurePolicy",
                                            ]
                                        }
                                    ),
                                }
                            )
                        ),
                    }
                ),
                "replicatedJobs": several(closed({"name": NAME, "replicas": COUNT, "template": closed({"spec": JOB})})),
            },
            "failurePolicy",
            "replicatedJobs",
        ),
    }
)
SKYPILOT = closed(
    {
        "name": NAME,
        "workdir": TEXT,
        "num_nodes": COUNT,
        "resources": closed(
            {
                "accelerators": {"type": "string", "pattern": "^[A-Za-z0-9-]+:[0-9]+$"},
                "use_spot": {"type": "boolean"},
                "job_recovery": closed(
                    {
                        "strategy": {"enum": ["FAILOVER", "EAGER_NEXT_REGION"]},
                        "max_restarts_on_errors": NATURAL,
                        "recover_on_exit_codes": CODES,
                    }
                ),
            }
        ),
        "envs": {
            "type": "object",
            "propertyNames": {"pattern": "^[A-Z_]+$"},
            "additionalProperties": {"type": ["string", "null"]},
        },
        "file_mounts": {
            "type": "object",
            "propertyNames": {"pattern": "^/"},
            "additionalProperties": closed({"source": TEXT, "mode": {"enum": ["MOUNT", "COPY", "MOUNT_CACHED"]}}),
        },
        "setup": TEXT,
        "run": TEXT,
    }
)

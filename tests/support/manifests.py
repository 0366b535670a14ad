"""The manifests of docs/deploy/kubernetes, and what each of their pods has to be."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.support.paths import ROOT

MANIFESTS = ROOT / "docs" / "deploy" / "kubernetes"
LEAST_SPARE = 8
"""Seconds that a pod has beside retiring and ending, in which the entrypoint's init says how it ended."""


def manifests() -> list[dict[str, Any]]:
    return [document for path in sorted(MANIFESTS.glob("*.yaml")) for document in yaml.safe_load_all(path.read_text())]


def assert_taken_by_kubernetes(manifest: dict[str, Any]) -> None:
    """By Kubernetes' own schema, without unknown fields."""
    # Takes seconds to load, and every process of a run collects all modules.
    import kubernetes_validate  # type: ignore[import-untyped] # published without types

    kubernetes_validate.validate(manifest, "1.30", strict=True)


def assert_restricted(spec: dict[str, Any]) -> None:
    """PodSecurity `restricted`, and more: a read-only root, no token of the API, an image that cannot change."""
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert spec["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert all(volume.keys() & {"emptyDir", "secret", "csi"} for volume in spec["volumes"])
    assert re.search(r"@sha256:[0-9a-f]{64}\Z", container["image"])
    assert spec["terminationGracePeriodSeconds"] > 20 + 2 + LEAST_SPARE

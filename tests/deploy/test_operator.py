"""The operator of dask-kubernetes: our DaskCluster and DaskJob before its CRDs and its real controller functions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask_kubernetes
import pytest
import yaml

from tests.support.manifests import MANIFESTS, assert_restricted, assert_taken_by_kubernetes
from tests.support.material import make_cluster
from tests.support.sandbox import OWN_MOUNTS

CRDS = Path(dask_kubernetes.__file__).parent / "operator/deployment/helm/dask-kubernetes-operator/crds"


def manifest(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((MANIFESTS / "operator" / f"{kind}.yaml").read_text())
    return found


@pytest.mark.parametrize("kind", ["cluster", "job"])
def test_the_operators_crds_take_them(kind: str) -> None:
    import jsonschema  # takes seconds to load, and every process of a run collects all modules

    # Without libyaml it takes seconds.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    definition = yaml.load((CRDS / f"dask{kind}.yaml").read_text(), loader)  # noqa: S506 - both are safe ones
    (version,) = definition["spec"]["versions"]
    jsonschema.Draft7Validator(version["schema"]["openAPIV3Schema"]).validate(manifest(kind))


def made_by_the_operator(kind: str) -> list[dict[str, Any]]:
    """The Deployments and pods that its controller makes of the manifest."""
    from dask_kubernetes.operator.controller import controller

    document = manifest(kind)
    spec = document["spec"] if kind == "cluster" else document["spec"]["cluster"]["spec"]
    scheduler = controller.build_scheduler_deployment_spec("lab", spec["scheduler"]["spec"], {}, {})
    service = controller.build_scheduler_service_spec("lab", spec["scheduler"]["service"], {}, {})
    worker = controller.build_worker_deployment_spec("lab-default", "ns", "lab", "7", spec["worker"]["spec"], {}, {})
    made: list[dict[str, Any]] = [scheduler, service, worker]
    if kind == "job":
        made.append(controller.build_job_pod_spec("lab", "lab", "ns", document["spec"]["job"]["spec"], {}, {}))
    return made


@pytest.mark.parametrize("kind", ["cluster", "job"])
def test_what_the_operator_makes_of_them_is_restricted_and_speaks_tls_alone(kind: str) -> None:
    scheduler, service, worker, *pods = made_by_the_operator(kind)
    for document in (scheduler, service, worker, *pods):
        assert_taken_by_kubernetes(document)
        assert "tcp://" not in yaml.safe_dump(document)
    for spec in (*(one["spec"]["template"]["spec"] for one in (scheduler, worker)), *(pod["spec"] for pod in pods)):
        assert_restricted(spec)
    (container,) = worker["spec"]["template"]["spec"]["containers"]
    environ = {variable["name"]: variable["value"] for variable in container["env"]}
    assert environ["DASK_WORKER_NAME"] == worker["metadata"]["name"]
    assert "--name $(DASK_WORKER_NAME)" in " ".join(container["args"])
    assert environ["DASK_SCHEDULER_ADDRESS"] == "tls://lab-scheduler:8786"
    (http,) = (port for port in service["spec"]["ports"] if port["name"] == "http-dashboard")
    (container,) = scheduler["spec"]["template"]["spec"]["containers"]
    assert {"name": "http-dashboard", "containerPort": 8790} in container["ports"]
    assert (http["port"], http["targetPort"]) == (8790, "http-dashboard")


@pytest.mark.long
@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_a_scale_down_by_its_controller_loses_no_data(tmp_path: Path) -> None:
    """The health port answers 404 where it asks for the API, its own RPC is refused, and it ends the newest pod."""
    cluster = make_cluster()
    for slug in ("scheduler/scheduler", "worker/worker", "client/alice"):
        cluster.export(slug, tmp_path / slug.partition("/")[0])
    script = f"""
        set -e
        sed "1i 127.0.0.1 lab-scheduler.lab" /etc/hosts > {tmp_path}/hosts
        mount --bind {tmp_path}/hosts /etc/hosts
        exec {sys.executable} -m tests.support.operator_story {tmp_path}
    """
    done = subprocess.run(
        [*OWN_MOUNTS, "sh", "-c", script], env=os.environ.copy(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "the data is there\n"), done.stderr
    assert "Received 404 response" in done.stderr
    assert "falling back to LIFO scaling" in done.stderr

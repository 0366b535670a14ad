"""`python -m tests.support.operator_story DIRECTORY`: the operator's controller scales a real, secured cluster down.

Needs the name `lab-scheduler.lab` to lead to this machine. The worker that the operator picks, the newest, is the only
one that has the data; it is ended as a kubelet ends a pod, and the data is asked for.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dask
import kopf
import yaml

from tests.support.kubernetes_api import NAMESPACE, serving
from tests.support.ports import free_port
from tests.support.retiring import PAYLOAD, Machine

MANIFEST = Path(__file__).parents[2] / "docs" / "deploy" / "kubernetes" / "operator" / "cluster.yaml"
GROUP = "lab-default"


def main() -> None:
    directory = Path(sys.argv[1])
    logging.basicConfig(level=logging.DEBUG)  # the test looks for what the operator says
    os.environ["KUBECONFIG"] = str(directory / "kubeconfig")
    from dask_kubernetes.operator.controller import controller

    cluster = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    group = controller.build_default_worker_group_spec("lab", cluster["spec"]["worker"], {}, {})
    group["metadata"] |= {"namespace": NAMESPACE, "uid": "1"}
    deployments = [deployment(controller, cluster, number) for number in ("1", "2")]
    names = [one["metadata"]["name"] for one in deployments]
    health = free_port()
    workers: dict[str, subprocess.Popen[bytes]] = {}
    with ExitStack() as stack:
        machine = Machine(directory, directory, stack, options=("--health", f"127.0.0.1:{health}"))
        workers[names[0]] = machine.worker(names[0])
        workers[names[1]] = machine.worker(names[1])
        data = machine.client.scatter(PAYLOAD, direct=False, workers=[address_of(machine, names[1])])
        known = [service(controller, cluster, health), *deployments, in_namespace(cluster), group]
        objects = {path(one): one for one in known}
        ended: list[str] = []

        def end(name: str) -> None:
            ended.append(name)
            workers[name].send_signal(signal.SIGTERM)

        unknown = stack.enter_context(serving(objects, end, directory / "kubeconfig"))
        with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):  # its RPC has no certificate
            asyncio.run(scale_down(controller, group))
        assert unknown == [], unknown
        assert ended == [names[1]], ended
        assert workers[names[1]].wait(30) == 0
        assert machine.client.gather(data) == PAYLOAD
        assert machine.names() == {names[0]}
    print("the data is there")  # noqa: T201 - the test reads it


async def scale_down(controller: Any, group: dict[str, Any]) -> None:
    """From two replicas to one, by the operator's own handler."""
    body = kopf.Body(group)
    await controller.daskworkergroup_replica_update(
        name=GROUP, namespace=NAMESPACE, meta=body.meta, spec=body.spec, new=1, body=body,
        logger=logging.getLogger("operator"),
    )  # fmt: skip


def deployment(controller: Any, cluster: dict[str, Any], number: str) -> dict[str, Any]:
    found: dict[str, Any] = controller.build_worker_deployment_spec(
        worker_group_name=GROUP, namespace=NAMESPACE, cluster_name="lab", uuid=number,
        pod_spec=cluster["spec"]["worker"]["spec"], annotations={}, labels={},
    )  # fmt: skip
    return in_namespace(found)


def service(controller: Any, cluster: dict[str, Any], health: int) -> dict[str, Any]:
    spec = cluster["spec"]["scheduler"]["service"]
    found: dict[str, Any] = controller.build_scheduler_service_spec("lab", spec, {}, {})
    for port in spec["ports"]:
        if port["name"] == "http-dashboard":
            port["port"] = health  # many tests share this machine
    return in_namespace(found)


def in_namespace(document: dict[str, Any]) -> dict[str, Any]:
    return document | {"metadata": document["metadata"] | {"namespace": NAMESPACE, "uid": document["metadata"]["name"]}}


def path(document: dict[str, Any]) -> str:
    version, kind, name = document["apiVersion"], document["kind"].lower(), document["metadata"]["name"]
    return f"/{'api' if version == 'v1' else 'apis'}/{version}/namespaces/{NAMESPACE}/{kind}s/{name}"


def address_of(machine: Machine, name: str) -> str:
    workers = machine.client.scheduler_info(n_workers=-1)["workers"]
    return next(str(address) for address, info in workers.items() if info["name"] == name)


if __name__ == "__main__":
    main()

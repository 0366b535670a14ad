"""The container, for real: built from the recipe that users get, run by podman, asked, and stopped."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.boot_cloud import TOKEN_PATH, Cloud, serve_cloud
from tests.support.booted import compute, until
from tests.support.containers import BASE, Containers
from tests.support.manifests import manifests
from tests.support.material import Cluster, make_cluster
from tests.support.nightly import by_day
from tests.support.paths import ROOT
from tests.support.ports import free_port

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
SIZE = 70_000_000
"""Bytes that the recipe may add to its base."""


@pytest.fixture(scope="module")
def containers() -> Containers:
    return Containers()


@pytest.fixture(scope="module", params=by_day(["3.13"], night=["3.11", "3.13"]))
def image(containers: Containers, request: pytest.FixtureRequest) -> str:
    return containers.build(request.param, f"localhost/dask:{request.param}")


@pytest.fixture
def cluster() -> Cluster:
    """One for each test, since some revoke."""
    return make_cluster()


@pytest.fixture
def cloud(cluster: Cluster) -> Iterator[Cloud]:
    with serve_cloud(cluster) as cloud:
        yield cloud


def test_it_holds_dask_and_nothing_that_can_build_or_log_in(containers: Containers, image: str) -> None:
    found = containers.inspect(image)
    assert found["Config"]["User"] == "65532:65532"
    assert found["Size"] - containers.inspect(BASE)["Size"] < SIZE
    names = installed(containers, image).keys()
    assert {"daskpki", "dask", "distributed", "cryptography"} <= names
    assert not {"pip", "setuptools", "typer", "keyring", "google-auth"} & names


def test_plain_dask_in_it_asks_daskpki(containers: Containers, image: str) -> None:
    """A row of the table of environments in docs/adr/0014."""
    asked = "import dask.config; print(dask.config.get('distributed.client.security-loader', None))"
    options = ("--rm", "--network=none", "--entrypoint=python")
    assert containers.run("podman", "run", *options, image, "-c", asked) == "daskpki.loader.security_loader"


def installed(containers: Containers, image: str) -> dict[str, str]:
    """The version of each Python package in the image."""
    listing = """if True:
        import json
        from importlib.metadata import distributions
        print(json.dumps({one.name.lower().replace("_", "-"): one.version for one in distributions()}))
    """
    options = ("--rm", "--network=host", "--entrypoint=python")
    found: dict[str, str] = json.loads(containers.run("podman", "run", *options, image, "-c", listing))
    return found


def test_the_bill_of_materials_is_what_it_holds(containers: Containers, image: str) -> None:
    done = subprocess.run([ROOT / "scripts" / "sbom"], check=True, capture_output=True, text=True)
    components = json.loads(done.stdout)["components"]
    said = {component["name"].lower(): component["version"] for component in components}
    holds = installed(containers, image)
    del holds["daskpki"]
    assert holds.items() <= said.items()
    assert said.keys() - holds.keys() <= {"importlib-metadata", "lazy-importer", "zipp"}  # for Python 3.11 alone


def computed(containers: Containers, directory: Path, port: int, *names: str) -> str:
    """What a client gets from the cluster; what the containers said is shown where it gets nothing."""
    try:
        said = compute(directory, port, workers=1)
    except AssertionError as error:
        raise AssertionError(f"{error}\n" + "\n".join(map(containers.log, names))) from None
    assert "42" in said
    return said


def test_scheduler_and_worker_compute_and_end_when_they_are_stopped(
    containers: Containers, image: str, cloud: Cloud, tmp_path: Path
) -> None:
    port, health = free_port(), free_port()
    ours = {name: value for name, value in cloud.environ.items() if name.startswith(("DASK", "GCE_", "GOOGLE_"))}
    ours |= {"DASKPKI_SCHEDULER": f"tls://127.0.0.1:{port}", "DASKPKI_DEADLINE": "60"}
    settings = [f"--env={name}={value}" for name, value in ours.items()]
    directory = cloud.cluster.export("client/alice", tmp_path / "client")
    scheduler = ("scheduler", [*settings, f"--env=DASKPKI_HEALTH=127.0.0.1:{health}"])
    worker = ("worker", [*settings, f"--env=DASKPKI_HEALTH=127.0.0.1:{free_port()}"])
    with (
        containers.started(*scheduler, image, "scheduler", "--", "--port", str(port)),
        containers.started(*worker, image, "worker", "--", "--nworkers", "1", "--nthreads", "1"),
    ):
        said = computed(containers, directory, port, "scheduler", "worker")
        assert "scheduler uid 65532" in said
        assert "worker uid 65532" in said
        containers.run("podman", "healthcheck", "run", "scheduler")
        containers.run("podman", "healthcheck", "run", "worker")
        keys = "find / -xdev -name 'key.pem' -o -xdev -name '*.pem' -path '/tmp/*'"
        assert containers.run("podman", "exec", "worker", "sh", "-c", keys, check=False) == ""
        for name, seconds in (("worker", 22.0), ("scheduler", 2.0 + 1.0)):  # and a second for podman itself
            begin = time.monotonic()
            containers.run("podman", "stop", "--time", "60", name)
            assert time.monotonic() - begin < seconds
            assert containers.run("podman", "inspect", "--format", "{{.State.ExitCode}}", name) == "0", containers.log(
                name
            )


def test_a_stop_ends_what_still_boots(containers: Containers, image: str, cloud: Cloud) -> None:
    cloud.metadata.fail(TOKEN_PATH, latency=120)
    ours = [f"--env={name}={value}" for name, value in cloud.environ.items() if name.startswith(("DASK", "GCE_"))]
    with containers.started("booting", ours, image, "worker", "--scheduler", "tls://127.0.0.1:1"):
        until(cloud.metadata.count)()
        begin = time.monotonic()
        containers.run("podman", "stop", "--time", "60", "booting")
        assert time.monotonic() - begin < 2 + 1  # a second for podman itself
        assert containers.run("podman", "inspect", "--format", "{{.State.ExitCode}}", "booting") == "143"


def test_two_builds_have_the_same_layers(containers: Containers, image: str) -> None:
    python = containers.run("podman", "run", "--rm", "--network=host", "--entrypoint=python", image, "-V").split()[1]
    again = containers.build(python.rpartition(".")[0], "localhost/dask:again")
    assert containers.inspect(again)["RootFS"]["Layers"][1:] == containers.inspect(image)["RootFS"]["Layers"][1:]


def pods_for_podman(image: str, more: Mapping[str, str], ports: Mapping[str, int]) -> list[dict[str, Any]]:
    """The Deployments of the manifests, with what one machine without a cluster needs in place of theirs.

    That is the image that is here, the test's servers, one pod of each on the host's network with free ports, and no
    probes, which podman runs by systemd and curl.
    """
    chosen = []
    for manifest in manifests():
        if manifest["kind"] != "Deployment":
            continue
        spec = manifest["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        manifest["spec"]["replicas"] = 1
        spec["hostNetwork"] = True
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            del container[probe]
        health = {"DASKPKI_HEALTH": f"127.0.0.1:{ports[manifest['metadata']['name']]}"}
        theirs = {variable["name"]: variable["value"] for variable in container["env"]}
        container["env"] = [{"name": name, "value": value} for name, value in {**theirs, **more, **health}.items()]
        container |= {"image": image, "imagePullPolicy": "Never"}
        if container["args"] == ["scheduler"]:
            container["args"] = ["scheduler", "--", "--port", str(ports["comm"])]
        else:
            container["args"] = ["worker"]
        chosen.append(manifest)
    return chosen


def test_the_manifests_pods_compute_renew_and_let_go_of_who_is_revoked(
    containers: Containers, image: str, cloud: Cloud, tmp_path: Path
) -> None:
    ports = {name: free_port() for name in ("comm", "dask-scheduler", "dask-worker")}
    more = {name: value for name, value in cloud.environ.items() if name.startswith(("DASK", "GCE_", "GOOGLE_"))}
    more |= {"DASKPKI_SCHEDULER": f"tls://127.0.0.1:{ports['comm']}", "DASKPKI_POLL": "1"}
    file = tmp_path / "pods.yaml"
    file.write_text(yaml.safe_dump_all(pods_for_podman(containers.inspect(image)["Id"], more, ports)), encoding="utf-8")
    directory = cloud.cluster.export("client/alice", tmp_path / "client")
    scheduler, worker = "dask-scheduler-pod-0-dask", "dask-worker-pod-0-dask"
    started = ("podman", "inspect", "--format", "{{.State.StartedAt}} {{.RestartCount}}", worker)
    containers.run("podman", "kube", "play", "--build=false", "--network=host", file)
    try:
        computed(containers, directory, ports["comm"], scheduler, worker)
        before = containers.run(*started)
        first = cloud.cluster.credentials["worker/worker"]  # with which its connections were made, and live on
        renewed = cloud.cluster.issue("worker/worker", now=datetime.now(UTC))
        cloud.cluster.publish()
        cloud.cluster.seed(cloud.server, cloud.parent)
        until(lambda: "a newer credential is in use" in containers.log(worker))()
        computed(containers, directory, ports["comm"], scheduler, worker)
        assert containers.run(*started) == before
        cloud.cluster.publish(revoked=[first, renewed])
        cloud.cluster.seed(cloud.server, cloud.parent)
        until(lambda: "Remove worker addr" in containers.log(scheduler))()
    finally:
        containers.run("podman", "kube", "down", file, check=False)

"""The plan carried out by the real `gcloud` against a capture server: well-formed, idempotent, and without a secret."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daskpki.confidential import Confidential
from daskpki.deploy.blueprint import resources
from daskpki.deploy.gcloud import runner
from daskpki.deploy.machines import Group, Template
from daskpki.deploy.resource import NO_FILES
from daskpki.pki.credential import parse_credential
from tests.deploy.conftest import STORE, Clouds, deployment
from tests.support.key_search import Canary

pytestmark = pytest.mark.needs_gcloud

Deploy = Callable[..., list[dict[str, Any]]]
NODE = "serviceAccount:daskpki-lab-node@project-one.iam.gserviceaccount.com"
SCHEDULER = "zones/europe-west1-b/instances/daskpki-lab-node"
ALL_THAT_A_NODE_READS = {"trust", "revoked", "scheduler_scheduler", "worker_worker", "secret_db-password"}
PASSWORD = "correct horse battery staple"

# The blog post's machine, as docs/deploy/google-cloud.md shows it.
BLOG_POST = (
    "--zone=europe-west1-b", "--machine-type=e2-highcpu-16", "--image=docker.io/example/dask:1.0", "--tag=dask-server",
    "--threads-per-worker=1", "--memory-per-worker=1", "--clients-from=203.0.113.0/24", "--secret=db-password=fd",
)  # fmt: skip


@pytest.fixture
def deploy(clouds: Clouds) -> Deploy:
    def run(*arguments: str) -> list[dict[str, Any]]:
        command = [sys.executable, "-m", "daskpki", f"--store={STORE}", "--cluster=lab", "--json"]
        command += ["deploy", "gcp", *BLOG_POST, *arguments]
        done = subprocess.run(command, env=clouds.environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        steps: list[dict[str, Any]] = json.loads(done.stdout)["steps"]
        return steps

    return run


@pytest.mark.timeout(600)  # some fifty runs of gcloud, a second each on an idle machine
def test_the_blog_posts_vm_from_an_empty_project_and_back(clouds: Clouds, deploy: Deploy) -> None:
    set_password(clouds)
    made = deploy("--apply")
    assert {step["action"] for step in made} == {"create"}
    check_machine(clouds.google.items[SCHEDULER])
    assert {secret: members for secret, members in readers(clouds).items() if members} == {
        f"daskpki_lab_{name}": [NODE] for name in ALL_THAT_A_NODE_READS
    }
    changes = clouds.google.changes()
    assert deploy("--apply") == []
    assert clouds.google.changes() == changes
    check_for_keys(clouds)
    removed = deploy("--destroy", "--apply")
    assert {step["action"] for step in removed} == {"delete"}
    assert clouds.google.items == {}
    assert not any(readers(clouds).values())


def set_password(clouds: Clouds) -> None:
    command = [sys.executable, "-m", "daskpki", f"--store={STORE}", "--cluster=lab", "secret", "set", "db-password"]
    subprocess.run(command, env=clouds.environ, input=PASSWORD, text=True, capture_output=True, check=True)


def check_machine(vm: dict[str, Any]) -> None:
    assert vm["machineType"].endswith("/e2-highcpu-16")
    assert vm["disks"][0]["initializeParams"]["sourceImage"].endswith("/cos-stable")
    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    assert vm["serviceAccounts"] == [{"email": NODE.partition(":")[2], "scopes": scopes}]
    assert set(vm["shieldedInstanceConfig"].values()) == {True}
    assert vm["tags"]["items"] == ["dask-server"]
    metadata = {item["key"]: item["value"] for item in vm["metadata"]["items"]}
    assert metadata.keys() == {"user-data", "enable-oslogin", "google-logging-enabled", "google-monitoring-enabled"}
    assert metadata["user-data"].startswith("#cloud-config\n")
    assert vm["networkInterfaces"][0]["accessConfigs"][0]["natIP"] == "198.51.100.7"


def readers(clouds: Clouds) -> dict[str, list[str]]:
    """Who is granted anything on each secret, as Secret Manager keeps it."""
    with clouds.secrets.service.lock:
        stored = clouds.secrets.catalogue.everything()
        return {
            str(one.name).rpartition("/")[2]: [member for binding in one.policy.bindings for member in binding.members]
            for one in stored
        }


def check_for_keys(clouds: Clouds) -> None:
    """Neither a key nor a password in what gcloud sent, to any service, in any form; a planted one is found."""
    keys = dict(stored_keys(clouds))
    assert len(keys) == 2
    canary = Canary({**keys, "password": Confidential(PASSWORD)})
    sent = [(one.target, str(one.headers).encode() + one.body) for one in clouds.google.requests]
    sent += [(e.path, str(e.headers).encode() + e.body) for e in clouds.secrets.requests() if e.transport == "rest"]
    assert len(sent) > 30
    for place, data in sent:
        assert canary.in_bytes(place, place.encode() + data) == []
        assert b"PRIVATE KEY" not in data
    for value in (next(iter(keys.values())).reveal(), PASSWORD.encode()):
        planted = json.dumps({"metadata": base64.b64encode(b"x" + value).decode()})
        assert canary.in_bytes("planted", planted.encode())


def stored_keys(clouds: Clouds) -> Iterator[tuple[str, Confidential]]:
    for name in clouds.secrets.secrets():
        if "_worker_" in name or "_scheduler_" in name:
            (payload,) = clouds.secrets.payloads(name)
            assert payload is not None
            key = parse_credential(Confidential(payload)).key
            assert key is not None
            yield name, key


def test_a_group_of_workers_is_made_changed_and_removed(clouds: Clouds) -> None:
    run = runner(clouds.environ)
    before, after = group_of(workers=2, subnet="dask"), group_of(workers=3, machine_type="e2-highcpu-8")
    email = "daskpki-lab-worker@project-one.iam.gserviceaccount.com"
    clouds.google.items[f"accounts/{email}"] = {"email": email}
    for template, group in (before, after):
        for command in template.create:
            run(command, template.files)
        former = {} if group is before[1] else before[1].facts
        for command in group.update(former) if former else group.create:
            run(command, NO_FILES)
    place = "zones/europe-west1-b/instanceGroupManagers/daskpki-lab-worker"
    made = clouds.google.items[place]
    assert (made["targetSize"], made["instanceTemplate"].rpartition("/")[2]) == (3, after[0].name)
    properties = clouds.google.items[f"global/instanceTemplates/{after[0].name}"]["properties"]
    assert properties["serviceAccounts"][0]["email"] == email
    assert set(properties["shieldedInstanceConfig"].values()) == {True}
    for command in (*after[1].delete, *after[0].delete):
        run(command, NO_FILES)
    assert place not in clouds.google.items


def group_of(**settings: object) -> tuple[Template, Group]:
    found = resources(deployment(**settings))
    (template,) = (one for one in found if isinstance(one, Template))
    (group,) = (one for one in found if isinstance(one, Group))
    return template, group

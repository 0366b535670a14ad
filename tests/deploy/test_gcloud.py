"""The plan carried out by the real `gcloud` against a capture server: well-formed, idempotent, and without a secret."""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from daskpki.confidential import Confidential
from daskpki.deploy.apply import carry_out, find_scheduler, plan_deployment
from daskpki.deploy.gcloud import runner
from daskpki.deploy.iam import NO_FILES, Command, Kind, Resource
from daskpki.deploy.plan import Observed, plan, resources
from daskpki.pki.credential import parse_credential
from tests.support.capture_server import Clouds
from tests.support.deployments import IMAGE, SHARED, STORE, deployment
from tests.support.key_search import Canary
from tests.support.simulated_gcloud import SUBNET, simulated

pytestmark = pytest.mark.needs_gcloud

Deploy = Callable[..., list[dict[str, Any]]]
NODE = "serviceAccount:daskpki-lab-node@project-one.iam.gserviceaccount.com"
SCHEDULER = "zones/europe-west1-b/instances/daskpki-lab-node"
ALL_THAT_A_NODE_READS = {"trust", "scheduler_scheduler", "worker_worker", "secret_db-password"}
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
    assert metadata.keys() == {
        "user-data",
        "daskpki-facts",
        "enable-oslogin",
        "google-logging-enabled",
        "google-monitoring-enabled",
    }
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


@pytest.mark.timeout(600)
def test_a_group_of_workers_is_made_changed_and_removed(clouds: Clouds) -> None:
    run = runner(clouds.environ)
    email = "daskpki-lab-worker@project-one.iam.gserviceaccount.com"
    clouds.google.items[f"accounts/{email}"] = {"email": email}
    before = group_of(workers=2, subnet="dask", disk_size=50, disk_type="pd-ssd", spot=True, labels=("team=a",))
    after = group_of(workers=3, machine_type="e2-highcpu-8", surge=0)
    place = "zones/europe-west1-b/instanceGroupManagers/daskpki-lab-worker"
    found: dict[tuple[Kind, str], Resource] = {}
    for wanted in (before, after):
        steps = plan(wanted, Observed({one.key: one for one in found.values() if one.kind is Kind.GROUP}))
        carry_out(steps, run, progress=lambda _number, _step: None, sleep=lambda _seconds: None)
        found = {one.key: one for one in wanted}
    made = clouds.google.items[place]
    assert (made["targetSize"], made["instanceTemplate"].rpartition("/")[2]) == (3, after[0].name)
    assert made["updatePolicy"]["maxSurge"] == {"fixed": 0}
    assert made["updatePolicy"]["maxUnavailable"] == {"fixed": 1}
    properties = clouds.google.items[f"global/instanceTemplates/{before[0].name}"]["properties"]
    assert properties["serviceAccounts"][0]["email"] == email
    assert set(properties["shieldedInstanceConfig"].values()) == {True}
    disk = properties["disks"][0]["initializeParams"]
    assert (disk["diskSizeGb"], disk["diskType"]) == ("50", "pd-ssd")
    assert properties["scheduling"]["provisioningModel"] == "SPOT"
    assert properties["labels"]["team"] == "a"
    for command in (*after[1].delete, *after[0].delete):
        run(command, NO_FILES)
    assert place not in clouds.google.items


def group_of(**settings: object) -> tuple[Resource, Resource]:
    template, group = (one for one in resources(deployment(**settings)) if one.kind in (Kind.TEMPLATE, Kind.GROUP))
    return template, group


@pytest.mark.timeout(600)
def test_teardown_without_the_image_leaves_nothing(clouds: Clouds) -> None:
    """The repository of the image is known from the VMs, so that its bindings go as well."""
    base = [sys.executable, "-m", "daskpki", f"--store={STORE}", "--cluster=lab", "--json", "deploy", "gcp"]
    for arguments in ((f"--image={IMAGE}", "--zone=europe-west1-b", "--apply"), ("--destroy", "--apply", "--yes")):
        done = subprocess.run([*base, *arguments], env=clouds.environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (repository,) = (name for name in clouds.google.policies if "/repositories/" in name)
        bound = clouds.google.policies[repository].get("bindings")
        assert bool(bound) == ("--apply" in arguments and "--destroy" not in arguments)
    assert clouds.google.items == {}
    assert not any(policy.get("bindings") for policy in clouds.google.policies.values())


def test_gcloud_knows_every_command_that_a_plan_can_run(tmp_path: Path) -> None:
    """Judged by the CLI's own lint, also for what the capture server has no answer to."""
    private = {"private": True, "subnet": "dask", "iap": True, "disk_size": 50, "disk_type": "pd-ssd"}
    wanted = [
        deployment(
            workers=3, regional=True, surge=0, spot=True, labels=("team=a",), clients_from=("10.0.0.0/8",), **private
        ),
        deployment(**SHARED),
        deployment(),
    ]
    found = [one for each in wanted for one in resources(each)]
    updates = [one.update({name: ("0", value)}) for one in found for name, value in one.facts.items()]
    commands = [shlex.join(command) for one in found for command in (*one.create, *one.delete)]
    commands += [shlex.join(command) for update in updates if update for command in update.commands]
    assert {"resize", "start-update", "add-metadata"} <= {word for command in commands for word in command.split()}
    asked: list[Command] = []
    cloud = simulated()
    cloud.subnets = [{**SUBNET, "privateIpGoogleAccess": False}]
    cloud.routers = [{"network": SUBNET["network"], "nats": [{}]}]

    def run(command: Command, files: Mapping[str, str]) -> str:
        asked.append(command)
        return cloud(command, files)

    plan_deployment(run, wanted[0])
    find_scheduler(lambda command, _files: asked.append(command) or "", wanted[2])  # type: ignore[func-returns-value]
    commands += [shlex.join(command) for command in asked]
    bad = "gcloud compute instances create vm --no-such-option=1"
    file = tmp_path / "commands"
    file.write_text(json.dumps([{"command_string": one} for one in (*dict.fromkeys(commands), bad)]))
    lint = ["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={file}"]
    environment = {"PATH": os.environ["PATH"], "CLOUDSDK_CONFIG": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(lint, env=environment, capture_output=True, text=True, check=False)
    judged = json.loads(done.stdout.splitlines()[0])
    assert [(one["command_string"], one["error_message"]) for one in judged if not one["success"]][:-1] == []
    assert not judged[-1]["success"]

"""What cannot be deployed is refused, and the message says what would do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daskpki.deploy.blueprint import container, parts
from daskpki.deploy.settings import Owner, account_email, account_id, check_deployment, internal_host
from daskpki.errors import PolicyError, UsageError
from daskpki.settings import parse_store_url, require_gsm
from tests.support.deployments import deployment


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"zone": "europe-west1"}, "zone 'europe-west1'"),
        ({"zone": "europe-west1-b; id"}, "zone"),
        ({"image": "dask"}, "names no version"),
        ({"image": "dask:latest"}, "changes under the cluster"),
        ({"image": "a b:1"}, "names no version"),
        ({"image": "a:1\nExecStart=/bin/sh"}, "names no version"),
        ({"image": "a:$(id)"}, "names no version"),
        ({"machine_type": "--metadata"}, "machine type"),
        ({"network": "a,b"}, "network"),
        ({"subnet": "../x"}, "subnet"),
        ({"tags": ("a,b",)}, "tag"),
        ({"workers": -1}, "--workers -1"),
        ({"threads_per_worker": 0}, "--threads-per-worker 0"),
        ({"memory_per_worker": "1GB"}, "--memory-per-worker '1GB'"),
        ({"memory_per_worker": "0"}, "--memory-per-worker '0'"),
        ({"isolate_workers": True}, "--isolate-workers with --workers 0"),
        ({"isolate_workers": True, "workers": 51}, "not from 1 to 50"),
        ({"clients_from": ("0.0.0.0/0",)}, "names everybody"),
        ({"clients_from": ("0.0.0.0/1", "128.0.0.0/1")}, "'0.0.0.0/1' names more than a /8"),
        ({"clients_from": ("10.0.0.0/8", "128.0.0.0/7")}, "'128.0.0.0/7' names more than a /8"),
        ({"clients_from": ("203.0.113.7/24",)}, "has host bits set"),
        ({"clients_from": ("2001:db8::/32",)}, "is IPv6"),
        ({"clients_from": ("office",)}, "does not appear to be"),
        ({"ca_sha256": ""}, "--ca-sha256 '' is not well-formed"),
        ({"ca_sha256": "ab"}, "--ca-sha256 'ab'"),
        ({"ca_sha256": "x --privileged"}, "--ca-sha256 'x --privileged'"),
        ({"worker_clients": "some"}, "--worker-clients 'some'"),
        ({"scheduler_code": "shut"}, "--scheduler-code 'shut'"),
        ({"secrets": ("db-password",)}, "does not name a place"),
        ({"secrets": ("sm://p/s=fd",)}, "secret name"),
        ({"secrets": ("a=fd", "a=/run/secrets/a")}, "the secret a is named twice"),
        ({"secrets": ("a=/etc/passwd",)}, "a='/etc/passwd' is not on a tmpfs of the container"),
        ({"secrets": ("a=/run/secrets/%n",)}, "is not on a tmpfs"),
        ({"secrets": ("a=/tmp/b c",)}, "is not on a tmpfs"),
        ({"cluster": "My_Cluster"}, "cluster 'My_Cluster'"),
        *(
            ({"machine_type": kind}, "has GPUs or TPUs")
            for kind in (
                "g2-standard-4",
                "g4-standard-48",
                "a2-highgpu-1g",
                "a3-highgpu-8g",
                "a4-highgpu-8g",
                "ct5lp-hightpu-4t",
            )
        ),
        ({"scheduler_machine_type": "g2-standard-4"}, "has GPUs or TPUs"),
        ({"machine_type": "n1-standard-8", "accelerator": "nvidia-tesla-t4"}, "'nvidia-tesla-t4' has GPUs"),
        ({"machine_type": "t2a-standard-8"}, "has Arm processors"),
        ({"disk_size": 9}, "--disk-size 9 is not from 10"),
        ({"disk_type": "pd,ssd"}, "disk type"),
        ({"labels": ("Team=a",)}, "label 'Team=a'"),
        ({"labels": ("a=b,c=d",)}, "label"),
        ({"labels": ("managed-by=me",)}, "one of daskpki's"),
        ({"labels": ("a=b", "a=c")}, "given twice"),
        ({"spot": True}, "a single VM is the scheduler as well"),
        ({"regional": True}, "--regional is about a group"),
        ({"surge": 1}, "--surge is about a group"),
        ({"workers": 9, "regional": True, "surge": 2}, "neither 0 nor from 3"),
        ({"workers": 9, "surge": -1}, "neither 0 nor from 1"),
        ({"workers": 2, "isolate_workers": True, "worker_account": "w@p.iam.gserviceaccount.com"}, "about a group"),
        ({"scheduler_account": "me@example.com"}, "service account 'me@example.com'"),
        ({"network": "projects/host/global/networks/n"}, "is shared, and no subnet is named"),
        ({"subnet": "projects/h/regions/us-east1/subnetworks/s"}, "is not in europe-west1"),
    ],
)
def test_a_malformed_setting_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_deployment(replace(deployment(), **settings))  # type: ignore[arg-type] # fields by name
    assert check_deployment(deployment()) == deployment()


def test_a_local_store_and_a_projects_number_are_refused() -> None:
    with pytest.raises(UsageError, match="VMs cannot read the store 'local:'"):
        require_gsm(parse_store_url("local:"))
    with pytest.raises(UsageError, match="is a project's number"):
        check_deployment(replace(deployment(), store=require_gsm(parse_store_url("gsm://123456789"))))


def test_a_secret_goes_to_the_environment_only_where_that_was_allowed() -> None:
    wanted = replace(deployment(), secrets=("a=env:PGPASSWORD",))
    with pytest.raises(PolicyError, match="puts the value into the environment") as refusal:
        check_deployment(wanted)
    assert "--allow-secrets-in-environment" in str(refusal.value.hint)
    assert check_deployment(replace(wanted, secrets_in_environment=True)).mounts[0].variable == "PGPASSWORD"


def test_one_address_is_a_range() -> None:
    assert deployment(clients_from=("203.0.113.7", "203.0.113.7/32")).clients_from == ("203.0.113.7/32",)


def test_long_names_are_cut_and_stay_apart() -> None:
    first, second = (account_id("a" * 40 + last, "worker") for last in "xy")
    assert len(first) == len(second) == 30
    assert first != second
    assert account_id("lab", "worker") == "daskpki-lab-worker"
    assert len(Owner("project-one", "a" * 63).name("workers-to-scheduler-0")) == 63


def test_projects_of_a_domain_are_named_the_other_way_round() -> None:
    assert account_email("example.com:p1", "a") == "a@p1.example.com.iam.gserviceaccount.com"
    assert internal_host("example.com:p1", "us-east1-b", "vm") == "vm.us-east1-b.c.p1.example.com.internal"
    assert account_email("project-one", "a") == "a@project-one.iam.gserviceaccount.com"


def test_the_scheduler_alone_is_told_what_it_may_unpickle() -> None:
    wanted = deployment(workers=2, scheduler_code="sealed")
    told = {part.command: container(wanted, part).environment.get("DASKPKI_SCHEDULER_CODE") for part in parts(wanted)}
    assert told == {"scheduler": "sealed", "worker": None}
    (node,) = parts(deployment(scheduler_code="sealed"))
    assert container(deployment(scheduler_code="sealed"), node).environment["DASKPKI_SCHEDULER_CODE"] == "sealed"

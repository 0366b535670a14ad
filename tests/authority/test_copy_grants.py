"""Grants come with a copy on request: those that `daskpki grant` gives, to whom it gives them, and the rest is told."""

from __future__ import annotations

import pytest
from google.api_core.exceptions import Forbidden
from google.iam.v1 import policy_pb2

from daskpki import secret_names
from daskpki.grants import ACCESSOR
from tests.emulator import SecretManagerServer
from tests.emulator.clients import grpc_client
from tests.support.command_stores import CLOUD
from tests.support.running import Run

WORKER = "serviceAccount:worker@my-project.iam.gserviceaccount.com"
ALICE = "user:alice@example.com"
ELSEWHERE = "gsm://other-project"
TRUST, WORKERS = secret_names.trust_id("default"), "daskpki_default_worker_worker"
CONDITION = 'resource.type == "secretmanager.googleapis.com/SecretVersion"'
OWN = "user:auditor@example.com"


@pytest.fixture
def granted(cloud: Run) -> Run:
    """A cluster on Secret Manager whose workers and whose alice read what is theirs."""
    cloud("init-ca", "--with", "worker,client/alice")
    cloud("grant", "worker", "--to", WORKER)
    cloud("grant", "client/alice", "--to", ALICE)
    return cloud


def bind(server: SecretManagerServer, project: str, *bindings: tuple[str, str, str]) -> None:
    """Add bindings (role, member, condition) on the worker's secret as gcloud does, beside those that are there."""
    client, resource = grpc_client(server.grpc_target), f"projects/{project}/secrets/{WORKERS}"
    policy = client.get_iam_policy(request={"resource": resource, "options": {"requested_policy_version": 3}})
    for role, member, condition in bindings:
        binding = policy.bindings.add(role=role, members=[member])
        if condition:
            binding.condition.expression, binding.condition.title = condition, "temporary"
    policy.version = 3
    client.set_iam_policy(request={"resource": resource, "policy": policy})


def readable(server: SecretManagerServer, member: str, project: str) -> set[str]:
    """Which secrets of the copy the official client gets as that member, with IAM enforced."""
    server.iam.enforced = True
    client = grpc_client(server.grpc_target, server.tokens.issue(member).text)
    found = set()
    for secret in (TRUST, WORKERS, "daskpki_default_client_alice"):
        try:
            client.access_secret_version(name=f"projects/{project}/secrets/{secret}/versions/1")
        except Forbidden:
            continue
        found.add(secret)
    server.iam.enforced = False
    return found


def test_the_same_members_read_the_copy(granted: Run, server: SecretManagerServer) -> None:
    told = granted("copy", "--to", ELSEWHERE, "--json")
    assert told.json()["grants"] is None
    assert "Between two stores on Secret Manager, --grants copies them" in told.err
    assert readable(server, WORKER, "other-project") == set()
    document = granted("copy", "--to", ELSEWHERE, "--grants", "--json").json()
    assert (len(document["grants"]), document["grants_left"]) == (4, [])
    for member in (WORKER, ALICE):
        assert readable(server, member, "other-project") == readable(server, member, "my-project")
    assert {TRUST, WORKERS} <= readable(server, WORKER, "other-project")
    assert granted("grant", "--json", "--store", ELSEWHERE).json() == granted("grant", "--json").json()
    writes = server.count("SetIamPolicy")
    granted("copy", "--to", ELSEWHERE, "--grants")
    assert server.count("SetIamPolicy") == writes, "nothing was left to give"


def test_what_daskpki_grant_would_not_give_is_told_and_not_given(granted: Run, server: SecretManagerServer) -> None:
    foreign = [
        (ACCESSOR, "allAuthenticatedUsers", ""),
        (ACCESSOR, "domain:example.com", ""),
        (ACCESSOR, f"deleted:{WORKER}?uid=1", ""),
        (ACCESSOR, "user:guest@example.com", CONDITION),
        ("roles/secretmanager.admin", "user:boss@example.com", ""),
    ]
    bind(server, "my-project", *foreign)
    granted("copy", "--to", ELSEWHERE)
    bind(server, "other-project", (ACCESSOR, OWN, ""))
    told = granted("copy", "--to", ELSEWHERE, "--grants")
    assert "4 grants, each in the policy of its copy" in told.out
    for role, member, condition in foreign:
        line = f"not copied, because daskpki grant does not make such a grant: {member} has {role} on {WORKERS}"
        assert line + (f" under the condition {condition}" if condition else "") in told.out.splitlines()
    listed = granted("grant", "worker", "--json", "--store", ELSEWHERE).json()
    members = {bound["member"] for one in listed if one["secret"] == WORKERS for bound in one["bindings"]}
    assert members == {WORKER, OWN}, "the target keeps its own"


def test_a_grant_that_did_not_hold_is_found(granted: Run, server: SecretManagerServer) -> None:
    def undo(_: object) -> None:
        """Somebody else takes it away in between."""
        empty = policy_pb2.Policy()
        resource = f"projects/other-project/secrets/{WORKERS}"
        grpc_client(server.grpc_target).set_iam_policy(request={"resource": resource, "policy": empty})

    granted("copy", "--to", ELSEWHERE)
    policies = len(granted("grant", "--json").json())
    carried = 4
    server.before("GetIamPolicy", undo, nth=policies + carried + 1)
    refused = granted("copy", "--to", ELSEWHERE, "--grants", code=3)
    assert f"{WORKER} was granted {WORKERS}" in refused.err


def test_a_local_store_has_none_and_nothing_is_copied(
    local: Run, cloud: Run, server: SecretManagerServer, tmp_path: object
) -> None:
    local("init-ca")
    refused = local("copy", "--to", CLOUD, "--grants", code=2)
    assert "has no grants; only Secret Manager has them" in refused.err
    assert not server.count("CreateSecret")
    assert "No grants were copied. Between two stores" in local("copy", "--to", CLOUD).err
    there = ("--to", f"local:{tmp_path}/back", "--key-file", f"{tmp_path}/store.key")
    assert f"local:{tmp_path}/back has no grants" in cloud("copy", "--grants", *there, code=2).err
    assert "No grants were copied. Between two stores" in cloud("copy", *there).err


def test_without_the_right_to_set_policies_the_copy_holds_all_the_same(
    granted: Run, server: SecretManagerServer
) -> None:
    fault = server.fail("SetIamPolicy", times=None, http=403)
    assert granted("copy", "--to", ELSEWHERE, "--grants", code=5).err
    server.faults.remove(fault)
    assert granted("list", "--json", "--store", ELSEWHERE).json() == granted("list", "--json").json()
    granted("copy", "--to", ELSEWHERE, "--grants")
    assert readable(server, WORKER, "other-project") == readable(server, WORKER, "my-project")

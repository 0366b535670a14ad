"""`daskpki grant` as an operator runs it: by a service account, IAM enforced."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from daskpki import secret_names
from tests.emulator import MetadataServer, SecretManagerServer
from tests.emulator.iam import ROLES
from tests.support.accounts import account
from tests.support.grantees import ALICE, KINDS, WORKER
from tests.support.running import Run, runner

OPERATOR = "operator@test-project.iam.gserviceaccount.com"
PAYLOAD_FREE = [one for one in ROLES["roles/secretmanager.admin"] if one != "secretmanager.versions.access"]


@pytest.fixture
def server() -> Iterator[SecretManagerServer]:
    with SecretManagerServer(enforce_iam=True) as server:
        for kind in KINDS:
            label, _, name = kind.partition("_")
            secret = f"projects/test-project/secrets/daskpki_lab_{kind}"
            server.seed(secret, b"x", labels=secret_names.labels("lab", label, name or None))
        server.iam.define_role("roles/operating", PAYLOAD_FREE)
        server.iam.grant("test-project", "roles/operating", f"serviceAccount:{OPERATOR}")
        yield server


@pytest.fixture
def grant(server: SecretManagerServer) -> Iterator[Run]:
    metadata = MetadataServer(server.tokens, account=OPERATOR)
    environ = {"DASKPKI_SECRET_MANAGER_ENDPOINT": f"grpc://{server.grpc_target}"}
    with account(metadata, "--store=gsm://test-project", "--cluster=lab", "grant", environ=environ) as run:
        yield run


def test_an_operator_grants_checks_and_revokes_without_reading_a_key(server: SecretManagerServer, grant: Run) -> None:
    assert "no grants" in grant().out
    narrow = grant("--check", code=1)
    assert narrow.out.count("too narrow: ") == 4
    assert "not seen: grants on the project" in narrow.err
    done = grant("worker", "--to", WORKER)
    assert done.out.splitlines()[-1] == f"{WORKER} now reads daskpki_lab_worker_worker"
    for who, member in {
        "scheduler": "serviceAccount:s@test-project.iam.gserviceaccount.com", "client/alice": ALICE,
        "client/bob": "user:bob@example.com",
    }.items():  # fmt: skip
        grant(who, "--to", member)
    assert grant("--check").out == "every grant is as it should be\n"
    listed = grant("worker", "--json").json()
    assert {one["secret"]: len(one["bindings"]) for one in listed} == {
        "daskpki_lab_trust": 4, "daskpki_lab_worker_worker": 1,
    }  # fmt: skip
    assert server.count("AccessSecretVersion") == 0
    revoked = grant("client/alice", "--to", ALICE, "--revoke")
    assert f"{ALICE} no longer reads daskpki_lab_client_alice" in revoked.out


def test_what_is_too_wide_ends_with_exit_code_3(server: SecretManagerServer, grant: Run) -> None:
    server.iam.grant("test-project", "roles/secretmanager.secretAccessor", f"serviceAccount:{OPERATOR}")
    wide = grant("--check", "--json", code=3)
    found = [one for one in wide.json()["findings"] if one["severity"] == "too wide"]
    assert [one["secret"] for one in found] == ["daskpki_lab_scheduler_scheduler", "daskpki_lab_worker_worker"]
    assert "perhaps by roles/secretmanager.admin on the project" in found[0]["reason"]


def test_misuse_says_what_would_do(grant: Run) -> None:
    cases = {
        ("worker", "--revoke"): "a grant needs a secret and a member",
        ("--to", WORKER): "a grant needs a secret and a member",
        ("worker", "--check"): "--check looks at all grants",
        ("worker", "--to", "bob"): "'bob' is not a member",
    }
    for arguments, message in cases.items():
        assert message in grant(*arguments, code=2).err


def test_on_a_local_store_it_says_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    done = runner(capsys, "--store", "local:/nonexistent")("grant", "worker", "--to", WORKER, code=2)
    assert done.out == ""
    assert "local:/nonexistent has no grants" in done.err


def test_without_the_permission_the_operator_learns_which_is_missing(server: SecretManagerServer, grant: Run) -> None:
    server.iam.withdraw("test-project", "roles/operating", f"serviceAccount:{OPERATOR}")
    assert "secretmanager.secrets.get is not granted" in grant("worker", "--to", WORKER, code=5).err

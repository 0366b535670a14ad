"""`daskpki grant` as an operator runs it: a process of its own, its own service account, IAM enforced."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from daskpki import secret_names
from tests.emulator import MetadataServer, SecretManagerServer
from tests.emulator.iam import ROLES
from tests.grants.conftest import ALICE, KINDS, WORKER

OPERATOR = "operator@test-project.iam.gserviceaccount.com"
PAYLOAD_FREE = [one for one in ROLES["roles/secretmanager.admin"] if one != "secretmanager.versions.access"]
Grant = Callable[..., subprocess.CompletedProcess[str]]


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
def grant(server: SecretManagerServer) -> Iterator[Grant]:
    with MetadataServer(server.tokens, account=OPERATOR) as metadata:
        endpoint = {"DASKPKI_SECRET_MANAGER_ENDPOINT": f"grpc://{server.grpc_target}"}
        environ = {**os.environ, **metadata.environment, **endpoint}

        def run(*arguments: str, store: str = "gsm://test-project") -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "daskpki", f"--store={store}", "--cluster=lab", "grant", *arguments]
            return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)

        yield run


def test_an_operator_grants_checks_and_revokes_without_reading_a_key(server: SecretManagerServer, grant: Grant) -> None:
    assert "no grants" in grant().stdout
    narrow = grant("--check")
    assert narrow.returncode == 1
    assert narrow.stdout.count("too narrow: ") == 4
    assert "not seen: grants on the project" in narrow.stderr
    done = grant("worker", "--to", WORKER)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{WORKER} now reads daskpki_lab_worker_worker"
    for who, member in {
        "scheduler": "serviceAccount:s@test-project.iam.gserviceaccount.com", "client/alice": ALICE,
        "client/bob": "user:bob@example.com",
    }.items():  # fmt: skip
        assert grant(who, "--to", member).returncode == 0
    clean = grant("--check")
    assert (clean.returncode, clean.stdout) == (0, "every grant is as it should be\n")
    listed = json.loads(grant("worker", "--json").stdout)
    assert {one["secret"]: len(one["bindings"]) for one in listed} == {
        "daskpki_lab_trust": 4, "daskpki_lab_worker_worker": 1,
    }  # fmt: skip
    assert server.count("AccessSecretVersion") == 0
    assert (
        f"{ALICE} no longer reads daskpki_lab_client_alice" in grant("client/alice", "--to", ALICE, "--revoke").stdout
    )


def test_what_is_too_wide_ends_with_exit_code_3(server: SecretManagerServer, grant: Grant) -> None:
    server.iam.grant("test-project", "roles/secretmanager.secretAccessor", f"serviceAccount:{OPERATOR}")
    wide = grant("--check", "--json")
    assert wide.returncode == 3
    found = [one for one in json.loads(wide.stdout)["findings"] if one["severity"] == "too wide"]
    assert [one["secret"] for one in found] == ["daskpki_lab_scheduler_scheduler", "daskpki_lab_worker_worker"]
    assert "perhaps by roles/secretmanager.admin on the project" in found[0]["reason"]


def test_misuse_says_what_would_do(grant: Grant) -> None:
    cases = {
        ("worker", "--revoke"): "a grant needs a secret and a member",
        ("--to", WORKER): "a grant needs a secret and a member",
        ("worker", "--check"): "--check looks at all grants",
        ("worker", "--to", "bob"): "'bob' is not a member",
    }
    for arguments, message in cases.items():
        done = grant(*arguments)
        assert done.returncode == 2
        assert message in done.stderr


def test_on_a_local_store_it_says_why_not(grant: Grant) -> None:
    done = grant("worker", "--to", WORKER, store="local:/nonexistent")
    assert (done.returncode, done.stdout) == (2, "")
    assert "local:/nonexistent has no grants" in done.stderr


def test_without_the_permission_the_operator_learns_which_is_missing(server: SecretManagerServer, grant: Grant) -> None:
    server.iam.withdraw("test-project", "roles/operating", f"serviceAccount:{OPERATOR}")
    done = grant("worker", "--to", WORKER)
    assert done.returncode == 5
    assert "secretmanager.secrets.get is not granted" in done.stderr

"""The published roles of operators and granters: which commands work with them, and which need to read a leaf."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import yaml

from daskpki.grants import (
    GRANTER_ROLE,
    OPERATOR_PERMISSIONS,
    OPERATOR_ROLE,
    OPERATOR_ROLE_TITLE,
)
from tests.emulator import MetadataServer, SecretManagerServer
from tests.emulator.iam import ROLES
from tests.support.accounts import account
from tests.support.paths import DOCS
from tests.support.running import Run

OPERATOR = "operator@test-project.iam.gserviceaccount.com"
GRANTER = "granter@test-project.iam.gserviceaccount.com"
OWNER = "owner@test-project.iam.gserviceaccount.com"
GRANTER_PERMISSIONS = (
    "secretmanager.secrets.get",
    "secretmanager.secrets.getIamPolicy",
    "secretmanager.secrets.list",
    "secretmanager.secrets.setIamPolicy",
)
PUBLISHED = {
    OPERATOR_ROLE: (OPERATOR_ROLE_TITLE, OPERATOR_PERMISSIONS, "operator-role.yaml"),
    GRANTER_ROLE: ("daskpki granter: sets who may read which secret", GRANTER_PERMISSIONS, "granter-role.yaml"),
}
GOOGLES = json.loads(Path(__file__).with_name("secretmanager_permissions.json").read_text())
"""Google's list of each role's permissions in Secret Manager, from the page and the day that it names."""


@pytest.mark.parametrize("role", PUBLISHED)
def test_the_published_file_is_the_role(role: str) -> None:
    title, permissions, file = PUBLISHED[role]
    text = (DOCS / "deploy" / file).read_text()
    document = yaml.safe_load(text)
    assert document == {"title": title, "stage": "GA", "includedPermissions": list(permissions)}
    assert f"gcloud iam roles create {role} --project=PROJECT --file={file}" in text
    assert set(permissions) < set(GOOGLES["roles/secretmanager.admin"])
    assert "secretmanager.versions.access" not in permissions
    assert ("secretmanager.secrets.setIamPolicy" in permissions) == (role == GRANTER_ROLE)
    assert len(title) <= 100  # IAM's limit


def test_an_operator_has_all_of_googles_list_but_reading_granting_and_tags() -> None:
    left_out = set(GOOGLES["roles/secretmanager.admin"]) - set(OPERATOR_PERMISSIONS)
    tags = {one for one in left_out if "Tag" in one}
    assert left_out - tags == {"secretmanager.versions.access", "secretmanager.secrets.setIamPolicy"}
    page = (DOCS / "deploy" / "google-cloud.md").read_text()
    assert f"{GOOGLES['page']}" in page
    assert f"{GOOGLES['read']}" in page


def test_the_test_server_gives_each_role_what_google_gives_it() -> None:
    for role, permissions in GOOGLES.items():
        if role.startswith("roles/"):
            # The server has no tags and lists no locations.
            known = {one for one in permissions if "Tag" not in one and ".locations." not in one}
            assert ROLES[role] == known, role


@pytest.fixture
def server() -> Iterator[SecretManagerServer]:
    """A cluster that the owner made; the operator has the two bindings that the docs show."""
    with SecretManagerServer(enforce_iam=True) as server:
        for role, (_, permissions, _) in PUBLISHED.items():
            server.iam.define_role(f"projects/test-project/roles/{role}", permissions)
        server.iam.grant("test-project", "roles/owner", f"serviceAccount:{OWNER}")
        server.iam.grant("test-project", f"projects/test-project/roles/{OPERATOR_ROLE}", f"serviceAccount:{OPERATOR}")
        server.iam.grant("test-project", f"projects/test-project/roles/{GRANTER_ROLE}", f"serviceAccount:{GRANTER}")
        yield server


def running(server: SecretManagerServer, email: str, home: Path) -> AbstractContextManager[Run]:
    environ = {"DASKPKI_SECRET_MANAGER_ENDPOINT": f"grpc://{server.grpc_target}", "DASKPKI_HOME": str(home)}
    metadata = MetadataServer(server.tokens, account=email)
    common = ("--store=gsm://test-project", "--cluster=lab")
    return account(metadata, *common, environ={**environ, "HOME": str(home)})


def test_an_operator_with_the_published_role_does_all_but_read_leaves(
    server: SecretManagerServer, tmp_path: Path
) -> None:
    with running(server, OWNER, tmp_path / "owner") as owner, running(server, OPERATOR, tmp_path / "op") as operator:
        owner("init-ca", "--with=scheduler,worker,client/alice")
        new = operator("--cluster=new", "init-ca", code=5)  # it cannot read the log that it makes
        assert "secretmanager.versions.access" in new.err
        owner("--cluster=new", "init-ca")  # and what is there is in nobody's way
        for target in ("trust", "records", "cakey/1"):
            owner("grant", target, "--to", f"serviceAccount:{OPERATOR}")
        for role in ("scheduler", "worker"):
            owner("grant", role, "--to", f"serviceAccount:{role}@test-project.iam.gserviceaccount.com")
        owner("grant", "client/alice", "--to", "user:alice@example.com")
        for works in (
            "list", "show worker/worker", "audit",
            f"report --html {tmp_path}/r.html", "issue client --name bob",
            "renew worker/worker", "renew --due",
            "revoke client/bob --no-push", "crl", "grant", "rotate-ca status",
        ):  # fmt: skip
            operator(*works.split())
        for stops in (
            ["export", "worker/worker", "--out", str(tmp_path / "x")],
            ["login", "--name", "alice"],
            ["copy", "--to", "gsm://test-project/europe-west1"],
            ["grant", "client/alice", "--to", f"serviceAccount:{OPERATOR}"],
        ):
            operator(*stops, code=5)
        judged = operator("grant", "--check", code=None)
        assert "client_bob" in judged.out  # nobody reads it yet
        owner("grant", "client/bob", "--to", "user:bob@example.com")
        assert operator("grant", "--check").out == "every grant is as it should be\n"
        assert "too wide" not in operator("doctor", "--json", code=None).out
        wide = owner("grant", "--check", code=3)
        operator("rotate-ca", "start")
        operator("rotate-ca", "promote", code=5)  # it cannot read the key that it made
        assert "gcloud projects remove-iam-policy-binding test-project --member=MEMBER" in wide.out


def test_a_granter_grants_and_reads_nothing_until_he_grants_it_to_himself(
    server: SecretManagerServer, tmp_path: Path
) -> None:
    with running(server, OWNER, tmp_path / "owner") as owner, running(server, GRANTER, tmp_path / "g") as granter:
        owner("init-ca", "--with=worker")
        granter("grant", "worker", "--to", "serviceAccount:w@test-project.iam.gserviceaccount.com")
        granter("issue", "worker", "--name", "w-1", code=5)
        out = str(tmp_path / "out")
        granter("export", "worker/worker", "--out", out, code=5)
        for target in ("worker", "records"):
            granter("grant", target, "--to", f"serviceAccount:{GRANTER}")
        granter("export", "worker/worker", "--out", out)  # who sets policies can read

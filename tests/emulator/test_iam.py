"""Who may do what: tokens, roles, grants on projects and secrets, conditions, and policies with their etags."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from google.api_core import exceptions
from google.auth.exceptions import RefreshError
from google.cloud.secretmanager_v1 import SecretManagerServiceClient
from google.iam.v1 import policy_pb2

from tests.emulator.calls import access, add, create
from tests.emulator.clients import connect
from tests.emulator.iam import ROLES
from tests.emulator.names import project_number
from tests.emulator.server import SecretManagerServer

SECRET = "projects/p/secrets/s"
ALICE = "user:alice@example.com"
WORKER = "serviceAccount:worker@p.iam.gserviceaccount.com"
As = Callable[[str], SecretManagerServiceClient]


@pytest.fixture
def server() -> Iterator[SecretManagerServer]:
    with SecretManagerServer(enforce_iam=True) as running:
        running.seed(SECRET, b"one")
        yield running


@pytest.fixture(params=["grpc", "rest"])
def client_of(server: SecretManagerServer, request: pytest.FixtureRequest) -> As:
    return lambda principal: connect(server, request.param, server.tokens.issue(principal).text)


def bind(client: SecretManagerServiceClient, role: str, *members: str, etag: bytes = b"") -> policy_pb2.Policy:
    policy = policy_pb2.Policy(bindings=[policy_pb2.Binding(role=role, members=members)], etag=etag)
    return client.set_iam_policy(request={"resource": SECRET, "policy": policy})


def test_without_a_grant_nothing_is_told_of_what_exists(server: SecretManagerServer, client_of: As) -> None:
    client = client_of(WORKER)
    for name in (SECRET, "projects/p/secrets/nosuch"):
        with pytest.raises(exceptions.PermissionDenied if connect_is_grpc(client) else exceptions.Forbidden) as refusal:
            access(client, name, "latest")
        assert refusal.value.message.endswith(
            f"Permission 'secretmanager.versions.access' denied for resource '{name}/versions/latest'"
            " (or it may not exist)."
        )
        assert refusal.value.reason == "IAM_PERMISSION_DENIED"
    assert [entry.status for entry in server.requests()] == ["PERMISSION_DENIED"] * 2


def connect_is_grpc(client: SecretManagerServiceClient) -> bool:
    return client.transport.kind == "grpc"


def test_a_grant_on_the_secret_is_for_that_secret_and_that_permission(
    server: SecretManagerServer, client_of: As
) -> None:
    server.seed("projects/p/secrets/other", b"x")
    server.iam.grant("p", "roles/secretmanager.admin", ALICE)
    bind(client_of(ALICE), "roles/secretmanager.secretAccessor", WORKER)
    worker = client_of(WORKER)
    assert access(worker, SECRET, 1) == b"one"
    for forbidden in (
        lambda: access(worker, "projects/p/secrets/other", 1),
        lambda: add(worker, SECRET, b"two"),
        lambda: worker.get_secret(name=SECRET),
        lambda: worker.list_secret_versions(parent=SECRET),
        lambda: worker.list_secrets(parent="projects/p"),
    ):
        with pytest.raises(exceptions.Forbidden):
            forbidden()


def test_an_adder_cannot_read(server: SecretManagerServer, client_of: As) -> None:
    server.iam.grant("p", "roles/secretmanager.secretVersionAdder", ALICE)
    add(client_of(ALICE), SECRET, b"two")
    with pytest.raises(exceptions.Forbidden):
        access(client_of(ALICE), SECRET, 2)


def test_with_permission_what_is_missing_is_not_found(server: SecretManagerServer, client_of: As) -> None:
    server.iam.grant_prefix("p", "roles/secretmanager.secretAccessor", WORKER, prefix="daskpki_c_worker_")
    with pytest.raises(exceptions.NotFound):
        access(client_of(WORKER), "projects/p/secrets/daskpki_c_worker_w", 1)
    with pytest.raises(exceptions.Forbidden):
        access(client_of(WORKER), "projects/p/secrets/daskpki_c_scheduler_s", 1)


def test_a_condition_by_prefix_never_grants_create_or_list(server: SecretManagerServer, client_of: As) -> None:
    server.iam.grant_prefix("p", "roles/secretmanager.admin", ALICE, prefix="daskpki_")
    client = client_of(ALICE)
    for forbidden in (lambda: create(client, "daskpki_x"), lambda: client.list_secrets(parent="projects/p")):
        with pytest.raises(exceptions.Forbidden):
            forbidden()


def test_grants_end_at_the_project_and_can_be_withdrawn(server: SecretManagerServer, client_of: As) -> None:
    server.iam.grant("q", "roles/owner", ALICE)
    with pytest.raises(exceptions.Forbidden):
        access(client_of(ALICE), SECRET, 1)
    server.iam.grant(project_number("p"), "roles/owner", ALICE)
    assert access(client_of(ALICE), SECRET, 1) == b"one"
    server.iam.withdraw("p", "roles/owner", ALICE)
    with pytest.raises(exceptions.Forbidden):
        access(client_of(ALICE), SECRET, 1)


def test_policies_have_their_own_etag(server: SecretManagerServer, client_of: As) -> None:
    server.iam.grant("p", "roles/owner", ALICE)
    client = client_of(ALICE)
    before = client.get_secret(name=SECRET)
    empty = client.get_iam_policy(request={"resource": SECRET})
    role = "roles/secretmanager.secretAccessor"
    first = bind(client, role, WORKER, etag=empty.etag)
    assert first.etag not in (b"", empty.etag)
    with pytest.raises(exceptions.Aborted if connect_is_grpc(client) else exceptions.Conflict, match="concurrent"):
        bind(client, role, ALICE, etag=empty.etag)
    assert client.get_iam_policy(request={"resource": SECRET}) == first
    assert client.get_secret(name=SECRET) == before


def test_conditions_need_and_show_with_policy_version_3(server: SecretManagerServer, client_of: As) -> None:
    server.iam.grant("p", "roles/owner", ALICE)
    client = client_of(ALICE)
    binding = policy_pb2.Binding(role="roles/secretmanager.secretAccessor", members=[WORKER])
    binding.condition.expression = 'resource.name.endsWith("/versions/1")'
    request = {"resource": SECRET, "policy": policy_pb2.Policy(bindings=[binding])}
    with pytest.raises(exceptions.BadRequest, match="version 3"):
        client.set_iam_policy(request=request)
    request["policy"] = policy_pb2.Policy(bindings=[binding], version=3)
    client.set_iam_policy(request=request)
    assert access(client_of(WORKER), SECRET, 1) == b"one"
    hidden = client.get_iam_policy(request={"resource": SECRET})
    assert "_withcond_" in hidden.bindings[0].role
    options = {"requested_policy_version": 3}
    assert list(client.get_iam_policy(request={"resource": SECRET, "options": options}).bindings) == [binding]


@pytest.mark.parametrize(
    "binding",
    [
        policy_pb2.Binding(role="roles/nosuch", members=[ALICE]),
        policy_pb2.Binding(role="roles/secretmanager.viewer", members=["alice"]),
    ],
)
def test_policies_that_make_no_sense_are_refused(
    server: SecretManagerServer, client_of: As, binding: policy_pb2.Binding
) -> None:
    server.iam.grant("p", "roles/owner", ALICE)
    request = {"resource": SECRET, "policy": policy_pb2.Policy(bindings=[binding])}
    with pytest.raises(exceptions.BadRequest):
        client_of(ALICE).set_iam_policy(request=request)


def test_test_iam_permissions_tells_what_is_granted(server: SecretManagerServer, client_of: As) -> None:
    server.iam.grant("p", "roles/secretmanager.secretVersionManager", ALICE)
    asked = ["secretmanager.versions.access", "secretmanager.versions.add", "secretmanager.versions.list"]
    reply = client_of(ALICE).test_iam_permissions(request={"resource": SECRET, "permissions": asked})
    assert list(reply.permissions) == asked[1:]


@pytest.mark.parametrize("role", sorted(ROLES))
def test_only_owner_admin_and_accessor_read_payloads(server: SecretManagerServer, role: str) -> None:
    reads = role in ("roles/owner", "roles/secretmanager.admin", "roles/secretmanager.secretAccessor")
    server.iam.grant("p", role, ALICE)
    assert server.iam.allows(ALICE, "secretmanager.versions.access", f"projects/{project_number('p')}", []) is reads


def test_tokens_expire_and_are_revoked(server: SecretManagerServer) -> None:
    server.iam.grant("p", "roles/owner", ALICE)
    token = server.tokens.issue(ALICE, lifetime=3600)
    client = connect(server, "grpc", token.text)
    assert access(client, SECRET, 1) == b"one"
    server.clock.advance(3601)
    with pytest.raises(exceptions.Unauthenticated) as refusal:
        access(client, SECRET, 1)
    assert refusal.value.reason == "ACCESS_TOKEN_EXPIRED"
    token = server.tokens.issue(ALICE)
    server.tokens.revoke(token.text)
    with pytest.raises(RefreshError):  # google-auth's answer to a 401 that it cannot refresh
        access(connect(server, "rest", token.text), SECRET, 1)
    assert server.requests()[-1].http_status == 401
    with pytest.raises(exceptions.Unauthenticated):
        access(connect(server, "grpc"), SECRET, 1)


def test_scopes_come_before_grants(server: SecretManagerServer, client_of: As) -> None:
    server.iam.grant("p", "roles/owner", ALICE)
    scopes = ["https://www.googleapis.com/auth/logging.write"]
    client = connect(server, "rest", server.tokens.issue(ALICE, scopes=scopes).text)
    with pytest.raises(exceptions.Forbidden, match="insufficient authentication scopes") as refusal:
        access(client, SECRET, 1)
    assert refusal.value.reason == "ACCESS_TOKEN_SCOPE_INSUFFICIENT"
    assert "insufficient_scope" in refusal.value.response.headers["WWW-Authenticate"]
    assert access(client_of(ALICE), SECRET, 1) == b"one"

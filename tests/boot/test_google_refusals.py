"""What a boot says about a refusal comes from the answer; what waiting may mend is waited for, and nothing else is."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daskpki.errors import AccessDeniedError, UnavailableError
from tests.emulator.http_listener import HttpReply, HttpRequest, serving
from tests.support.boot_cloud import TOKEN_PATH, Cloud, boot_here, run_entrypoint, service_account
from tests.support.nightly import sample

KEY = "projects/keys/locations/global/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"
GRANT = {"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "iam.serviceAccounts.getAccessToken denied"}}


def parameters(error: object) -> str:
    return f"{error} {getattr(error, 'hint', '')}"


@pytest.mark.parametrize("state", ["DISABLED", "DESTROYED", "DESTROY_SCHEDULED"])
def test_a_key_that_encrypts_a_secret_is_no_version_of_it(cloud: Cloud, state: str) -> None:
    message = f"{KEY} cannot be used, its state is {state}"
    cloud.server.fail("AccessSecretVersion", status="FAILED_PRECONDITION", message=message)
    with pytest.raises(AccessDeniedError) as caught:
        boot_here(cloud.environ, "scheduler")
    assert KEY in str(caught.value)
    assert "gcloud kms keys versions" in parameters(caught.value)
    assert "roll back" not in parameters(caught.value)


@pytest.mark.parametrize(
    ("reason", "metadata", "named", "absent"),
    [
        (
            "SERVICE_DISABLED",
            {"consumer": "projects/1111", "service": "secretmanager.googleapis.com"},
            "1111",
            "--project test-project",
        ),
        ("SERVICE_DISABLED", {"consumer": "projects/99", "service": "cloudkms.googleapis.com"}, "cloudkms", "secretm"),
        ("SERVICE_DISABLED", {}, "--project test-project", "1111"),
        ("USER_PROJECT_DENIED", {"consumer": "projects/1111"}, "set-quota-project", "VPC"),
        ("BILLING_DISABLED", {"consumer": "projects/1111"}, "project 1111 has no billing account", "VPC"),
    ],
)
def test_what_is_refused_before_any_api_names_the_project_and_the_api(
    cloud: Cloud, reason: str, metadata: dict[str, str], named: str, absent: str
) -> None:
    cloud.server.fail("AccessSecretVersion", status="PERMISSION_DENIED", reason=reason, metadata=metadata)
    with pytest.raises(AccessDeniedError) as caught:
        boot_here(cloud.environ, "scheduler")
    assert named in parameters(caught.value)
    assert absent not in parameters(caught.value)


def test_a_permission_on_another_api_is_not_told_as_one_on_the_secret(cloud: Cloud) -> None:
    permission = "cloudkms.cryptoKeyVersions.useToDecrypt"
    cloud.server.fail(
        "AccessSecretVersion",
        times=None,
        status="PERMISSION_DENIED",
        reason="IAM_PERMISSION_DENIED",
        metadata={"permission": permission},
    )
    with pytest.raises(UnavailableError) as caught:  # a new grant takes minutes to act
        boot_here(cloud.environ | {"DASKPKI_DEADLINE": "1"}, "scheduler")
    assert f"a role with {permission}" in parameters(caught.value)
    assert "secretAccessor" not in parameters(caught.value)


def test_an_aborted_read_is_taken_again(cloud: Cloud) -> None:
    cloud.server.fail("AccessSecretVersion", times=2, http=409)
    assert boot_here(cloud.environ, "scheduler").started


def test_the_metadata_servers_own_words_are_told_and_a_binding_is_waited_for(cloud: Cloud) -> None:
    words = "the node cannot make a token: the binding of roles/iam.workloadIdentityUser is missing"
    cloud.metadata.fail(TOKEN_PATH, times=None, http=403, message=words)
    with pytest.raises(UnavailableError, match=r"roles/iam\.workloadIdentityUser is missing") as caught:
        boot_here(cloud.environ | {"DASKPKI_DEADLINE": "1"}, "scheduler")
    assert "disable-http-mds" not in parameters(caught.value)
    cloud.metadata.faults.clear()
    cloud.metadata.fail(TOKEN_PATH, times=2, http=403, message=words)
    assert boot_here(cloud.environ, "scheduler").started


@contextmanager
def token_server(*answers: tuple[int, object]) -> Iterator[tuple[str, list[str]]]:
    """A server that gives these answers in turn, and the last one from then on; its URL, and the paths asked for."""
    asked: list[str] = []

    def answer(request: HttpRequest) -> HttpReply:
        asked.append(request.path)
        status, body = answers[min(len(asked), len(answers)) - 1]
        return HttpReply(status, body if isinstance(body, bytes) else json.dumps(body).encode())

    with serving(answer) as address:
        yield f"http://{address}", asked


def token(cloud: Cloud) -> dict[str, object]:
    return {
        "access_token": cloud.server.tokens.issue("user:alice@example.com").text,
        "expires_in": 3599,
        "token_type": "Bearer",
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
    }


def account(directory: Path, url: str) -> str:
    return str(service_account(directory / "account.json", f"{url}/token"))


def federation(directory: Path, url: str) -> str:
    (directory / "subject").write_text("header.payload.signature")
    fields = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{url}/sts",
        "credential_source": {"file": str(directory / "subject")},
    }
    (directory / "federation.json").write_text(json.dumps(fields))
    return str(directory / "federation.json")


@pytest.mark.parametrize("kind", [account, federation])
@pytest.mark.parametrize("status", sample([429, 408, 500, 503, 502, 504], one_of=6))
def test_a_token_endpoint_that_fails_is_asked_again(cloud: Cloud, tmp_path: Path, kind: object, status: int) -> None:
    assert callable(kind)
    page = (status, b"<html>bad gateway</html>")
    with token_server(page, page, (200, token(cloud))) as (url, asked):
        environ = cloud.environ | {"GOOGLE_APPLICATION_CREDENTIALS": kind(tmp_path, url)}
        assert boot_here(environ, "scheduler").started
    assert len(asked) == 3
    with token_server(page) as (url, _):  # google-auth alone may take a second to load
        environ = cloud.environ | {"GOOGLE_APPLICATION_CREDENTIALS": kind(tmp_path, url), "DASKPKI_DEADLINE": "3"}
        with pytest.raises(UnavailableError, match=f"gave up at the deadline: .* answers {status}"):
            boot_here(environ, "scheduler")


def test_an_account_that_may_not_be_impersonated_yet_is_waited_for(cloud: Cloud, tmp_path: Path) -> None:
    with token_server((403, GRANT), (200, token(cloud))) as (url, asked):
        environ = cloud.environ | {"GOOGLE_APPLICATION_CREDENTIALS": federation(tmp_path, url)}
        assert boot_here(environ, "scheduler").started
    assert len(asked) == 2


def test_what_no_waiting_mends_ends_at_once(cloud: Cloud, tmp_path: Path) -> None:
    with token_server((400, {"error": "invalid_grant", "error_description": "expired " + "x" * 5000})) as (url, asked):
        environ = cloud.environ | {"GOOGLE_APPLICATION_CREDENTIALS": account(tmp_path, url)}
        with pytest.raises(AccessDeniedError, match="invalid_grant: expired") as caught:
            boot_here(environ, "scheduler")
    assert len(asked) == 1
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("kind", [account, federation])
def test_the_deadline_holds_for_what_google_auth_asks(cloud: Cloud, tmp_path: Path, kind: object) -> None:
    """Nobody answers it, and with federation no other server of Google's may be waited for either."""
    assert callable(kind)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        environ = cloud.environ | {
            "GOOGLE_APPLICATION_CREDENTIALS": kind(tmp_path, f"http://127.0.0.1:{mute.getsockname()[1]}"),
            "DASKPKI_DEADLINE": "2",
        }
        begin = time.monotonic()
        done = run_entrypoint(environ, "exec", "worker", "--", "true")
    assert done.returncode == 75, done.stderr
    assert time.monotonic() - begin < 8


def test_federation_asks_no_other_server_than_it_needs(cloud: Cloud, tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        token_server((200, token(cloud))) as (url, _),
    ):
        environ = cloud.environ | {
            "GOOGLE_APPLICATION_CREDENTIALS": federation(tmp_path, url),
            "HTTPS_PROXY": f"http://127.0.0.1:{mute.getsockname()[1]}",
            "NO_PROXY": "127.0.0.1",
        }
        done = run_entrypoint(environ, "exec", "worker", "--", "true")
    assert done.returncode == 0, done.stderr

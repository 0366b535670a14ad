"""The metadata server, judged by google-auth and by plain HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import requests
from google.api_core import exceptions

from tests.emulator.calls import access
from tests.emulator.clients import rest_client
from tests.emulator.metadata import MetadataServer
from tests.emulator.names import project_number
from tests.emulator.server import SecretManagerServer

ACCOUNT = "worker@p.iam.gserviceaccount.com"
TOKEN = "instance/service-accounts/default/token"
FLAVOR = {"Metadata-Flavor": "Google"}
# google-auth reads the metadata host when it is imported, so it is asked in a process of its own.
ADC = """
import google.auth, google.auth.transport.requests, sys
credentials, project = google.auth.default()
credentials.refresh(google.auth.transport.requests.Request())
print(project, credentials.service_account_email, credentials.token, credentials.universe_domain)
"""


@pytest.fixture
def metadata(server: SecretManagerServer) -> Iterator[MetadataServer]:
    attributes = {"daskpki-store": "gsm://p", "DASKPKI_NAME": "@instance"}
    with MetadataServer(server.tokens, project="p", account=ACCOUNT, attributes=attributes) as running:
        yield running


def get(metadata: MetadataServer, path: str, **headers: str) -> requests.Response:
    url = f"http://{metadata.host}/computeMetadata/v1/{path}"
    return requests.get(url, headers=FLAVOR | headers, timeout=30, allow_redirects=False)


def ask_google_auth(metadata: MetadataServer) -> subprocess.CompletedProcess[str]:
    environment = os.environ | metadata.environment | {"GCE_METADATA_TIMEOUT": "1"}
    return subprocess.run([sys.executable, "-c", ADC], env=environment, capture_output=True, text=True, check=False)


def test_google_auth_finds_project_account_and_a_token_that_is_good(
    server: SecretManagerServer, metadata: MetadataServer
) -> None:
    server.seed("projects/p/secrets/s", b"one")
    server.iam.grant("p", "roles/secretmanager.secretAccessor", f"serviceAccount:{ACCOUNT}")
    done = ask_google_auth(metadata)
    assert done.returncode == 0, done.stderr
    project, email, token, universe = done.stdout.split()
    assert (project, email, universe) == ("p", ACCOUNT, "googleapis.com")
    assert access(rest_client(server.rest_url, token), "projects/p/secrets/s", 1) == b"one"
    assert server.requests()[0].principal == f"serviceAccount:{ACCOUNT}"
    assert (metadata.count("/"), metadata.count(TOKEN)) == (1, 1)


def test_google_auth_gives_up_without_a_service_account_and_at_one_503_on_the_ping(metadata: MetadataServer) -> None:
    metadata.fail("/", http=503)
    assert "DefaultCredentialsError" in ask_google_auth(metadata).stderr
    metadata.account = None
    assert "RefreshError" in ask_google_auth(metadata).stderr


def test_the_flavor_header_is_required_and_returned(metadata: MetadataServer) -> None:
    root = f"http://{metadata.host}"
    ping = requests.get(root, timeout=30)
    assert (ping.status_code, ping.headers["Metadata-Flavor"]) == (200, "Google")
    refused = requests.get(f"{root}/computeMetadata/v1/project/project-id", timeout=30)
    assert (refused.status_code, refused.headers["Metadata-Flavor"]) == (403, "Google")
    assert get(metadata, "project/project-id", **{"X-Forwarded-For": "1.2.3.4"}).status_code == 403


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("project/project-id", "p"),
        ("project/numeric-project-id", project_number("p")),
        ("instance/name", "vm-1"),
        ("instance/zone", f"projects/{project_number('p')}/zones/us-central1-a"),
        ("instance/attributes/daskpki-store", "gsm://p"),
        ("instance/attributes/", "daskpki-store\nDASKPKI_NAME\n"),
        ("instance/service-accounts/", f"default/\n{ACCOUNT}/\n"),
        ("instance/service-accounts/default/email", ACCOUNT),
        (f"instance/service-accounts/{ACCOUNT}/scopes", "https://www.googleapis.com/auth/cloud-platform\n"),
        ("universe/universe-domain", "googleapis.com"),
    ],
)
def test_values_and_listings(metadata: MetadataServer, path: str, text: str) -> None:
    reply = get(metadata, path)
    assert (reply.status_code, reply.headers["Content-Type"], reply.text) == (200, "application/text", text)


def test_recursive_json_renames_all_but_attributes(metadata: MetadataServer) -> None:
    instance = get(metadata, "instance/?recursive=true").json()
    assert instance["serviceAccounts"]["default"]["email"] == ACCOUNT
    assert instance["attributes"] == metadata.attributes
    assert get(metadata, "instance/attributes/?recursive=true").json() == metadata.attributes
    assert get(metadata, "instance/name?alt=json").json() == "vm-1"


def test_what_is_not_there(metadata: MetadataServer) -> None:
    redirect = get(metadata, "instance")
    assert (redirect.status_code, redirect.headers["Location"]) == (301, "/computeMetadata/v1/instance/")
    assert get(metadata, "instance/attributes/nosuch").status_code == 404
    metadata.account = None
    assert get(metadata, TOKEN).status_code == 404


def test_the_token_is_cached_until_it_is_nearly_expired_or_dead(
    server: SecretManagerServer, metadata: MetadataServer
) -> None:
    first = get(metadata, TOKEN).json()
    assert (first["expires_in"], first["token_type"]) == (3599, "Bearer")
    server.clock.advance(1000)
    assert get(metadata, TOKEN).json() == first | {"expires_in": 2599}
    server.clock.advance(2400)
    second = get(metadata, TOKEN).json()
    assert second["access_token"] != first["access_token"]
    server.tokens.revoke(second["access_token"])
    third = get(metadata, TOKEN).json()
    assert third["access_token"] != second["access_token"]
    metadata.rotate_token()
    assert get(metadata, TOKEN).json()["access_token"] != third["access_token"]


def test_scopes_travel_with_the_token(server: SecretManagerServer, metadata: MetadataServer) -> None:
    metadata.scopes = ("https://www.googleapis.com/auth/logging.write",)
    token = get(metadata, TOKEN).json()["access_token"]
    with pytest.raises(exceptions.Forbidden, match="scopes"):
        access(rest_client(server.rest_url, token), "projects/p/secrets/s", 1)


def test_faults(metadata: MetadataServer) -> None:
    metadata.fail("instance/service-accounts/*/token", http=503, times=2)
    assert [get(metadata, TOKEN).status_code for _ in range(3)] == [503, 503, 200]
    metadata.fail(reset=True)
    with pytest.raises(requests.ConnectionError):
        get(metadata, TOKEN)
    metadata.fail(latency=0.05)
    start = time.monotonic()
    get(metadata, TOKEN)
    assert time.monotonic() - start >= 0.05
    fault = metadata.require_https()
    assert [get(metadata, TOKEN).status_code for _ in range(2)] == [403, 403]
    metadata.faults.remove(fault)
    with metadata.refusing(), pytest.raises(requests.ConnectionError):
        get(metadata, TOKEN)
    assert get(metadata, TOKEN).status_code == 200
    assert metadata.journal.entries()[0].http_status == 503

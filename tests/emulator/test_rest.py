"""The REST edge as any HTTP client sees it: routes, parameters, error bodies, headers, and many at once."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import requests

from tests.emulator.names import project_number
from tests.emulator.rest_routes import ROUTES
from tests.emulator.server import SecretManagerServer

SECRET = "projects/p/secrets/s"


def get(server: SecretManagerServer, path: str, **arguments: Any) -> requests.Response:
    return requests.get(f"{server.rest_url}/v1/{path}", timeout=30, **arguments)


def test_the_routes_are_the_official_clients() -> None:
    assert {route.rpc for route in ROUTES} >= {"AccessSecretVersion", "AddSecretVersion", "SetIamPolicy"}
    assert len(ROUTES) >= 2 * 17


def test_an_access_in_plain_http(server: SecretManagerServer) -> None:
    server.seed(SECRET, b"one")
    reply = get(server, f"{SECRET}/versions/latest:access")
    assert reply.headers["Content-Type"] == "application/json; charset=UTF-8"
    body = reply.json()
    assert base64.b64decode(body["payload"]["data"]) == b"one"
    assert isinstance(body["payload"]["dataCrc32c"], str)  # int64 is a string in protobuf's JSON
    assert body["name"] == f"projects/{project_number('p')}/secrets/s/versions/1"


def test_system_parameters_and_both_spellings_of_enums_and_masks(server: SecretManagerServer) -> None:
    server.seed(SECRET, b"one")
    version = f"{SECRET}/versions/1"
    assert get(server, version, params={"alt": "json", "prettyPrint": "false"}).json()["state"] == "ENABLED"
    assert get(server, version, params={"$alt": "json;enum-encoding=int"}).json()["state"] == 1
    for mask in ("version_aliases", "versionAliases"):
        reply = requests.patch(
            f"{server.rest_url}/v1/{SECRET}",
            params={"updateMask": mask},
            json={"versionAliases": {"prod": "1"}},
            timeout=30,
        )
        assert reply.json()["versionAliases"] == {"prod": "1"}


@pytest.mark.parametrize(
    ("verb", "path", "body"),
    [
        ("POST", "projects/p/secrets?secretId=t", b"{"),
        ("POST", "projects/p/secrets?secretId=t", b'{"nosuch": 1}'),
        ("POST", "projects/p/secrets?secretId=t", b'{"labels": "x"}'),
        ("POST", "projects/p/secrets?nosuch=t", b"{}"),
        ("POST", f"{SECRET}:addVersion", b'{"payload": {"data": "?"}}'),
        ("POST", f"{SECRET}:addVersion", b"\xff\xfe"),
        ("GET", "projects/p/secrets?pageToken=AAAA", b""),
        ("GET", "projects/p/secrets?filter=%28", b""),
    ],
)
def test_bad_requests_are_invalid_arguments(server: SecretManagerServer, verb: str, path: str, body: bytes) -> None:
    server.seed(SECRET)
    reply = requests.request(verb, f"{server.rest_url}/v1/{path}", data=body, timeout=30)
    assert (reply.status_code, reply.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert [(entry.status, entry.http_status) for entry in server.requests()] == [("INVALID_ARGUMENT", 400)]


def test_unknown_paths_get_a_page_and_unserved_methods_a_status(server: SecretManagerServer) -> None:
    missing = get(server, "nosuch")
    assert (missing.status_code, missing.headers["Content-Type"]) == (404, "text/html; charset=UTF-8")
    reply = requests.post(f"{server.rest_url}/v1/{SECRET}:rotateSecret", timeout=30)
    assert (reply.status_code, reply.json()["error"]["status"]) == (501, "UNIMPLEMENTED")


def test_an_error_body_has_code_message_status_and_details(server: SecretManagerServer) -> None:
    server.disable_api("p")
    reply = get(server, f"{SECRET}/versions/1:access")
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["status"]) == (403, 403, "PERMISSION_DENIED")
    assert "has not been used in project" in error["message"]
    assert error["details"][0] == {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "SERVICE_DISABLED",
        "domain": "googleapis.com",
        "metadata": {
            "service": "secretmanager.googleapis.com",
            "consumer": f"projects/{project_number('p')}",
        },
    }
    server.enable_api("p")
    assert get(server, f"{SECRET}/versions/1:access").status_code == 404


def test_a_401_says_how_to_authenticate(server: SecretManagerServer) -> None:
    server.iam.enforced = True
    reply = get(server, SECRET)
    assert (reply.status_code, reply.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
    assert reply.headers["WWW-Authenticate"].startswith("Bearer realm=")
    reply = get(server, SECRET, headers={"Authorization": "Bearer nosuch"})
    assert 'error="invalid_token"' in reply.headers["WWW-Authenticate"]


def test_until_iam_is_enforced_every_caller_is_owner(server: SecretManagerServer) -> None:
    server.seed(SECRET)
    for headers in ({}, {"Authorization": "Bearer nosuch"}):
        assert get(server, SECRET, headers=headers).status_code == 200
    token = server.tokens.issue("user:alice@example.com").text
    server.tokens.revoke_all()
    assert get(server, SECRET, headers={"Authorization": f"Bearer {token}"}).status_code == 401


def test_the_date_header_can_be_skewed(server: SecretManagerServer) -> None:
    server.skew_date(-86_400)
    ahead = datetime.now(UTC) - parsedate_to_datetime(get(server, SECRET).headers["Date"])
    assert timedelta(hours=23, minutes=59) < ahead < timedelta(hours=24, minutes=1)


def test_the_journal_tells_what_travelled(server: SecretManagerServer) -> None:
    server.seed(SECRET)
    body = {"payload": {"data": base64.b64encode(b"planted").decode()}}
    requests.post(f"{server.rest_url}/v1/{SECRET}:addVersion", json=body, timeout=30, headers={"X-Mark": "1"})
    (entry,) = server.requests("AddSecretVersion")
    assert (entry.transport, entry.secret_id, entry.status, entry.http_status) == ("rest", "s", "OK", 200)
    assert base64.b64encode(b"planted") in entry.body
    assert entry.headers["x-mark"] == "1"
    assert json.loads(entry.as_json())["body"] == entry.body.hex()
    assert (server.count("AddSecretVersion"), server.count("GetSecret"), server.count()) == (1, 0, 1)
    server.reset_journal()
    assert server.count() == 0


def test_two_hundred_clients_at_once(server: SecretManagerServer) -> None:
    server.seed(SECRET, b"x" * 3000)
    barrier = threading.Barrier(200)

    def boot(_: int) -> int:
        connection = http.client.HTTPConnection(server.listener.host, server.listener.port, timeout=30)
        connection.connect()
        barrier.wait()
        for _ in range(4):
            connection.request("GET", f"/v1/{SECRET}/versions/1:access")
            reply = connection.getresponse()
            assert len(json.load(reply)["payload"]["data"]) == 4000
        connection.close()
        return reply.status

    with ThreadPoolExecutor(200) as pool:
        assert list(pool.map(boot, range(200))) == [200] * 200
    assert server.count("AccessSecretVersion") == 800

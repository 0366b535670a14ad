"""Scripted faults, hooks and quotas, as clients meet them over both transports."""

from __future__ import annotations

import threading
import time

import pytest
import requests
from google.api_core import exceptions
from google.cloud.secretmanager_v1 import SecretManagerServiceClient
from google_crc32c import value as crc32c

from tests.emulator.calls import access, add, update
from tests.emulator.clients import connect
from tests.emulator.server import SecretManagerServer

SECRET = "projects/p/secrets/s"
ACCESS = "AccessSecretVersion"


@pytest.fixture(autouse=True)
def _secret(server: SecretManagerServer) -> None:
    server.seed(SECRET, b"one")


def outcome(server: SecretManagerServer) -> int:
    return requests.get(f"{server.rest_url}/v1/{SECRET}/versions/1:access", timeout=30).status_code


def test_only_the_requests_that_match_are_hit(server: SecretManagerServer) -> None:
    server.seed("projects/p/secrets/other", b"x")
    fault = server.fail(ACCESS, secret="s*", http=503, nth=2, times=2)
    server.fail("AddSecretVersion", http=500, times=None)
    assert [outcome(server) for _ in range(5)] == [200, 503, 503, 200, 200]
    assert access(connect(server, "grpc"), "projects/p/secrets/other", 1) == b"x"
    assert (fault.seen, fault.hits) == (5, 2)


def test_faults_can_be_for_one_principal_and_be_removed(server: SecretManagerServer) -> None:
    token = server.tokens.issue("user:alice@example.com").text
    fault = server.fail(principal="user:alice@example.com", status="ABORTED", times=None)
    with pytest.raises(exceptions.Aborted):
        connect(server, "grpc", token).get_secret(name=SECRET)
    connect(server, "grpc").get_secret(name=SECRET)
    server.faults.remove(fault)
    connect(server, "grpc", token).get_secret(name=SECRET)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_http_statuses(server: SecretManagerServer, status: int) -> None:
    server.fail(ACCESS, http=status, headers={"Retry-After": "7"}, reason="RATE_LIMIT_EXCEEDED")
    reply = requests.get(f"{server.rest_url}/v1/{SECRET}/versions/1:access", timeout=30)
    assert (reply.status_code, reply.headers["Retry-After"]) == (status, "7")
    assert reply.json()["error"]["details"][0]["reason"] == "RATE_LIMIT_EXCEEDED"
    assert outcome(server) == 200


def test_a_front_end_answers_with_a_page(server: SecretManagerServer) -> None:
    server.fail(http=502, html=True)
    reply = requests.get(f"{server.rest_url}/v1/{SECRET}", timeout=30)
    assert (reply.status_code, reply.headers["Content-Type"]) == (502, "text/html; charset=UTF-8")


@pytest.mark.parametrize("kind", ["reset", "truncate"])
def test_broken_connections(server: SecretManagerServer, kind: str) -> None:
    server.fail(ACCESS, **{kind: True}, times=2)
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        outcome(server)
    with pytest.raises(exceptions.ServiceUnavailable):
        connect(server, "grpc").access_secret_version(name=f"{SECRET}/versions/1", retry=None)
    assert outcome(server) == 200


def test_a_wrong_checksum(server: SecretManagerServer, client: SecretManagerServiceClient) -> None:
    server.fail(ACCESS, wrong_crc32c=True)
    name = f"{SECRET}/versions/1"
    assert client.access_secret_version(name=name).payload.data_crc32c != crc32c(b"one")
    assert client.access_secret_version(name=name).payload.data_crc32c == crc32c(b"one")


@pytest.mark.parametrize("status", ["DEADLINE_EXCEEDED", "UNAVAILABLE"])
def test_act_then_time_out(server: SecretManagerServer, client: SecretManagerServiceClient, status: str) -> None:
    server.fail("AddSecretVersion", status=status, acts_first=True)
    with pytest.raises((exceptions.GatewayTimeout, exceptions.ServiceUnavailable)):
        add(client, SECRET, b"two")
    assert server.payloads(SECRET) == [b"one", b"two"]


def test_act_then_fall_silent(server: SecretManagerServer) -> None:
    server.fail("AddSecretVersion", acts_first=True, latency=60)
    with pytest.raises(exceptions.DeadlineExceeded):
        connect(server, "grpc").add_secret_version(request={"parent": SECRET, "payload": {"data": b"two"}}, timeout=0.2)
    assert server.payloads(SECRET) == [b"one", b"two"]


def test_latency_holds_up_the_one_and_not_the_others(server: SecretManagerServer) -> None:
    arrived = threading.Event()
    server.before(ACCESS, lambda _: arrived.set())
    server.fail(ACCESS, latency=600)
    slow = threading.Thread(target=outcome, args=(server,))
    slow.start()
    assert arrived.wait(30)
    assert outcome(server) == 200
    assert slow.is_alive()
    server.service.close()  # ends all injected waiting
    slow.join(30)
    assert not slow.is_alive()


def test_latency_lasts_as_long_as_it_says(server: SecretManagerServer) -> None:
    server.fail(ACCESS, latency=0.05)
    start = time.monotonic()
    assert outcome(server) == 200
    assert time.monotonic() - start >= 0.05


def test_hooks_interleave_two_writers(server: SecretManagerServer, client: SecretManagerServiceClient) -> None:
    other = connect(server, "rest")
    server.before("AddSecretVersion", lambda _: add(other, SECRET, b"the other's"))
    made = add(client, SECRET, b"mine")
    assert made.name.endswith("/versions/3")
    assert server.payloads(SECRET) == [b"one", b"the other's", b"mine"]
    seen: list[list[int]] = []
    server.after("DestroySecretVersion", lambda _: seen.append(server.active_versions(SECRET)))
    client.destroy_secret_version(name=made.name)
    assert seen == [[1, 2]]


def test_a_grant_that_comes_late(server: SecretManagerServer) -> None:
    server.iam.enforced = True
    worker = "serviceAccount:worker@p.iam.gserviceaccount.com"
    client = connect(server, "grpc", server.tokens.issue(worker).text)
    server.before(ACCESS, lambda _: server.iam.grant("p", "roles/secretmanager.secretAccessor", worker), nth=3)
    for _ in range(2):
        with pytest.raises(exceptions.PermissionDenied):
            access(client, SECRET, 1)
    assert access(client, SECRET, 1) == b"one"


def test_a_server_that_is_away_and_comes_back(server: SecretManagerServer) -> None:
    client = connect(server, "grpc")
    assert access(client, SECRET, 1) == b"one"
    server.stop()
    with pytest.raises(requests.ConnectionError):
        outcome(server)
    with pytest.raises(exceptions.ServiceUnavailable):
        client.get_secret(name=SECRET)
    server.start()
    assert outcome(server) == 200
    assert access(connect(server, "grpc"), SECRET, 1) == b"one"


def test_quotas_are_counted_always_and_enforced_on_demand(server: SecretManagerServer) -> None:
    client = connect(server, "grpc")
    server.quotas.per_minute["read"] = 5
    for _ in range(6):
        client.get_secret(name=SECRET)
    server.quotas.enforced = True
    with pytest.raises(exceptions.ResourceExhausted, match="Quota exceeded") as refusal:
        client.get_secret(name=SECRET)
    assert refusal.value.reason == "RATE_LIMIT_EXCEEDED"
    assert access(client, SECRET, 1) == b"one"
    assert server.quotas.busiest_minute("read", "p") >= 6
    assert server.quotas.busiest_minute("access") == 1
    server.clock.advance(60)
    client.get_secret(name=SECRET)


def test_one_secret_takes_two_writes_a_second(server: SecretManagerServer) -> None:
    server.quotas.enforced = True
    client = connect(server, "rest")
    with pytest.raises(exceptions.TooManyRequests):
        write_until_refused(client)
    assert server.quotas.busiest_second(client.get_secret(name=SECRET).name) == 3


def write_until_refused(client: SecretManagerServiceClient) -> None:
    for n in range(1000):
        update(client, SECRET, ["labels"], labels={"n": str(n)})

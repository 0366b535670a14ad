"""Versions through the official client, over both transports: numbers, states, `latest`, aliases, checksums."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud.secretmanager_v1 import SecretManagerServiceClient, SecretVersion
from google_crc32c import value as crc32c

from tests.emulator.calls import access, add, update
from tests.emulator.names import project_number
from tests.emulator.server import SecretManagerServer

SECRET = "projects/p/secrets/s"
CANONICAL = f"projects/{project_number('p')}/secrets/s"
State = SecretVersion.State


@pytest.fixture(autouse=True)
def _secret(server: SecretManagerServer) -> None:
    server.seed(SECRET)


def test_numbers_go_up_by_one_and_the_secrets_etag_stays(client: SecretManagerServiceClient) -> None:
    before = client.get_secret(name=SECRET)
    assert [add(client, SECRET, b"x").name for _ in range(3)] == [f"{CANONICAL}/versions/{n}" for n in (1, 2, 3)]
    assert client.get_secret(name=SECRET) == before


def test_access_returns_what_was_added_with_its_checksum(client: SecretManagerServiceClient) -> None:
    data = bytes(range(256)) * 256
    made = add(client, SECRET, data, data_crc32c=crc32c(data))
    assert made.client_specified_payload_checksum
    got = client.access_secret_version(name=f"{SECRET}/versions/1")
    assert (got.name, got.payload.data) == (f"{CANONICAL}/versions/1", data)
    assert got.payload.data_crc32c == crc32c(data)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({"data": b"x" * 65_537}, "65536"),
        ({"data": b""}, "empty"),
        ({"data": b"x", "data_crc32c": 1}, "checksum"),
    ],
)
def test_payloads_outside_the_rules_are_refused(
    client: SecretManagerServiceClient, server: SecretManagerServer, payload: dict[str, Any], text: str
) -> None:
    with pytest.raises(exceptions.BadRequest, match=text):
        add(client, SECRET, **payload)
    assert server.payloads(SECRET) == []


def test_latest_is_the_highest_number_in_any_state(client: SecretManagerServiceClient) -> None:
    for data in (b"one", b"two", b"three"):
        add(client, SECRET, data)
    client.disable_secret_version(name=f"{SECRET}/versions/3")
    with pytest.raises(exceptions.BadRequest, match=r"versions/3\] is in DISABLED state"):
        access(client, SECRET, "latest")
    client.destroy_secret_version(name=f"{SECRET}/versions/3")
    with pytest.raises(exceptions.BadRequest, match=r"versions/3\] is in DESTROYED state"):
        access(client, SECRET, "latest")
    assert access(client, SECRET, 2) == b"two"


def test_states(client: SecretManagerServiceClient, server: SecretManagerServer) -> None:
    made = add(client, SECRET, b"x")
    disabled = client.disable_secret_version(name=made.name)
    assert (disabled.state, disabled.etag != made.etag) == (State.DISABLED, True)
    assert client.enable_secret_version(name=made.name).state == State.ENABLED
    assert access(client, SECRET, 1) == b"x"
    destroyed = client.destroy_secret_version(name=made.name)
    assert destroyed.state == State.DESTROYED
    assert "destroy_time" in destroyed
    for change in (client.enable_secret_version, client.disable_secret_version, client.destroy_secret_version):
        with pytest.raises(exceptions.BadRequest, match="DESTROYED"):
            change(name=made.name)
    assert (server.payloads(SECRET), server.active_versions(SECRET)) == ([None], [])


@pytest.mark.parametrize("verb", ["enable", "disable", "destroy"])
def test_changes_of_state_heed_the_etag(client: SecretManagerServiceClient, verb: str) -> None:
    made = add(client, SECRET, b"x")
    change = getattr(client, f"{verb}_secret_version")
    with pytest.raises(exceptions.BadRequest, match="etag") as refusal:
        change(request={"name": made.name, "etag": '"stale"'})
    assert refusal.value.code == 400
    assert client.get_secret_version(name=made.name) == made
    change(request={"name": made.name, "etag": made.etag})


def test_changes_of_state_want_a_number(client: SecretManagerServiceClient) -> None:
    add(client, SECRET, b"x")
    with pytest.raises(exceptions.BadRequest, match="number"):
        client.disable_secret_version(name=f"{SECRET}/versions/latest")


def test_a_destroy_ttl_disables_first_and_can_be_called_off(
    client: SecretManagerServiceClient, server: SecretManagerServer
) -> None:
    ttl = timedelta(days=1)
    update(client, SECRET, ["version_destroy_ttl"], version_destroy_ttl=ttl)
    for data in (b"one", b"two"):
        add(client, SECRET, data)
        scheduled = client.destroy_secret_version(name=f"{SECRET}/versions/{len(server.payloads(SECRET))}")
        assert scheduled.state == State.DISABLED
        assert "scheduled_destroy_time" in scheduled
    client.enable_secret_version(name=f"{SECRET}/versions/2")
    server.clock.advance(86_401)
    states = [client.get_secret_version(name=f"{SECRET}/versions/{n}").state for n in (1, 2)]
    assert states == [State.DESTROYED, State.ENABLED]


def test_what_is_missing(client: SecretManagerServiceClient) -> None:
    with pytest.raises(exceptions.NotFound, match="not found or has no versions"):
        access(client, SECRET, "latest")
    add(client, SECRET, b"x")
    for version in ("2", "nosuchalias", "0"):
        with pytest.raises(exceptions.NotFound, match=r"Secret Version \[.*\] not found"):
            access(client, SECRET, version)
    with pytest.raises(exceptions.NotFound):
        client.access_secret_version(name="projects/p/secrets/nosuch/versions/1")


def test_aliases(client: SecretManagerServiceClient, server: SecretManagerServer) -> None:
    add(client, SECRET, b"one")
    add(client, SECRET, b"two")
    update(client, SECRET, ["version_aliases"], version_aliases={"prod": 1})
    assert access(client, SECRET, "prod") == b"one"
    assert client.get_secret_version(name=f"{SECRET}/versions/prod").name.endswith("/versions/1")
    server.latest_lag(SECRET)
    update(client, SECRET, ["version_aliases"], version_aliases={"prod": 2})
    assert access(client, SECRET, "prod") == b"one"
    server.latest_catch_up(SECRET)
    assert access(client, SECRET, "prod") == b"two"


@pytest.mark.parametrize("aliases", [{"latest": 1}, {"1a": 1}, {"a": 2}, {f"a{n}": 1 for n in range(51)}])
def test_bad_aliases_are_refused(client: SecretManagerServiceClient, aliases: dict[str, int]) -> None:
    add(client, SECRET, b"x")
    with pytest.raises(exceptions.BadRequest, match="alias"):
        update(client, SECRET, ["version_aliases"], version_aliases=aliases)


def test_latest_and_lists_can_be_stale_while_numbers_are_not(
    client: SecretManagerServiceClient, server: SecretManagerServer
) -> None:
    add(client, SECRET, b"one")
    server.latest_lag(SECRET)
    add(client, SECRET, b"two")
    assert (access(client, SECRET, "latest"), access(client, SECRET, 2)) == (b"one", b"two")
    assert len(list(client.list_secret_versions(parent=SECRET))) == 1
    server.latest_lag(behind=2)
    with pytest.raises(exceptions.NotFound):
        access(client, SECRET, "latest")
    server.latest_lag(SECRET, at=1)
    assert access(client, SECRET, "latest") == b"one"
    server.latest_catch_up()
    assert access(client, SECRET, "latest") == b"two"


def test_the_lag_may_be_a_function_and_hold_for_secrets_to_come(
    client: SecretManagerServiceClient, server: SecretManagerServer
) -> None:
    lags = iter([1, 0])
    server.latest_lag(behind=lambda: next(lags))
    name = server.seed("projects/p/secrets/later", b"one", b"two")
    latest = [client.access_secret_version(name=f"{name}/versions/latest").payload.data for _ in range(2)]
    assert latest == [b"one", b"two"]


def test_versions_are_listed_newest_first_and_filtered_by_state(client: SecretManagerServiceClient) -> None:
    for _ in range(5):
        add(client, SECRET, b"x")
    client.disable_secret_version(name=f"{SECRET}/versions/4")
    pager = client.list_secret_versions(request={"parent": SECRET, "page_size": 2})
    assert [version.name[-1] for version in pager] == ["5", "4", "3", "2", "1"]
    enabled = client.list_secret_versions(request={"parent": SECRET, "filter": "state:ENABLED"})
    assert [version.name[-1] for version in enabled] == ["5", "3", "2", "1"]


def test_writers_at_once_get_a_number_each(client: SecretManagerServiceClient, server: SecretManagerServer) -> None:
    barrier = threading.Barrier(8)

    def write(writer: int) -> list[str]:
        barrier.wait()
        return [add(client, SECRET, f"{writer}.{n}".encode()).name for n in range(10)]

    with ThreadPoolExecutor(8) as pool:
        names = [name for batch in pool.map(write, range(8)) for name in batch]
    assert sorted(names) == sorted(f"{CANONICAL}/versions/{n}" for n in range(1, 81))
    assert len(set(server.payloads(SECRET))) == 80

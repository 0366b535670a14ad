"""Secrets through the official client, over both transports: what they keep, what is refused, and who is first."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from google.api_core import exceptions
from google.cloud.secretmanager_v1 import SecretManagerServiceClient

from tests.emulator.calls import PROJECT, add, create, update
from tests.emulator.clients import grpc_client
from tests.emulator.names import project_number
from tests.emulator.server import SecretManagerServer

NUMBER = project_number("p")
REGION = f"{PROJECT}/locations/us-east1"


def test_create_keeps_every_field_and_answers_with_the_project_number(client: SecretManagerServiceClient) -> None:
    later = datetime.now(UTC) + timedelta(days=2)
    made = create(
        client,
        labels={"managed-by": "daskpki"},
        annotations={"note.x": "any Text"},
        topics=[{"name": "projects/p/topics/t"}],
        rotation={"next_rotation_time": later, "rotation_period": timedelta(days=1)},
        version_destroy_ttl=timedelta(days=1),
        replication={"automatic": {"customer_managed_encryption": {"kms_key_name": kms("global")}}},
    )
    assert made.name == f"projects/{NUMBER}/secrets/s"
    assert made.etag.startswith('"')
    assert dict(made.labels) == {"managed-by": "daskpki"}
    assert dict(made.annotations) == {"note.x": "any Text"}
    assert made.rotation.rotation_period == timedelta(days=1)
    assert made.version_destroy_ttl == timedelta(days=1)
    assert made.replication.automatic.customer_managed_encryption.kms_key_name == kms("global")
    assert client.get_secret(name=f"{PROJECT}/secrets/s") == made
    assert client.get_secret(name=f"projects/{NUMBER}/secrets/s") == made


def kms(location: str) -> str:
    return f"projects/p/locations/{location}/keyRings/r/cryptoKeys/k"


def test_regional_secrets_take_no_replication_and_live_apart(client: SecretManagerServiceClient) -> None:
    made = create(client, parent=REGION, customer_managed_encryption={"kms_key_name": kms("us-east1")})
    assert made.name == f"projects/{NUMBER}/locations/us-east1/secrets/s"
    version = add(client, made.name, b"x")
    assert version.customer_managed_encryption.kms_key_version_name.startswith(kms("us-east1"))
    assert list(client.list_secrets(parent=PROJECT)) == []
    assert [secret.name for secret in client.list_secrets(parent=REGION)] == [made.name]
    with pytest.raises(exceptions.BadRequest, match="regional"):
        create(client, "t", REGION, replication={"automatic": {}})


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"replication": None}, "replication"),
        ({"replication": {"user_managed": {"replicas": []}}}, "replicas"),
        ({"labels": {"Upper": "x"}}, "Label key"),
        ({"labels": {"a" * 64: "x"}}, "Label key"),
        ({"labels": {"a": "With.Dots"}}, "Label value"),
        ({"labels": {"a": "x" * 64}}, "Label value"),
        ({"labels": {f"l{n}": "x" for n in range(65)}}, "65 labels"),
        ({"annotations": {"-a": "x"}}, "Annotation key"),
        ({"annotations": {"a": "x" * (16 * 1024 - 1)}}, "16KiB"),
        ({"version_aliases": {"prod": 1}}, "does not exist"),
        ({"ttl": timedelta(seconds=5)}, "ttl"),
        ({"expire_time": datetime(2020, 1, 1, tzinfo=UTC)}, "future"),
        ({"rotation": {"rotation_period": timedelta(days=1)}}, "topics"),
        ({"topics": [{"name": "t"}]}, "Topic"),
        ({"customer_managed_encryption": {"kms_key_name": kms("global")}}, "regional"),
    ],
)
def test_create_refuses(server: SecretManagerServer, fields: dict[str, Any], text: str) -> None:
    with pytest.raises(exceptions.BadRequest, match=text):
        create(grpc_client(server.grpc_target), **fields)
    assert server.secrets() == []


@pytest.mark.parametrize("secret_id", ["", "a.b", "a b", "ä", "x" * 256])
def test_ids_follow_the_rule(client: SecretManagerServiceClient, secret_id: str) -> None:
    with pytest.raises(exceptions.BadRequest, match="Secret ID"):
        create(client, secret_id)
    create(client, "x" * 255)


def test_the_limits_themselves_are_allowed(client: SecretManagerServiceClient) -> None:
    labels = {f"l{n}": "x" * 63 for n in range(63)} | {"a" * 63: ""}
    assert len(create(client, labels=labels, annotations={"a": "x" * (16 * 1024 - 2)}).labels) == 64


def test_a_second_create_is_already_exists(client: SecretManagerServiceClient) -> None:
    create(client)
    with pytest.raises(exceptions.Conflict, match=r"already exists"):
        create(client)


def test_update_changes_what_the_mask_names_and_nothing_else(client: SecretManagerServiceClient) -> None:
    made = create(client, labels={"a": "1"}, annotations={"n": "1"})
    changed = update(client, made.name, ["labels"], labels={"b": "2"}, annotations={"n": "2"})
    assert (dict(changed.labels), dict(changed.annotations)) == ({"b": "2"}, {"n": "1"})
    assert changed.etag != made.etag
    assert changed.create_time == made.create_time


@pytest.mark.parametrize("mask", [[], ["replication"], ["name"], ["labels.a"], ["secret_type"]])
def test_update_refuses_masks_on_what_cannot_change(client: SecretManagerServiceClient, mask: list[str]) -> None:
    made = create(client)
    with pytest.raises(exceptions.GoogleAPICallError) as refusal:
        update(client, made.name, mask)
    assert refusal.value.code == 400
    assert client.get_secret(name=made.name) == made


def test_update_with_a_stale_etag_is_a_failed_precondition_and_changes_nothing(
    client: SecretManagerServiceClient,
) -> None:
    first = create(client)
    second = update(client, first.name, ["labels"], labels={"a": "1"}, etag=first.etag)
    with pytest.raises(exceptions.BadRequest, match="etag") as refusal:
        update(client, first.name, ["labels"], labels={"a": "2"}, etag=first.etag)
    assert refusal.value.code == 400
    assert client.get_secret(name=first.name) == second


def test_delete_heeds_the_etag_and_forgets_the_versions(client: SecretManagerServiceClient) -> None:
    made = create(client)
    add(client, made.name, b"x")
    with pytest.raises(exceptions.BadRequest, match="etag"):
        client.delete_secret(request={"name": made.name, "etag": '"stale"'})
    client.delete_secret(request={"name": made.name, "etag": made.etag})
    with pytest.raises(exceptions.NotFound):
        client.get_secret(name=made.name)
    create(client)
    again = add(client, made.name, b"y")
    assert again.name.endswith("/versions/1")


def test_a_ttl_becomes_an_expire_time_and_then_the_secret_is_gone(
    server: SecretManagerServer, client: SecretManagerServiceClient
) -> None:
    made = create(client, ttl=timedelta(hours=1))
    left = timedelta(seconds=cast("datetime", made.expire_time).timestamp() - time.time())
    assert timedelta(minutes=59) < left <= timedelta(hours=1)
    server.clock.advance(3601)
    with pytest.raises(exceptions.NotFound):
        client.get_secret(name=made.name)


def test_lists_are_newest_first_and_by_pages(client: SecretManagerServiceClient) -> None:
    names = [create(client, f"s{n}").name for n in range(7)]
    pager = client.list_secrets(request={"parent": PROJECT, "page_size": 3})
    pages = [[secret.name for secret in page.secrets] for page in pager.pages]
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [name for page in pages for name in page] == names[::-1]
    first = next(client.list_secrets(request={"parent": PROJECT, "page_size": 3}).pages)
    assert first.total_size == 7
    with pytest.raises(exceptions.GoogleAPICallError, match="page_token"):
        client.list_secrets(request={"parent": REGION, "page_token": first.next_page_token})


def test_what_is_added_meanwhile_shifts_no_page(client: SecretManagerServiceClient) -> None:
    names = [create(client, f"s{n}").name for n in range(4)]
    pages = client.list_secrets(request={"parent": PROJECT, "page_size": 2}).pages
    seen = [secret.name for secret in next(pages).secrets]
    create(client, "later")
    client.delete_secret(name=names[3])
    seen += [secret.name for page in pages for secret in page.secrets]
    assert seen == names[::-1]

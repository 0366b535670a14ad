"""Replication and keys: chosen by the first commit of a cluster, kept by its log, and the same for all its secrets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.errors import UsageError
from daskpki.records import Draft
from daskpki.settings import GsmUrl
from daskpki.store.gsm.secrets import GsmOptions, check_options, secret_settings
from tests.support.drafts import STAMP, new_ca
from tests.support.gsm_places import GsmPlace, open_place

KEY = "projects/test-project/locations/{location}/keyRings/ring/cryptoKeys/key"
GLOBAL = GsmUrl("test-project")
REGIONAL = GsmUrl("test-project", "europe-west1")
EUROPE = GsmOptions(("europe-west1", "europe-west4"), KEY)


@pytest.fixture
def place() -> Iterator[GsmPlace]:
    with open_place("grpc", None) as place:
        yield place


def found(place: GsmPlace, options: GsmOptions | None) -> None:
    with closing(place.factory(options)) as store:
        store.log("c").commit(lambda _: new_ca(1), STAMP)


def replicas(place: GsmPlace, secret: str) -> list[tuple[str, str]]:
    message = place.server._stored(place.name(secret)).message
    return [
        (replica.location, replica.customer_managed_encryption.kms_key_name)
        for replica in message.replication.user_managed.replicas
    ]


def test_a_later_process_creates_secrets_where_the_first_commit_did(place: GsmPlace) -> None:
    found(place, EUROPE)
    with closing(place.factory()) as store:
        store.secrets.create("daskpki_c_secret_s", labels=secret_names.labels("c", "secret", "s"))
        assert store.secrets.add("daskpki_c_secret_s", Confidential("x")) == 1
    expected = [(location, KEY.replace("{location}", location)) for location in EUROPE.replication]
    assert replicas(place, "daskpki_c_secret_s") == expected
    assert replicas(place, secret_names.records_id("c")) == expected


def test_the_log_of_user_secrets_is_created_where_the_cluster_is(place: GsmPlace) -> None:
    found(place, EUROPE)
    with closing(place.factory()) as store:
        store.events("c").commit(lambda _: [Draft("note", {})], STAMP)
    assert replicas(place, secret_names.events_id("c")) == replicas(place, secret_names.records_id("c")) != []


def test_another_choice_for_a_cluster_that_exists_is_refused(place: GsmPlace) -> None:
    found(place, EUROPE)
    with closing(place.factory(GsmOptions(("us-east1",)))) as store:
        with pytest.raises(UsageError, match="other replication"):
            store.secrets.create("daskpki_c_secret_s", labels=secret_names.labels("c", "secret", "s"))
        store.log("d").commit(lambda _: new_ca(1), STAMP)
    assert replicas(place, secret_names.records_id("d")) == [("us-east1", "")]


def test_automatic_replication_and_google_s_keys_are_the_default(place: GsmPlace) -> None:
    found(place, None)
    message = place.server._stored(place.name(secret_names.records_id("c"))).message
    assert message.replication.HasField("automatic")
    assert not message.replication.automatic.HasField("customer_managed_encryption")


def test_a_key_fits_automatic_and_regional_secrets() -> None:
    key = KEY.replace("{location}", "global")
    wanted = {"automatic": {"customer_managed_encryption": {"kms_key_name": key}}}
    assert secret_settings(GsmOptions((), KEY), GLOBAL) == {"replication": wanted}
    regional = {"kms_key_name": KEY.replace("{location}", "europe-west1")}
    assert secret_settings(GsmOptions((), KEY), REGIONAL) == {"customer_managed_encryption": regional}


@pytest.mark.parametrize(
    ("options", "url", "message"),
    [
        (GsmOptions(("europe-west1",)), REGIONAL, "no replication"),
        (GsmOptions(("Europe",)), GLOBAL, "'Europe' is not a location"),
        (GsmOptions((), "key"), GLOBAL, "'key' is not a KMS key"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: GsmOptions, url: GsmUrl, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_options(options, url)
    assert check_options(EUROPE, GLOBAL) == EUROPE

"""What goes wrong between here and Secret Manager, over both transports: retried, settled, or told apart."""

from __future__ import annotations

import random
from contextlib import closing
from itertools import count
from typing import Any

import pytest

from daskpki import secret_names
from daskpki.authority.ca import CertificateAuthority
from daskpki.confidential import Confidential
from daskpki.errors import (
    AccessDeniedError,
    AmbiguousError,
    CorruptError,
    DisabledError,
    NotFoundError,
    UnavailableError,
)
from daskpki.identity import Role
from daskpki.records import EMPTY, ISSUED
from daskpki.store.gsm.api import RetryPolicy
from daskpki.store.gsm.store import GsmStore
from tests.support.drafts import STAMP, random_leaf
from tests.support.gsm_places import GsmPlace

CHANCE = random.Random(3)
SECRET = "daskpki_c_secret_s"
LABELS = secret_names.labels("c", "secret", "s")
RECORDS = secret_names.records_id("c")
BRIEF = RetryPolicy(deadline=0.3, attempt_timeout=5.0, first_wait=0.02, longest_wait=0.1)

PASSING = [
    {"status": "UNAVAILABLE"},
    {"status": "RESOURCE_EXHAUSTED"},
    {"status": "ABORTED"},
    {"status": "INTERNAL"},
    {"http": 502, "html": True},
    {"reset": True},
]
CUT_OFF: list[dict[str, Any]] = [
    {"status": "UNAVAILABLE"},
    {"status": "UNAVAILABLE", "acts_first": True},
    {"status": "DEADLINE_EXCEEDED", "acts_first": True},
    {"status": "ABORTED"},
    {"status": "RESOURCE_EXHAUSTED"},
    {"http": 500, "html": True, "acts_first": True},
    {"reset": True},
    {"reset": True, "acts_first": True},
]


@pytest.fixture
def filled(store: GsmStore) -> GsmStore:
    """A store with one secret of two versions."""
    store.secrets.create(SECRET, labels=LABELS)
    for text in ("one", "two"):
        store.secrets.add(SECRET, Confidential(text))
    return store


def commits(store: GsmStore, number: int = 1) -> None:
    for _ in range(number):
        draft = random_leaf(CHANCE).reserved()
        store.log("c").commit(lambda _, draft=draft: [draft], STAMP)  # type: ignore[misc] # a lambda's default


def readable(store: GsmStore) -> list[int]:
    return [record.seq for record in store.log("c").records()]


@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_a_read_is_repeated_until_it_succeeds(place: GsmPlace, filled: GsmStore, fault: dict[str, Any]) -> None:
    place.server.fail("AccessSecretVersion", times=2, **fault)
    assert filled.secrets.access(SECRET, 2).reveal() == b"two"


@pytest.mark.parametrize("fault", CUT_OFF, ids=str)
def test_what_may_be_repeated_is_repeated(place: GsmPlace, filled: GsmStore, fault: dict[str, Any]) -> None:
    for method in ("DestroySecretVersion", "DisableSecretVersion", "DeleteSecret", "CreateSecret"):
        place.server.fail(method, **fault)
    filled.secrets.destroy(SECRET, 1)
    filled.secrets.disable(SECRET, 2)
    assert [version.state for version in filled.secrets.versions(SECRET)] == ["DISABLED", "DESTROYED"]
    filled.secrets.delete(SECRET)
    assert filled.secrets.create(SECRET, labels=LABELS).labels == LABELS


@pytest.mark.parametrize("acts_first", [False, True])
def test_an_add_that_was_cut_off_is_not_repeated(place: GsmPlace, filled: GsmStore, acts_first: bool) -> None:  # noqa: FBT001
    place.server.fail("AddSecretVersion", status="UNAVAILABLE", acts_first=acts_first)
    with pytest.raises(AmbiguousError, match=SECRET):
        filled.secrets.add(SECRET, Confidential("three"))
    assert len(list(filled.secrets.versions(SECRET))) == 2 + acts_first


@pytest.mark.parametrize("status", ["ABORTED", "RESOURCE_EXHAUSTED"])
def test_an_add_that_was_refused_is_repeated(place: GsmPlace, filled: GsmStore, status: str) -> None:
    place.server.fail("AddSecretVersion", status=status, times=2)
    assert filled.secrets.add(SECRET, Confidential("three")) == 3


@pytest.mark.parametrize("fault", CUT_OFF, ids=str)
@pytest.mark.parametrize("method", ["AddSecretVersion", "DestroySecretVersion", "AccessSecretVersion", "CreateSecret"])
def test_a_commit_survives_each_fault_at_each_step(place: GsmPlace, method: str, fault: dict[str, Any]) -> None:
    for first in (1, 2):
        with closing(place.factory()) as store:
            place.server.fail(method, nth=first, **fault)
            commits(store, 3)
    with closing(place.factory()) as store:
        assert readable(store) == [1, 2, 3, 4, 5, 6]


def test_a_time_out_after_the_server_acted_is_settled_by_a_look(place: GsmPlace) -> None:
    with closing(place.factory(policy=RetryPolicy(attempt_timeout=0.5, first_wait=0.02))) as store:
        commits(store)
        place.server.fail("AddSecretVersion", latency=1.5, acts_first=True)
        commits(store)
        assert readable(store) == [1, 2]
        assert place.server.count("AddSecretVersion") == 2


def test_a_reply_cut_short_is_asked_for_again(place: GsmPlace, filled: GsmStore) -> None:
    place.server.fail("AccessSecretVersion", truncate=True)
    assert filled.secrets.access(SECRET, 1).reveal() == b"one"


def test_a_wrong_checksum_is_asked_for_again_and_refused_when_it_stays(place: GsmPlace, filled: GsmStore) -> None:
    place.server.fail("AccessSecretVersion", wrong_crc32c=True, times=2)
    assert filled.secrets.access(SECRET, 1).reveal() == b"one"
    place.server.fail("AccessSecretVersion", wrong_crc32c=True, times=None)
    with pytest.raises(CorruptError, match=f"{SECRET}, version 1, .*checksum"):
        filled.secrets.access(SECRET, 1)


def test_the_deadline_ends_in_unavailable_with_the_last_cause(place: GsmPlace) -> None:
    place.server.fail("*", status="UNAVAILABLE", times=None, message="the region is down")
    with (
        closing(place.factory(policy=BRIEF)) as store,
        pytest.raises(UnavailableError, match="the region is down") as raised,
    ):
        store.secrets.access(SECRET, 1)
    assert raised.value.exit_code == 75
    assert not isinstance(raised.value, AmbiguousError)


def test_a_dead_endpoint_is_unavailable(place: GsmPlace) -> None:
    place.server.stop()
    with closing(place.factory(policy=BRIEF)) as store, pytest.raises(UnavailableError):
        store.secrets.access(SECRET, 1)
    place.server.start()


def test_real_quotas_slow_commits_down_and_lose_none(place: GsmPlace) -> None:
    place.server.quotas.enforced = True
    clock = count()
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        place.server.clock.advance(seconds)

    policy = RetryPolicy(sleep, lambda: next(clock) * 0.001 + sum(waits), first_wait=0.5)
    with closing(place.factory(policy=policy)) as store:
        commits(store, 12)
        assert readable(store) == list(range(1, 13))
    assert waits
    assert place.server.quotas.busiest_second(place.server.secrets()[0]) > 2  # it was refused, and came back


def test_who_waits_for_seconds_is_told_once_for_whom(place: GsmPlace, caplog: pytest.LogCaptureFixture) -> None:
    with closing(place.factory(policy=RetryPolicy(first_wait=0.001, longest_wait=0.002))) as store:
        store.secrets.create(SECRET, labels=LABELS)
        store.secrets.add(SECRET, Confidential("one"))
        place.server.fail("AccessSecretVersion", status="UNAVAILABLE", times=3, message="the region is down")
        assert store.secrets.access(SECRET, 1).reveal() == b"one"
        assert not caplog.messages  # it was nothing
        for _ in range(2):
            place.server.fail("AccessSecretVersion", status="UNAVAILABLE", times=8, message="the region is down")
            assert store.secrets.access(SECRET, 1).reveal() == b"one"
    assert caplog.messages == [f"{place.url}: the region is down; trying again for up to 120 s"]


# --- what is told apart ---


def test_an_api_that_is_off_names_the_command(place: GsmPlace, filled: GsmStore) -> None:
    place.server.disable_api("test-project")
    with pytest.raises(AccessDeniedError, match=r"secretmanager\S+ is off in project \d+") as raised:
        filled.secrets.access(SECRET, 1)
    assert "gcloud services enable secretmanager.googleapis.com" in str(raised.value.hint)


def test_missing_disabled_and_destroyed_are_told_apart(filled: GsmStore) -> None:
    filled.secrets.disable(SECRET, 1)
    filled.secrets.destroy(SECRET, 2)
    with pytest.raises(DisabledError, match=r"version 1, .* is disabled"):
        filled.secrets.access(SECRET, 1)
    with pytest.raises(DisabledError, match=r"version 2, .* is destroyed"):
        filled.secrets.access(SECRET, 2)
    with pytest.raises(NotFoundError, match=r"version 3, .* does not exist"):
        filled.secrets.access(SECRET, 3)


# --- the log and what strangers do to it ---


def test_a_latest_that_lags_behind_destroyed_versions_is_overcome(place: GsmPlace) -> None:
    with closing(place.factory()) as store:
        commits(store, 2)
        place.server.latest_lag(place.name(RECORDS))
        commits(store, 5)
    with closing(place.factory()) as store:
        commits(store)
        assert readable(store) == list(range(1, 9))
        assert store.log("c").inventory().head.seq == 8


def test_a_newest_version_that_was_destroyed_is_refused_and_can_be_mended(place: GsmPlace) -> None:
    with closing(place.factory()) as store:
        commits(store, 3)
        store.secrets.disable(RECORDS, 3)
    with closing(place.factory()) as store:
        with pytest.raises(DisabledError, match="newest version 3") as raised:
            commits(store)
        assert "enable version 3" in str(raised.value.hint)
        store.secrets.enable(RECORDS, 3)
        commits(store)
        assert readable(store) == [1, 2, 3, 4]


def test_a_foreign_payload_in_the_log_is_named_and_passed_over(
    place: GsmPlace, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(place.factory()) as store:
        commits(store, 2)
        end = store.log("c").inventory().head
        store.secrets.add(RECORDS, Confidential("not a log"))
    with closing(place.factory()) as store:
        assert store.log("c").inventory().head == end
        assert f"gcloud secrets versions destroy 3 --secret={RECORDS}" in caplog.text
        commits(store, 1)
        assert store.log("c").inventory().head.seq == end.seq + 1


def test_another_s_secret_in_the_log_s_place_is_not_touched(place: GsmPlace) -> None:
    place.server.seed(place.name(RECORDS))
    with closing(place.factory()) as store, pytest.raises(Exception, match=r"managed-by=daskpki") as raised:
        commits(store)
    assert type(raised.value).__name__ == "NotOursError"
    assert place.server.payloads(place.name(RECORDS)) == []


def test_a_look_at_an_empty_project_finds_nothing(store: GsmStore) -> None:
    assert store.log("c").inventory().head == EMPTY
    assert list(store.clusters()) == []


@pytest.mark.parametrize("name", ["widgetag", "destroyed", "disabled"])
def test_a_name_in_googles_answer_does_not_explain_it(store: GsmStore, name: str) -> None:
    """Google names the secret in its answer, and the secret's name is the user's."""
    secret = secret_names.user_secret_id("c", name)
    store.secrets.create(secret, labels=secret_names.labels("c", "secret", name))
    for text in ("one", "two", "three"):
        store.secrets.add(secret, Confidential(text))
    store.secrets.destroy(secret, 1)
    store.secrets.disable(secret, 2)
    for number, state in ((1, "is destroyed"), (2, "is disabled")):
        with pytest.raises(DisabledError, match=f"{secret}, version {number}, in gsm:.* {state}"):
            store.secrets.access(secret, number)


def test_a_secret_that_only_looks_like_a_log_is_no_cluster(store: GsmStore) -> None:
    store.log("c").commit(lambda _: [random_leaf(CHANCE).reserved()], STAMP)
    marks = {"managed-by": "daskpki", "daskpki-kind": secret_names.RECORDS}
    for secret, more in (("theirs", {}), ("theirs-too", {"daskpki-cluster": "d"})):
        store.secrets.create(secret, labels={**marks, **more})
    assert store.clusters() == ["c"]


def test_older_versions_that_cannot_be_destroyed_now_are_no_failure(place: GsmPlace) -> None:
    with closing(place.factory(policy=BRIEF)) as store:
        authority = CertificateAuthority(store, "c")
        authority.init()
        requests = authority.requests(Role.WORKER, ["w"])
        for _ in range(3):
            list(authority.issue(requests))
        secret = secret_names.credential_id("c", Role.WORKER, "w")
        place.server.fail("DestroySecretVersion", secret=secret, status="UNAVAILABLE", times=1000)
        (issued,) = authority.issue(requests)
        assert issued.record.status == ISSUED
        assert len(place.server.active_versions(place.name(secret))) > 2

"""How many requests each step costs, against the table in the data model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import closing

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.inventory import Inventory
from daskpki.records import Draft
from daskpki.store.gsm.log import GsmRecordLog
from daskpki.store.gsm.store import GsmStore
from tests.support.drafts import STAMP, Leaf, new_ca, random_leaf
from tests.support.gsm_places import ONE_PLACE, GsmPlace
from tests.support.nightly import by_day

CHANCE = random.Random(4)
ADD, ACCESS, CREATE, DESTROY = "AddSecretVersion", "AccessSecretVersion", "CreateSecret", "DestroySecretVersion"
RECORDS = secret_names.records_id("c")


def commit(log: GsmRecordLog, drafts: Sequence[Draft]) -> None:
    log.commit(lambda _: drafts, STAMP)


def confirm(log: GsmRecordLog, leaves: Sequence[Leaf]) -> None:
    """As the authority confirms: only what is still reserved."""

    def decide(inventory: Inventory) -> list[Draft]:
        statuses = [inventory.certificate(int(leaf.serial, 16)) for leaf in leaves]
        assert all(entry is not None and entry.status == "reserved" for entry in statuses)
        return [leaf.issued() for leaf in leaves]

    log.commit(decide, STAMP)


def issue(store: GsmStore, count: int = 1) -> None:
    """The requests of `daskpki issue --count`: look for the CA and abandoned leaves, reserve, store, confirm."""
    log = store.log("c")
    leaves = [random_leaf(CHANCE) for _ in range(count)]
    inventory = log.inventory()
    assert inventory.authorities()
    assert not list(inventory.certificates(statuses=["reserved"]))
    commit(log, [leaf.reserved() for leaf in leaves])
    for leaf in leaves:
        secret = f"daskpki_c_worker_{leaf.serial}"
        store.secrets.create(secret, labels=secret_names.labels("c", "worker", leaf.name))
        store.secrets.add(secret, Confidential("credential"))
    confirm(log, leaves)


def found(place: GsmPlace) -> None:
    """A cluster with a CA and three leaves."""
    with closing(place.factory()) as store:
        commit(store.log("c"), new_ca(1))
        for _ in range(3):
            issue(store)


def requests(place: GsmPlace) -> list[str]:
    seen = [entry.method for entry in place.server.requests()]
    place.server.reset_journal()
    return seen


def test_a_commit_by_a_new_process_is_two_accesses_a_destroy_and_an_add(place: GsmPlace) -> None:
    found(place)
    requests(place)
    with closing(place.factory()) as store:
        commit(store.log("c"), [random_leaf(CHANCE).reserved()])
        assert requests(place) == [ACCESS, ACCESS, DESTROY, ADD]
        commit(store.log("c"), [random_leaf(CHANCE).reserved()])
        assert requests(place) == [DESTROY, ADD]


def test_an_issue_is_eight_requests_six_of_them_writes(place: GsmPlace) -> None:
    found(place)
    requests(place)
    with closing(place.factory()) as store:
        log = store.log("c")
        leaf = random_leaf(CHANCE)
        commit(log, [leaf.reserved()])
        store.secrets.create("daskpki_c_worker_new", labels=secret_names.labels("c", "worker", "new"))
        store.secrets.add("daskpki_c_worker_new", Confidential("credential"))
        confirm(log, [leaf])
    assert requests(place) == [ACCESS, ACCESS, DESTROY, ADD, CREATE, ADD, DESTROY, ADD]


def test_n_leaves_share_the_log_s_requests(place: GsmPlace) -> None:
    found(place)
    requests(place)
    with closing(place.factory()) as store:
        issue(store, 50)
    seen = requests(place)
    assert len(seen) - seen.count(ACCESS) == 4 + 2 * 50
    assert seen.count(ACCESS) <= 3


@ONE_PLACE
def test_issuing_costs_the_same_after_thousands_of_certificates(place: GsmPlace) -> None:
    found(place)
    with closing(place.factory()) as store:
        for _ in range(by_day(11, night=15)):
            leaves = [random_leaf(CHANCE) for _ in range(200)]
            commit(store.log("c"), [leaf.reserved() for leaf in leaves])
            confirm(store.log("c"), leaves)
    requests(place)
    with closing(place.factory()) as store:
        issue(store)
        head = store.log("c")._head()
    assert len(requests(place)) <= 10
    assert head is not None
    assert len(head.segments) >= 2


@ONE_PLACE
def test_active_versions_stay_few_and_segments_full(place: GsmPlace) -> None:
    with closing(place.factory()) as store:
        commit(store.log("c"), new_ca(1))
        for _ in range(12):
            leaves = [random_leaf(CHANCE) for _ in range(150)]
            commit(store.log("c"), [leaf.reserved() for leaf in leaves])
            commit(store.log("c"), [leaf.issued() for leaf in leaves])
        head = store.log("c")._head()
        assert head is not None
        active = place.server.active_versions(place.name(RECORDS))
        assert len(active) - len(head.segments) <= 4
        reservations = [record.seq for record in store.log("c").records() if record.kind == "reserved"]
        begin = 0
        for segment in head.segments:
            assert sum(begin < seq <= segment.end.seq for seq in reservations) >= 300
            begin = segment.end.seq
        assert head.segments


def test_the_first_commit_makes_the_secret(place: GsmPlace) -> None:
    with closing(place.factory()) as store:
        commit(store.log("c"), new_ca(1))
        assert requests(place) == [ACCESS, ACCESS, CREATE, ADD]


def test_adding_to_a_secret_that_this_process_did_not_make_looks_at_its_labels_once(place: GsmPlace) -> None:
    found(place)
    with closing(place.factory()) as store:
        store.secrets.create("daskpki_c_secret_x", labels=secret_names.labels("c", "secret", "x"))
    requests(place)
    with closing(place.factory()) as store:
        for text in ("one", "two"):
            store.secrets.add("daskpki_c_secret_x", Confidential(text))
    assert requests(place) == ["GetSecret", ADD, ADD]

"""A running node's look at its store: few requests, by number, and what a failed look leaves is looked at again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from daskpki import secret_names
from daskpki.boot.fetch import Reader
from daskpki.boot.refresh import StoreSource, TrustVersions, open_source
from daskpki.cluster.audit import REFUSED, Audit
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.peer import trust_of
from daskpki.cluster.refresh import NullSource, Poller
from daskpki.cluster.tls import KeyPair
from daskpki.cluster.trust_updates import TrustManager, TrustMessage
from daskpki.confidential import Confidential
from daskpki.errors import NotFoundError, UnavailableError
from daskpki.handover import Handover, parse_handover
from daskpki.identity import Role
from daskpki.pki.credential import encode_credential
from daskpki.pki.trust_document import TrustDocument
from tests.support.cluster_material import Authority
from tests.support.nodes import handover_of


class Shelves:
    """Versions by number, as Secret Manager keeps them, and how often it was asked."""

    def __init__(self) -> None:
        self.versions: dict[str, list[Confidential]] = {}
        self.requests = 0
        self.down = False

    def add(self, secret: str, payload: Confidential) -> None:
        self.versions.setdefault(secret, []).append(payload)

    def latest(self, secret: str) -> tuple[int, Confidential]:
        number = len(self.versions.get(secret, []))
        return number, self.access(secret, number)

    def access(self, secret: str, number: int) -> Confidential:
        self.requests += 1
        if self.down:
            raise UnavailableError("no answer")
        versions = self.versions.get(secret, [])
        if not 1 <= number <= len(versions):
            raise NotFoundError(f"{secret} has no version {number}")
        return versions[number - 1]


TRUST = secret_names.trust_id("default")


class OwnNode(NamedTuple):
    """What goes by a source in a process."""

    manager: TrustManager
    poller: Poller
    audit: Audit


def own_node(source: StoreSource, authority: Authority, held: TrustDocument) -> OwnNode:
    leaf = authority.leaf(Role.WORKER)
    enforcement = Enforcement(leaf.identity, leaf.pair, trust_of(held))
    manager = enforcement.manager = TrustManager(enforcement, held)
    return OwnNode(manager, Poller(enforcement, manager, WithoutCredential(source), share=0), enforcement.audit)


class WithoutCredential(NamedTuple):
    """A store in which there are trust documents alone."""

    source: StoreSource

    def trust_after(self, held: TrustDocument) -> Iterator[TrustMessage]:
        return self.source.trust_after(held)

    def credential(self, held: KeyPair) -> KeyPair | None:  # noqa: ARG002 - the protocol's signature
        return None


@pytest.fixture
def shelves() -> Shelves:
    return Shelves()


@pytest.fixture
def handover(authority: Authority, tmp_path: Path) -> Handover:
    return parse_handover(handover_of(authority, authority.leaf(Role.WORKER), tmp_path, "limited").read_bytes())


@pytest.fixture
def source(handover: Handover, shelves: Shelves) -> StoreSource:
    @contextmanager
    def reader() -> Iterator[Reader]:
        yield shelves

    return StoreSource(handover.cluster, reader, (Role(handover.role), handover.name))


def newest(source: StoreSource, held: TrustDocument) -> Confidential | None:
    """The first that is offered, and taken."""
    for found in source.trust_after(held):
        return found.signed
    return None


def numbers(source: StoreSource, held: TrustDocument) -> list[int]:
    """All that are offered, when each is refused."""
    return [int(found.place.split()[1]) for found in source.trust_after(held)]


def test_one_request_for_each_secret_when_there_is_nothing_new(shelves: Shelves, source: StoreSource) -> None:
    authority = Authority()
    before, document = authority.document(), authority.document()
    leaf = authority.leaf(Role.WORKER)
    for each in (before, document):
        shelves.add(TRUST, authority.signed(each))
    shelves.add(secret_names.credential_id("default", Role.WORKER, "worker"), encode_credential(leaf.credential))
    assert newest(source, before) == shelves.versions[TRUST][1]
    assert source.credential(authority.leaf(Role.WORKER).pair) == leaf.pair
    assert newest(source, document) is None
    requests = shelves.requests
    assert newest(source, document) is None
    assert source.credential(leaf.pair) is None
    assert shelves.requests - requests == 2


def test_a_credential_that_did_not_hold_is_offered_again(shelves: Shelves, source: StoreSource) -> None:
    """One of the next CA, whose trust document comes later."""
    authority = Authority()
    held, leaf = authority.document(), authority.leaf(Role.WORKER)
    enforcement = Enforcement(leaf.identity, leaf.pair, trust_of(held))
    manager = TrustManager(enforcement, held)
    poller = Poller(enforcement, manager, source, share=0)
    shelves.add(TRUST, authority.signed(held))
    authority.add_authority()
    known = authority.signed(authority.document())
    authority.activate_authority()
    newer = authority.leaf(Role.WORKER)
    shelves.add(secret_names.credential_id("default", Role.WORKER, "worker"), encode_credential(newer.credential))
    assert not poller.poll()
    assert enforcement.pair == leaf.pair
    shelves.add(TRUST, known)
    assert poller.poll()
    assert enforcement.pair == newer.pair
    requests = shelves.requests
    assert poller.poll()
    assert shelves.requests - requests == 2


def test_after_a_push_the_next_look_that_is_answered_asks_for_a_credential(
    shelves: Shelves, source: StoreSource
) -> None:
    """A renewal publishes; a scheduler that looked first pushes the document to workers, which is no less news."""
    authority = Authority()
    held, renewed, leaf = authority.document(), authority.leaf(Role.WORKER), authority.leaf(Role.WORKER)
    enforcement = Enforcement(leaf.identity, leaf.pair, trust_of(held))
    manager = TrustManager(enforcement, held)
    poller = Poller(enforcement, manager, source)
    shelves.add(TRUST, authority.signed(held))
    shelves.add(TRUST, authority.signed(pushed := authority.document()))
    shelves.add(secret_names.credential_id("default", Role.WORKER, "worker"), encode_credential(renewed.credential))
    assert manager.offer(authority.signed(pushed))
    shelves.down = True
    assert not poller.poll()
    assert enforcement.pair == leaf.pair
    shelves.down = False
    assert poller.poll()
    assert enforcement.pair == renewed.pair
    requests = shelves.requests
    assert poller.poll()
    assert shelves.requests - requests == 1  # for trust alone


def test_what_is_new_is_found_also_after_a_look_that_failed(shelves: Shelves, source: StoreSource) -> None:
    authority = Authority()
    first, second = authority.document(), authority.document()
    shelves.add(TRUST, authority.signed(first))
    assert newest(source, first) is None
    shelves.add(TRUST, authority.signed(second))
    shelves.down = True
    with pytest.raises(UnavailableError):
        newest(source, first)
    shelves.down = False
    assert newest(source, first) is not None
    assert newest(source, second) is None


def test_a_store_that_was_put_back_is_believed_once_it_has_passed_what_is_known(
    shelves: Shelves, source: StoreSource
) -> None:
    authority = Authority()
    documents = [authority.document() for _ in range(4)]
    for document in documents[:3]:
        shelves.add(TRUST, authority.signed(document))
    known = documents[2]
    assert newest(source, known) is None
    del shelves.versions[TRUST][1:]
    assert newest(source, known) is None
    for document in documents[1:3]:  # it goes on from there, and has the same numbers and epochs once more
        shelves.add(TRUST, authority.signed(document))
        assert newest(source, known) is None
    shelves.add(TRUST, authority.signed(documents[3]))
    assert newest(source, known) == shelves.versions[TRUST][3]


def test_what_was_offered_and_not_taken_is_offered_again_only_after_another_document(
    shelves: Shelves, source: StoreSource
) -> None:
    authority = Authority()
    documents = [authority.document() for _ in range(4)]
    for document in documents:
        shelves.add(TRUST, authority.signed(document))
    assert numbers(source, documents[0]) == [4, 3, 2]
    requests = shelves.requests
    assert numbers(source, documents[0]) == []
    assert shelves.requests - requests == 1
    assert numbers(source, documents[1]) == [4, 3], "which it may vouch for"


def test_versions_that_do_not_hold_hide_none_that_does(shelves: Shelves, source: StoreSource) -> None:
    """Before and after it: greater and lower epochs, bytes that are nothing, and a copy of what is in force."""
    authority, stranger = Authority(), Authority()
    held, revoking = authority.document(), authority.document()
    forged = [stranger.document()._replace(epoch=epoch) for epoch in (2**62, revoking.epoch, held.epoch)]
    junk = [*(stranger.signed(each) for each in forged), Confidential(b"nothing"), authority.signed(held)]
    shelves.versions[TRUST] = [authority.signed(held), *junk, authority.signed(revoking), *junk]
    security = own_node(source, authority, held)
    assert not security.poller.poll(), "some did not hold"
    assert security.manager.epoch == revoking.epoch
    refused = [event.detail for event in security.audit.latest if event.kind == REFUSED]
    assert {detail.split(" of ")[0] for detail in refused} == {f"a trust document from version {n}" for n in (2, 3)}
    requests = shelves.requests
    assert security.poller.poll()
    assert shelves.requests - requests == 1, "each is refused once"


def test_a_thousand_forged_versions_cost_two_reads_each_and_one_request_afterwards(
    shelves: Shelves, source: StoreSource
) -> None:
    authority, stranger = Authority(), Authority()
    held, revoking = authority.document(), authority.document()
    forged = stranger.signed(stranger.document()._replace(epoch=1000, prev=0))
    shelves.versions[TRUST] = [authority.signed(held), authority.signed(revoking), *[forged] * 1000]
    security = own_node(source, authority, held)
    security.poller.poll()
    assert security.manager.epoch == revoking.epoch
    assert shelves.requests < 4 * 1000
    requests = shelves.requests
    assert security.poller.poll()
    assert shelves.requests - requests == 1


def test_a_node_that_missed_a_rollover_catches_up_through_the_versions_between(
    shelves: Shelves, source: StoreSource
) -> None:
    authority = Authority()
    held = authority.document()
    shelves.add(TRUST, authority.signed(held))
    security = own_node(source, authority, held)
    for step in (authority.add_authority, authority.activate_authority, authority.finish_rollover):
        step()
        shelves.add(TRUST, authority.signed(newer := authority.document()))
    authority.sign_by_active_alone()
    shelves.add(TRUST, authority.signed(newest := authority.document()))
    security.poller.poll()
    assert (newest.epoch > newer.epoch, security.manager.epoch) == (True, newest.epoch)


def test_a_document_of_the_future_is_tried_again_once_the_clock_is_right(shelves: Shelves) -> None:
    authority, moment = Authority(), [0.0]
    held = authority.document()
    versions = TrustVersions("default", now=lambda: moment[0])
    shelves.versions[TRUST] = [authority.signed(held), authority.signed(later := authority.document())]
    moment[0] = later.issued_at - 3600.0
    assert len(list(versions.after(shelves, held))) == 1
    assert not list(versions.after(shelves, held))
    moment[0] = float(later.issued_at)
    assert len(list(versions.after(shelves, held))) == 1


def test_where_a_node_looks(handover: Handover) -> None:
    assert isinstance(open_source(handover._replace(store=None)), NullSource)
    assert isinstance(open_source(handover._replace(store="gsm://some-project")), StoreSource)

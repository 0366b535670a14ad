"""A running node's look at its store: few requests, by number, and what a failed look leaves is looked at again."""

from __future__ import annotations

import math
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
from daskpki.cluster.refresh import NullSource, Poller, Refused
from daskpki.cluster.tls import KeyPair
from daskpki.cluster.trust_updates import TrustManager, TrustMessage
from daskpki.confidential import Confidential
from daskpki.errors import DisabledError, NotFoundError, UnavailableError
from daskpki.handover import Handover, parse_handover
from daskpki.identity import Role
from daskpki.pki.credential import encode_credential
from daskpki.pki.trust_document import TrustDocument
from tests.support.cluster_material import Authority
from tests.support.nodes import handover_of


class Shelves:
    """Versions by number, as Secret Manager keeps them, and how often it was asked.

    None is a disabled version. `latest` may be held back, and it answers so many requests only.
    """

    def __init__(self) -> None:
        self.versions: dict[str, list[Confidential | None]] = {}
        self.requests = 0
        self.answers = math.inf
        self.held_back: int | None = None

    def add(self, secret: str, payload: Confidential) -> None:
        self.versions.setdefault(secret, []).append(payload)

    def latest(self, secret: str) -> tuple[int, Confidential]:
        number = self.held_back or len(self.versions.get(secret, []))
        return number, self.access(secret, number)

    def access(self, secret: str, number: int) -> Confidential:
        self.requests += 1
        if self.answers <= 0:
            raise UnavailableError("no answer")
        self.answers -= 1
        versions = self.versions.get(secret, [])
        if not 1 <= number <= len(versions):
            raise NotFoundError(f"{secret} has no version {number}")
        payload = versions[number - 1]
        if payload is None:
            raise DisabledError(f"version {number} of {secret} is disabled")
        return payload


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
    return OwnNode(manager, Poller(manager, WithoutCredential(source), share=0), enforcement.audit)


class WithoutCredential(NamedTuple):
    """A store in which there are trust documents alone."""

    source: StoreSource

    def trust_after(self, held: TrustDocument, refused: Refused) -> TrustMessage | None:
        return self.source.trust_after(held, refused)

    def credential(self, held: KeyPair) -> KeyPair | None:  # noqa: ARG002 - the protocol's signature
        return None


class TrustSource(NamedTuple):
    """Trust documents alone, by the search itself."""

    versions: TrustVersions
    shelves: Shelves

    def trust_after(self, held: TrustDocument, refused: Refused) -> TrustMessage | None:
        return self.versions.after(self.shelves, held, refused)


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


def look(source: StoreSource | TrustSource, held: TrustDocument) -> tuple[Confidential | None, list[int]]:
    """What is found, and the numbers of the versions that are refused."""
    refused: list[int] = []
    found = source.trust_after(held, lambda message, _error: refused.append(int(message.place.split()[1])))
    return found and found.signed, sorted(refused)


def newest(source: StoreSource, held: TrustDocument) -> Confidential | None:
    found, refused = look(source, held)
    assert not refused
    return found


def test_one_request_for_each_secret_when_there_is_nothing_new(shelves: Shelves, source: StoreSource) -> None:
    authority = Authority()
    before, document = authority.document(), authority.document()
    leaf = authority.leaf(Role.WORKER)
    for each in (before, document):
        shelves.add(TRUST, authority.signed(each))
    shelves.add(secret_names.credential_id("default", Role.WORKER, "worker"), encode_credential(leaf.credential, 1))
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
    poller = Poller(manager, source, share=0)
    shelves.add(TRUST, authority.signed(held))
    authority.add_authority()
    known = authority.signed(authority.document())
    authority.activate_authority()
    newer = authority.leaf(Role.WORKER)
    shelves.add(secret_names.credential_id("default", Role.WORKER, "worker"), encode_credential(newer.credential, 1))
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
    poller = Poller(manager, source)
    shelves.add(TRUST, authority.signed(held))
    shelves.add(TRUST, authority.signed(pushed := authority.document()))
    shelves.add(secret_names.credential_id("default", Role.WORKER, "worker"), encode_credential(renewed.credential, 1))
    assert manager.accept_trust(authority.signed(pushed))
    shelves.answers = 0
    assert not poller.poll()
    assert enforcement.pair == leaf.pair
    shelves.answers = math.inf
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
    shelves.answers = 0
    with pytest.raises(UnavailableError):
        newest(source, first)
    shelves.answers = math.inf
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


def test_what_was_refused_is_verified_again_only_under_another_document(shelves: Shelves, source: StoreSource) -> None:
    """After a rollover that was missed: the document between the two CAs is destroyed, and then pushed."""
    authority = Authority()
    held, between, *_ = authority.document(), *authority.rotate()
    authority.sign_by_active_alone()
    later = authority.document(), authority.document()
    shelves.versions[TRUST] = [authority.signed(held), None, None, None, *map(authority.signed, later)]
    assert look(source, held) == (None, [5, 6])
    requests = shelves.requests
    assert look(source, held) == (None, [])
    assert shelves.requests - requests == 1
    assert look(source, between) == (shelves.versions[TRUST][5], []), "it vouches for both"


def test_versions_that_do_not_hold_hide_none_that_does(shelves: Shelves, source: StoreSource) -> None:
    """Before and after it: greater and lower epochs, bytes that are nothing, and a copy of what is in force."""
    authority, stranger = Authority(), Authority()
    held, revoking = authority.document(), authority.document()
    forged = [stranger.document()._replace(epoch=epoch) for epoch in (2**62, revoking.epoch, held.epoch)]
    junk = [*(stranger.signed(each) for each in forged), Confidential(b"nothing"), authority.signed(held)]
    shelves.versions[TRUST] = [authority.signed(held), *junk, authority.signed(revoking), *junk]
    security = own_node(source, authority, held)
    assert not security.poller.poll(), "some did not hold"
    assert security.manager.document.epoch == revoking.epoch
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
    assert security.manager.document.epoch == revoking.epoch
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
    assert (newest.epoch > newer.epoch, security.manager.document.epoch) == (True, newest.epoch)


def test_a_document_of_the_future_is_tried_again_once_the_clock_is_right(shelves: Shelves) -> None:
    authority, stranger, moment = Authority(), Authority(), [0.0]
    held, later = authority.document(), authority.document()
    forged = stranger.document()._replace(epoch=later.epoch, issued_at=later.issued_at - 1800)
    shelves.versions[TRUST] = [*map(authority.signed, (held, later, held)), stranger.signed(forged)]
    source = TrustSource(TrustVersions("default", now=lambda: moment[0]), shelves)
    moment[0] = later.issued_at - 3600.0
    assert look(source, held) == (None, [2, 4])
    for moment[0] in (later.issued_at - 3590.0, later.issued_at - 1000.0):  # a forgery has no time
        assert look(source, held) == (None, [])
    moment[0] = float(later.issued_at)
    assert look(source, held) == (shelves.versions[TRUST][1], [4])


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("others", [0, 2])
def test_of_two_valid_documents_of_one_epoch_the_first_counts(
    shelves: Shelves,
    source: StoreSource,
    running: bool,  # noqa: FBT001
    others: int,
) -> None:
    authority, stranger = Authority(), Authority()
    held, document = authority.document(), authority.document()
    first, rival = (authority.signed(document._replace(operation=each)) for each in ("one", "another"))
    forged = stranger.signed(stranger.document()._replace(epoch=1000))
    shelves.add(TRUST, authority.signed(held))
    if running:
        assert newest(source, held) is None
    shelves.versions[TRUST] += [forged] * others + [first, rival, *[forged] * others, rival]
    assert look(source, held)[0] == first


@pytest.mark.parametrize("running", [True, False])
def test_below_a_disabled_newest_version_a_valid_document_counts_and_the_disabled_one_is_an_error(
    shelves: Shelves,
    source: StoreSource,
    running: bool,  # noqa: FBT001
) -> None:
    authority = Authority()
    held, revoking, lost = (authority.document() for _ in range(3))
    shelves.add(TRUST, authority.signed(held))
    security = own_node(source, authority, held)
    if running:
        assert security.poller.poll()
    shelves.versions[TRUST] += [authority.signed(revoking), None]
    for _ in range(3):
        assert not security.poller.poll()
        assert security.manager.document.epoch == revoking.epoch
        with pytest.raises(DisabledError, match="newest version 3"):
            look(source, revoking)
    shelves.versions[TRUST][2] = authority.signed(lost)
    assert security.poller.poll()
    assert security.manager.document.epoch == lost.epoch


def test_a_search_that_is_cut_off_resumes_and_reads_no_version_twice(shelves: Shelves, source: StoreSource) -> None:
    authority, stranger = Authority(), Authority()
    held, revoking = authority.document(), authority.document()
    shelves.add(TRUST, authority.signed(held))
    assert newest(source, held) is None
    forged = stranger.signed(stranger.document()._replace(epoch=1000))
    shelves.versions[TRUST] += [forged, authority.signed(revoking), forged, None, *[forged] * 50]
    requests, refused = shelves.requests, list[int]()
    for _ in range(7):
        shelves.answers = 7
        with pytest.raises(UnavailableError):
            source.trust_after(held, lambda message, _error: refused.append(int(message.place.split()[1])))
    shelves.answers = math.inf
    found, last = look(source, held)
    assert found == shelves.versions[TRUST][2]
    assert refused + last == [2, 4, *range(6, 56)]
    assert shelves.requests - requests == len(shelves.versions[TRUST]) + 7, "each version, the end, and those in vain"


def test_a_stale_latest_hides_nothing(shelves: Shelves, source: StoreSource) -> None:
    authority = Authority()
    documents = [authority.document()._replace(prev=number) for number in range(9000, 9005)]
    shelves.versions[TRUST] = [None] * 9000 + [authority.signed(each) for each in documents]
    shelves.held_back = 9002
    assert newest(source, documents[3]) == shelves.versions[TRUST][-1]
    assert shelves.requests == 1 + 1 + 3, "latest, whether this is the same secret, and the versions from there"


def test_in_a_copy_of_the_store_numbers_begin_again(shelves: Shelves, source: StoreSource) -> None:
    """Then the document in force names a predecessor that is not there."""
    authority, stranger = Authority(), Authority()
    held = authority.document()._replace(prev=50)
    revoking = authority.document()._replace(prev=1)
    forged = stranger.signed(stranger.document()._replace(epoch=1000))
    shelves.versions[TRUST] = [authority.signed(held), authority.signed(revoking), forged]
    assert look(source, held)[0] == shelves.versions[TRUST][1]


def test_a_login_of_last_year_costs_few_requests(shelves: Shelves, source: StoreSource) -> None:
    """The documents between were destroyed, and there is no reason to ask for each of them."""
    authority = Authority()
    held = authority.document()
    shelves.versions[TRUST] = [None] * 9000
    documents = [authority.document()._replace(prev=number) for number in (8999, 9001)]
    shelves.versions[TRUST] += [authority.signed(each) for each in documents]
    assert newest(source, held) == shelves.versions[TRUST][-1]
    assert shelves.requests == 2


def test_where_a_node_looks(handover: Handover) -> None:
    assert isinstance(open_source(handover._replace(store=None)), NullSource)
    assert isinstance(open_source(handover._replace(store="gsm://some-project")), StoreSource)

"""A running node's look at its store: few requests, by number, and what a failed look leaves is looked at again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daskpki import secret_names
from daskpki.boot.fetch import Reader
from daskpki.boot.refresh import StoreSource, open_source
from daskpki.cluster.refresh import NullSource
from daskpki.confidential import Confidential
from daskpki.errors import NotFoundError, UnavailableError
from daskpki.handover import Handover, parse_handover
from daskpki.identity import Role
from daskpki.pki.credential import encode_credential
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

    return StoreSource(handover, reader)


def test_one_request_for_each_secret_when_there_is_nothing_new(shelves: Shelves, source: StoreSource) -> None:
    authority = Authority()
    document = authority.document()
    leaf = authority.leaf(Role.WORKER)
    signed = authority.signed(document)
    shelves.add(secret_names.trust_id("default"), signed)
    shelves.add(secret_names.credential_id("default", Role.WORKER, "worker"), encode_credential(leaf.credential))
    found = source.trust_after(0)
    assert found is not None
    assert found == signed
    assert source.credential() == leaf.pair
    before = shelves.requests
    assert source.trust_after(document.epoch) is None
    assert source.credential() is None
    assert shelves.requests - before == 2


def test_what_is_new_is_found_also_after_a_look_that_failed(shelves: Shelves, source: StoreSource) -> None:
    authority = Authority()
    secret = secret_names.trust_id("default")
    shelves.add(secret, authority.signed(authority.document()))
    assert source.trust_after(1) is None
    shelves.add(secret, authority.signed(authority.document()))
    shelves.down = True
    with pytest.raises(UnavailableError):
        source.trust_after(1)
    shelves.down = False
    assert source.trust_after(1) is not None
    assert source.trust_after(1) is None


def test_a_store_that_was_put_back_is_believed_once_it_has_passed_what_is_known(
    shelves: Shelves, source: StoreSource
) -> None:
    authority = Authority()
    secret = secret_names.trust_id("default")
    documents = [authority.document() for _ in range(4)]
    for document in documents[:3]:
        shelves.add(secret, authority.signed(document))
    found = source.trust_after(0)
    assert found is not None
    known = documents[2].epoch
    assert source.trust_after(known) is None
    del shelves.versions[secret][1:]
    assert source.trust_after(known) is None
    for document in documents[1:3]:  # it goes on from there, and has the same numbers and epochs once more
        shelves.add(secret, authority.signed(document))
        assert source.trust_after(known) is None
    shelves.add(secret, authority.signed(documents[3]))
    passed = source.trust_after(known)
    assert passed is not None
    assert passed == shelves.versions[secret][3]


def test_where_a_node_looks(handover: Handover) -> None:
    assert isinstance(open_source(handover._replace(store=None)), NullSource)
    assert isinstance(open_source(handover._replace(store="gsm://some-project")), StoreSource)

"""A CRL far beyond one payload: complete, in pieces of which one revocation rewrites few, and none is left behind."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from daskpki import CertificateAuthority, naming
from daskpki.authority.crl_keeping import kept_crls
from daskpki.authority.rollover import Successor
from daskpki.errors import DisabledError, NotTrustedError
from daskpki.identity import Role
from daskpki.pki.credential import certificate_pem, parse_credential
from daskpki.records import ABANDONED
from daskpki.serials import random_serial
from daskpki.store.port import ENABLED, MAX_PAYLOAD
from tests.authority.clocks import START, Clock
from tests.store.places import LocalPlace

MANY = 100_000
SEVERAL = 4_000
INSERT = (
    "INSERT INTO certificate (cluster, serial, role, name, issuer, not_before, not_after, reserved_at, operation, "
    "status, key_type, sans, superseded) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@pytest.fixture
def place(tmp_path: Path) -> LocalPlace:
    return LocalPlace(tmp_path)


@pytest.fixture
def ca(place: LocalPlace) -> Iterator[CertificateAuthority]:
    with closing(place.create()) as store:
        authority = CertificateAuthority(store, clock=Clock())
        authority.init()
        yield authority


def plant_abandoned(place: LocalPlace, count: int) -> None:
    """Rows as that many abandoned reservations leave them; to write the records would take a minute."""
    now = int(START.timestamp())
    end = now + 30 * 86_400
    rows = (
        ("default", f"{random_serial():032x}", "worker", "w", 1, now, end, now, "op", ABANDONED, "p256", "[]", 0)
        for _ in range(count)
    )
    with closing(sqlite3.connect(place.database)) as connection, connection:
        connection.executemany(INSERT, rows)


def pieces(ca: CertificateAuthority) -> dict[int, int]:
    """Version number and size of every piece that is kept."""
    secrets, secret = ca.session.store.secrets, naming.revoked_id("default")
    return {
        number: len(secrets.access(secret, number)) for number, state, _ in secrets.versions(secret) if state == ENABLED
    }


def named(ca: CertificateAuthority) -> set[int]:
    return {piece.version for part in ca.trust().crls for piece in part.pieces}


def issue(ca: CertificateAuthority, name: str) -> bytes:
    (issued,) = ca.issue(ca.requests(Role.WORKER, [name]))
    payload = ca.session.store.secrets.latest(issued.secret).data
    return certificate_pem(parse_credential(payload)).encode()


def test_a_hundred_thousand_and_one_are_revoked(ca: CertificateAuthority, place: LocalPlace) -> None:
    leaf = issue(ca, "w")
    plant_abandoned(place, MANY)
    ca.revoke("worker/w")
    kept = pieces(ca)
    assert set(kept) == named(ca)
    assert len(kept) > 20
    assert max(kept.values()) <= MAX_PAYLOAD
    (crl,) = kept_crls(ca.session, ca.trust())
    assert len(crl.contents.revoked) == MANY + 1
    with pytest.raises(NotTrustedError, match="was revoked"):
        ca.verifier().verify(leaf)


def test_one_more_rewrites_a_piece_and_unnamed_ones_are_destroyed(ca: CertificateAuthority, place: LocalPlace) -> None:
    plant_abandoned(place, SEVERAL)
    history: list[set[int]] = []
    for name in ("a", "b", "c"):
        issue(ca, name)
        ca.revoke(f"worker/{name}")
        history.append(named(ca))
        assert set(pieces(ca)) == set().union(*history[-2:]), "those of this document and of the one before"
    assert len(history[0]) > 1
    for before, after in pairwise(history):
        assert len(after - before) in {1, 2}, "one piece is written anew, or halved"


def test_the_pieces_of_a_ca_that_is_dropped_go_with_it(ca: CertificateAuthority, place: LocalPlace) -> None:
    plant_abandoned(place, SEVERAL)
    issue(ca, "a")
    ca.revoke("worker/a")
    ca.rollover().start(Successor())
    ca.rollover().promote()
    ca.rollover().finish()
    issue(ca, "b")
    ca.revoke("worker/b")
    assert not named(ca)


def test_a_piece_that_is_gone_is_noticed(ca: CertificateAuthority, place: LocalPlace) -> None:
    plant_abandoned(place, SEVERAL)
    issue(ca, "a")
    ca.revoke("worker/a")
    secrets = ca.session.store.secrets
    secrets.destroy(naming.revoked_id("default"), min(named(ca)))
    with pytest.raises(DisabledError, match="destroyed"):
        ca.verifier()

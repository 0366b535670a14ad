"""Limits of what even a signed log or document may do: revocations stay, and epochs do not jump."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import pytest

from daskpki import CertificateAuthority
from daskpki.errors import NotTrustedError
from daskpki.identity import Role
from daskpki.pki.crl import revoked_serials
from daskpki.pki.trust import MAX_EPOCH_JUMP, verify_trust
from daskpki.pki.trust_document import parse_trust
from daskpki.records import PUBLISHED, RELEASED, Draft
from tests.support.clocks import Clock
from tests.support.cluster_material import Authority
from tests.support.local_places import LocalPlace


@pytest.fixture
def ca(tmp_path: Path) -> Iterator[CertificateAuthority]:
    with closing(LocalPlace(tmp_path).create()) as store:
        ca = CertificateAuthority(store, clock=Clock())
        ca.init()
        list(ca.issue(ca.requests(Role.WORKER, ["stolen", "held"])))
        yield ca


def listed(ca: CertificateAuthority) -> set[int]:
    return {serial for serials in revoked_serials(ca.trust()).values() for serial in serials}


@pytest.mark.parametrize(("reason", "stays"), [("keyCompromise", True), ("certificateHold", False)])
def test_only_a_hold_ends_before_the_certificate_does(ca: CertificateAuthority, reason: str, *, stays: bool) -> None:
    """A signed `released` is in the log: by an older version's fault, or by somebody who had the key for a while."""
    (revoked,) = ca.revoke("worker/stolen", reason)
    ca.session.commit(lambda _: [Draft(RELEASED, {"serial": f"{revoked.serial:x}"})])
    ca.announce("tls://10.0.0.5:8786")
    assert (revoked.serial in listed(ca)) is stays


def test_a_revocation_is_dropped_from_the_list_after_the_certificate_s_end(ca: CertificateAuthority) -> None:
    (revoked,) = ca.revoke("worker/stolen", "keyCompromise")
    clock = ca.session.clock
    assert isinstance(clock, Clock)
    clock.advance(days=32)
    ca.announce("tls://10.0.0.5:8786")
    assert revoked.serial not in listed(ca)


def test_the_next_epoch_is_past_the_last_signed_publication(ca: CertificateAuthority) -> None:
    published = {**ca.inventory().published, "epoch": 40}
    ca.session.commit(lambda _: [Draft(PUBLISHED, published)])
    ca.revoke("worker/stolen")
    assert ca.trust().epoch == 41


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_node_follows_no_epoch_that_jumps(beyond: int) -> None:
    authority = Authority()
    held = authority.document()
    epoch = held.epoch + MAX_EPOCH_JUMP + beyond
    signed = parse_trust(authority.signed(authority.document()._replace(epoch=epoch)))
    with pytest.raises(NotTrustedError, match="jumps from epoch 1 to") if beyond else nullcontext():
        verify_trust(signed, cluster="default", now=datetime.now(UTC), previous=held)

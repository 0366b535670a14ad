"""An older trust document is put back, or the newest deleted: the log knows better, and operators publish anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from daskpki import CertificateAuthority, secret_names
from daskpki.authority.rollover import Successor
from daskpki.confidential import Confidential
from daskpki.errors import NotFoundError, NotTrustedError
from daskpki.identity import Role
from daskpki.pki.trust import verify_trust
from daskpki.pki.trust_document import TrustDocument
from daskpki.store.append_chain import trust_chain
from daskpki.store.port import Store
from tests.support.clocks import Clock
from tests.support.gsm_places import open_place
from tests.support.local_places import LocalPlace
from tests.support.login_material import add

TRUST = secret_names.trust_id("default")


@pytest.fixture(params=["local", "gsm"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "local":
        with closing(LocalPlace(tmp_path).create()) as store:
            yield store
        return
    with open_place("grpc", None) as place, closing(place.factory()) as store:
        yield store


class Kept(NamedTuple):
    """A cluster, and what its trust secret held at three moments."""

    ca: CertificateAuthority
    first: Confidential
    second: Confidential
    newest: TrustDocument

    def put_back(self, payload: Confidential) -> None:
        """Whoever may write makes the secret anew, with that alone."""
        secrets = self.ca.session.store.secrets
        labels = dict(secrets.describe(TRUST).labels)
        secrets.delete(TRUST)
        add(secrets, TRUST, payload, labels)

    def followed(self) -> TrustDocument:
        """What the store holds now, as a node judges it that has seen the newest."""
        head = trust_chain(self.ca.session.store.secrets, "default").head()
        assert head is not None
        return verify_trust(head.payload.signed, previous=self.newest, now=self.ca.session.now())


@pytest.fixture
def kept(store: Store) -> Kept:
    ca = CertificateAuthority(store, clock=Clock())
    ca.init()
    payloads = [store.secrets.latest(TRUST).data]
    for name in ("a", "b"):
        list(ca.issue(ca.requests(Role.WORKER, [name])))
        ca.revoke(f"worker/{name}")
        payloads.append(store.secrets.latest(TRUST).data)
    return Kept(ca, payloads[0], payloads[1], ca.trust())


@pytest.mark.parametrize("which", ["first", "second"])
def test_readers_refuse_it_and_renewing_publishes_anew(
    kept: Kept, which: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept.put_back(getattr(kept, which))
    for read in (kept.ca.trust, kept.ca.verifier):
        with pytest.raises(NotTrustedError, match="an older document was put back") as refused:
            read()
        assert "daskpki renew --due publishes a new one" in str(refused.value.hint)
    assert list(kept.ca.renew([])) == []
    now = kept.followed()
    assert now == kept.ca.trust()
    assert now.epoch == kept.newest.epoch + 1
    assert now.crls[0].number > kept.newest.crls[0].number
    assert "daskpki_default_trust was missing or older" in caplog.text


def test_a_revocation_reaches_nodes_all_the_same(kept: Kept) -> None:
    kept.put_back(kept.second)
    (leaf,) = kept.ca.issue(kept.ca.requests(Role.WORKER, ["c"]))
    kept.ca.revoke("worker/c")
    assert kept.followed().epoch == kept.newest.epoch + 1
    (revoked,) = kept.ca.verifier()._revoked.values()
    assert len(revoked) == 3
    assert leaf.record.serial in revoked


def test_a_document_that_is_gone_is_made_anew(kept: Kept) -> None:
    kept.ca.session.store.secrets.delete(TRUST)
    with pytest.raises(NotFoundError, match="no trust document") as refused:
        kept.ca.trust()
    assert "daskpki renew --due" in str(refused.value.hint)
    list(kept.ca.renew([]))
    assert kept.followed() == kept.ca.trust()


def test_one_from_before_a_rollover_needs_no_erased_key(kept: Kept, store: Store) -> None:
    rollover = kept.ca.rollover()
    rollover.start(Successor())
    rollover.promote()
    rollover.finish()
    after = kept._replace(ca=CertificateAuthority(store, clock=kept.ca.session.clock), newest=kept.ca.trust())
    after.put_back(kept.second)
    list(after.ca.renew([]))
    assert [anchor.generation for anchor in after.followed().authorities] == [2]


def test_what_was_not_put_back_is_left_as_it_is(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    list(kept.ca.renew([]))
    assert kept.ca.trust() == kept.newest
    kept.ca.revoke("worker/a")
    assert kept.followed().epoch == kept.newest.epoch + 1
    assert not caplog.text


def test_a_latest_that_lags_is_no_older_document() -> None:
    with open_place("grpc", None) as place, closing(place.factory()) as store:
        ca = CertificateAuthority(store, clock=Clock())
        ca.init()
        list(ca.issue(ca.requests(Role.WORKER, ["a", "b"])))
        ca.revoke("worker/a")
        place.server.latest_lag(place.name(TRUST), at=1)
        before = ca.trust()
        assert before.epoch == 2
        list(ca.renew([]))
        assert ca.trust() == before
        ca.revoke("worker/b")
        assert (ca.trust().epoch, ca.trust().crls[0].number) == (3, before.crls[0].number + 1)

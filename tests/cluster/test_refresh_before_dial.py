"""A client of weeks: before it dials again, it looks where its credential came from, but only once that makes sense."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from distributed import Client, Scheduler

import daskpki
from daskpki.cluster.refresh import PATIENCE, DialRefresh, NullSource, Refused, SharedLookup
from daskpki.cluster.security import PkiSecurity, client_security
from daskpki.cluster.tls import KeyPair
from daskpki.cluster.trust_updates import TrustManager, TrustMessage
from daskpki.confidential import Confidential
from daskpki.errors import AccessDeniedError
from daskpki.identity import Role
from daskpki.pki.trust_document import TrustDocument
from tests.support.cluster_material import DAY, NOW, Authority, Leaf

pytestmark = pytest.mark.cluster

LIFE = 3 * DAY
FRESH, AGED = NOW, -2.5 * DAY


@pytest.fixture
def own() -> Authority:
    return Authority()


def alice(authority: Authority, at: timedelta = NOW) -> Leaf:
    return authority.leaf(Role.CLIENT, "alice", at=at, ttl=int(LIFE.total_seconds()))


def put(authority: Authority, leaf: Leaf, directory: Path) -> None:
    authority.files(leaf, directory)
    (directory / "trust.json").write_bytes(authority.signed(authority.document()).reveal())


def connect(authority: Authority, security: PkiSecurity, scheduler: PkiSecurity | None = None) -> None:
    scheduler = scheduler or PkiSecurity({Role.SCHEDULER: authority.enforcement(authority.leaf(Role.SCHEDULER))})

    async def scenario() -> None:
        async with (
            Scheduler(security=scheduler, host="127.0.0.1", port=0, dashboard=False, dashboard_address=":0") as running,
            Client(running.address, security=security, asynchronous=True, set_as_default=False, timeout=20),
        ):
            pass

    asyncio.run(scenario())


@pytest.mark.parametrize("begun", [AGED, FRESH], ids=["aged", "fresh"])
def test_what_was_renewed_is_used_for_the_next_connection(
    own: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: timedelta
) -> None:
    first, renewed = alice(own, begun), alice(own)
    put(own, first, tmp_path / "alice")
    monkeypatch.setenv("DASKPKI_CREDENTIAL_DIR", str(tmp_path / "alice"))
    security = daskpki.security()
    put(own, renewed, tmp_path / "alice")
    connect(own, security)
    used = security.enforcement(Role.CLIENT).pair.certificates
    assert used == (renewed if begun is AGED else first).pair.certificates


def test_a_place_that_is_gone_leaves_what_there_is(
    own: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = alice(own, AGED)
    put(own, first, tmp_path / "alice")
    monkeypatch.setenv("DASKPKI_CREDENTIAL_DIR", str(tmp_path / "alice"))
    security = daskpki.security()
    monkeypatch.setenv("DASKPKI_CREDENTIAL_DIR", str(tmp_path / "gone"))
    connect(own, security)
    assert security.enforcement(Role.CLIENT).pair.certificates == first.pair.certificates


@pytest.fixture
def directory(own: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where alice's credential lies, with a trust document as of now."""
    monkeypatch.setenv("DASKPKI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DASKPKI_CREDENTIAL_DIR", str(tmp_path / "alice"))
    put(own, alice(own), tmp_path / "alice")
    return tmp_path / "alice"


def revoke_scheduler(own: Authority) -> tuple[PkiSecurity, Confidential]:
    """A scheduler that does not know yet that it is revoked, and the document that says so."""
    stolen = own.leaf(Role.SCHEDULER)
    security = PkiSecurity({Role.SCHEDULER: own.enforcement(stolen)})
    own.revoke(stolen)
    return security, own.signed(own.document())


def test_a_scheduler_that_was_revoked_is_told_by_a_look_beside_the_handshake(own: Authority, directory: Path) -> None:
    security = daskpki.security()
    scheduler, signed = revoke_scheduler(own)
    (directory / "trust.json").write_bytes(signed.reveal())
    with pytest.raises(OSError, match="is revoked"):
        connect(own, security, scheduler)


def test_what_a_scheduler_pushed_is_kept_for_the_next_program(own: Authority, directory: Path) -> None:
    first = daskpki.security()
    scheduler, signed = revoke_scheduler(own)
    manager = first.enforcement(Role.CLIENT).manager
    assert manager is not None
    assert manager.accept_trust(signed)
    with pytest.raises(OSError, match="is revoked"):
        connect(own, daskpki.security(), scheduler)
    (kept,) = (directory.parent / "home" / "trust").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_what_was_kept_and_does_not_hold_is_not_used(
    own: Authority, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = daskpki.security().enforcement(Role.CLIENT).manager
    assert manager is not None
    assert manager.accept_trust(own.signed(own.document()))
    (kept,) = (directory.parent / "home" / "trust").iterdir()
    stranger = Authority()
    kept.write_bytes(stranger.signed(stranger.document()._replace(epoch=1000)).reveal())
    connect(own, daskpki.security())
    assert "is not used" in caplog.text


class Stubborn(NullSource):
    """Answers only when it is told to."""

    def __init__(self, signed: Confidential) -> None:
        self.signed = signed
        self.told = threading.Event()

    def trust_after(self, held: TrustDocument, refused: Refused) -> TrustMessage:  # noqa: ARG002 - the protocol's
        self.told.wait(60)
        return TrustMessage(self.signed)


def test_a_place_that_does_not_answer_delays_a_dial_by_two_seconds_and_counts_when_it_does(
    own: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    leaf, document = alice(own), own.document()
    newest = own.document()
    source = Stubborn(own.signed(newest))
    shared = SharedLookup(source)
    security = client_security(leaf.credential, document, source=NullSource(), shared=shared)
    begin = time.monotonic()
    connect(own, security)
    assert PATIENCE <= time.monotonic() - begin < PATIENCE + 10
    assert f"going on with that of epoch {document.epoch}" in caplog.text
    enforcement = security.enforcement(Role.CLIENT)
    assert isinstance(enforcement.manager, TrustManager)
    lookup = shared.latest(enforcement.manager)
    source.told.set()
    lookup.result(60)
    assert enforcement.trust.epoch == newest.epoch


class Slow(NullSource):
    """Returns this document after a while."""

    def __init__(self, signed: Confidential) -> None:
        self.signed = signed

    def trust_after(self, held: TrustDocument, refused: Refused) -> TrustMessage:  # noqa: ARG002 - the protocol's
        time.sleep(0.5)
        return TrustMessage(self.signed)


@pytest.mark.parametrize("known", [True, False])
def test_a_scheduler_of_a_ca_that_the_newer_document_tells_is_dialled_again(own: Authority, known: bool) -> None:  # noqa: FBT001
    """Its certificate fails TLS under the older document. A CA that is in neither document is refused for good."""
    leaf, document = alice(own), own.document()
    own.add_authority()
    signed = own.signed(own.document())
    own.activate_authority()
    signer = own if known else Authority()
    scheduler = PkiSecurity({Role.SCHEDULER: signer.enforcement(signer.leaf(Role.SCHEDULER))})
    shared = SharedLookup(Slow(signed))
    security = client_security(leaf.credential, document, source=NullSource(), shared=shared)
    if known:
        connect(own, security, scheduler)
    else:
        begin = time.monotonic()
        with pytest.raises(OSError, match=r"TLS handshake .* failed"):
            connect(own, security, scheduler)
        assert time.monotonic() - begin < PATIENCE + 10


class Failing(NullSource):
    """Cannot be asked."""

    def trust_after(self, held: TrustDocument, refused: Refused) -> TrustMessage:  # noqa: ARG002 - the protocol's
        raise AccessDeniedError("the store is closed")


def test_a_place_that_cannot_be_asked_is_logged_and_the_dial_goes_on(
    own: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    shared = SharedLookup(Failing())
    security = client_security(alice(own).credential, own.document(), source=NullSource(), shared=shared)
    connect(own, security)
    assert "the store is closed" in caplog.text


def test_a_look_is_kept_for_a_minute_for_all_clients_of_a_process(own: Authority) -> None:
    hands, began = [0.0], []

    class Asked(NullSource):
        def trust_after(self, held: TrustDocument, refused: Refused) -> TrustMessage | None:  # noqa: ARG002
            began.append(hands[0])
            return TrustMessage(newest) if len(began) == 1 else None

    shared = SharedLookup(Asked(), clock=lambda: hands[0])
    document, leaf = own.document(), alice(own)
    newest = own.signed(own.document())
    managers = [TrustManager(own.enforcement(leaf), document) for _ in range(2)]
    dials = [DialRefresh(manager, NullSource(), shared) for manager in managers]

    async def dial_all() -> None:
        for each in dials:
            await each.begin()
            await each.finish()

    for moment in (0.0, 59.0, 60.0, 61.0):
        hands[0] = moment
        asyncio.run(dial_all())
        assert {manager.document.epoch for manager in managers} == {document.epoch + 1}
    assert began == [0.0, 0.0, 60.0], "the first lookup asks once more after what it took"


def test_nothing_of_google_is_loaded_for_a_credential_from_files(own: Authority, directory: Path) -> None:
    (directory / "trust.json").write_bytes(own.signed(own.document()).reveal())
    program = (
        "import asyncio, sys, daskpki; from daskpki.identity import Role\n"
        "each = daskpki.security().enforcement(Role.CLIENT)\n"
        "async def dial(): await each.on_dial.begin(); await each.on_dial.finish()\n"
        "asyncio.run(dial()); print(sorted(name for name in sys.modules if name.split('.')[0] in ('google', 'grpc')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


class Counting(NullSource):
    """Has nothing, and counts how often it was asked."""

    asked = 0

    def credential(self, held: KeyPair) -> KeyPair | None:  # noqa: ARG002 - the protocol's signature
        self.asked += 1
        return None


def test_a_place_is_asked_at_most_once_a_minute(own: Authority) -> None:
    document, source, hands = own.document(), Counting(), [0.0]
    enforcement = own.enforcement(alice(own, AGED))
    on_dial = DialRefresh(TrustManager(enforcement, document), source, clock=lambda: hands[0])
    for moment in (0, 1, 59, 60, 61, 119, 120):
        hands[0] = moment
        asyncio.run(on_dial.begin())
    assert source.asked == 3


def test_a_dial_with_no_reason_to_look_delays_no_look(own: Authority) -> None:
    document, source, hands = own.document(), Counting(), [0.0]
    enforcement = own.enforcement(alice(own))
    begin = TrustManager(enforcement, document).lifetime.not_before
    ages = iter([LIFE / 2, LIFE * 3 / 4])  # before two thirds of it, nothing newer is to be expected
    on_dial = DialRefresh(
        TrustManager(enforcement, document),
        source,
        now=lambda: begin + next(ages).total_seconds(),
        clock=lambda: hands[0],
    )
    for moment, asked in ((0, 0), (1, 1)):
        hands[0] = moment
        asyncio.run(on_dial.begin())
        assert source.asked == asked

"""The audit log: a line for each connection, refusal, revocation and reload, and at which level."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from distributed import Scheduler

from daskpki.cluster.audit import CONNECTED, REVOKED, TURNED_AWAY, Audit, Event, host_of
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.peer import Peer
from daskpki.cluster.refusal import Reason
from daskpki.cluster.security import PkiSecurity, client_security
from daskpki.identity import Role
from tests.support.cluster_material import DAY, Authority, Leaf


def test_a_certificate_shows_once_an_hour_and_each_connection_at_debug(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("tests.audit")
    caplog.set_level(logging.DEBUG, log.name)
    clock = [1_800_000_000.0]
    scheduler, alice = authority.leaf(Role.SCHEDULER), authority.leaf(Role.CLIENT, "alice")
    ours = Enforcement(
        scheduler.identity, scheduler.pair, authority.trust(), now=lambda: clock[0], audit=Audit(log, lambda: clock[0])
    )
    for seconds in (0, 1, 3599, 1):
        clock[0] += seconds
        ours.record_admitted(Peer(alice.identity, alice.serial, 0, ""), "tls://10.0.0.7:1234")
    assert [record.levelname for record in caplog.records] == ["INFO", "DEBUG", "INFO", "DEBUG"]
    assert ours.audit.counts[CONNECTED] == 4
    line = json.loads(caplog.records[0].getMessage())
    assert (line["kind"], line["peer"], line["address"]) == ("connected", alice.identity.uri, "tls://10.0.0.7:1234")


def test_a_persons_program_is_not_told_of_what_is_as_it_should_be(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    alice, scheduler = authority.leaf(Role.CLIENT, "alice"), authority.leaf(Role.SCHEDULER)
    ours = client_security(alice.credential, authority.document()).enforcement(Role.CLIENT)
    caplog.set_level(logging.DEBUG, "distributed.daskpki.audit")
    ours.record_admitted(Peer(scheduler.identity, scheduler.serial, 0, ""), "tls://10.0.0.2:8786")
    ours.audit.record(TURNED_AWAY, address="tls://10.0.0.3:8786", detail="a worker that poses as the scheduler")
    assert [record.levelname for record in caplog.records] == ["DEBUG", "WARNING"]


def event_of(ours: Enforcement, knock: Callable[[int], None]) -> Event:
    """The one event of a scheduler at whose port somebody knocks."""

    async def scenario() -> None:
        security = PkiSecurity({Role.SCHEDULER: ours})
        async with Scheduler(
            port=0, security=security, dashboard=False, dashboard_address=":0", host="127.0.0.1"
        ) as scheduler:
            await asyncio.to_thread(knock, scheduler.port)

    asyncio.run(scenario())
    (event,) = ours.audit.latest
    return event


def test_who_fails_in_tls_is_noted_as_well(authority: Authority) -> None:
    leaf = authority.leaf(Role.SCHEDULER)
    ours = Enforcement(leaf.identity, leaf.pair, authority.trust())

    def knock(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), 20) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                while stranger.recv(1 << 12):
                    pass

    event = event_of(ours, knock)
    assert (event.kind, event.address[:16]) == (TURNED_AWAY, "tls://127.0.0.1:")
    assert "HTTP_REQUEST" in event.detail


def test_refusals_that_repeat_are_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("tests.audit.repeated")
    caplog.set_level(logging.DEBUG, log.name)
    clock = [1_800_000_000.0]
    audit = Audit(log, lambda: clock[0])

    def told() -> list[str]:
        found = [json.loads(record.getMessage())["detail"] for record in caplog.records]
        caplog.clear()
        return found

    for port in range(50):
        audit.record(TURNED_AWAY, address=f"tls://10.0.0.3:{port}", detail="revoked")
    audit.record(TURNED_AWAY, address="tls://10.0.0.4:1", detail="revoked")
    audit.record(CONNECTED, peer="spiffe://c/worker/w")
    audit.record(CONNECTED, peer="spiffe://c/worker/w")
    assert told() == ["revoked", "revoked", "", ""]
    clock[0] += 59
    audit.log_repeated()
    assert told() == []
    clock[0] += 1
    audit.log_repeated()
    assert told() == ["revoked (49 more within a minute)"]
    audit.record(TURNED_AWAY, address="tls://10.0.0.3:1", detail="revoked")
    assert told() == ["revoked"]
    assert audit.counts[TURNED_AWAY] == 52


def test_refusals_of_many_kinds_are_bounded_too(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("tests.audit.bounded")
    caplog.set_level(logging.DEBUG, log.name)
    clock = [1_800_000_000.0]
    audit = Audit(log, lambda: clock[0])
    for number in range(10_000):
        audit.record(TURNED_AWAY, address=f"tls://10.0.{number // 256}.{number % 256}:1", detail="no TLS")
    assert len(caplog.records) == 257
    clock[0] += 60
    audit.log_repeated()
    assert json.loads(caplog.records[-1].getMessage())["detail"] == "others (9743 more within a minute)"


def test_one_row_for_each_identity_host_and_reason() -> None:
    clock = [1_800_000_000.0]
    audit = Audit(None, lambda: clock[0])
    bob = "spiffe://c/client/bob"
    for port in range(41):  # a revoked client's retries, 8 a second
        audit.record(TURNED_AWAY, peer=bob, address=f"tls://10.0.0.3:{port}", detail="revoked", reason=Reason.REVOKED)
        clock[0] += 1
    audit.record(TURNED_AWAY, peer=bob, address="tls://10.0.0.4:1", detail="revoked", reason=Reason.REVOKED)
    audit.record(TURNED_AWAY, peer=bob, address="tls://10.0.0.4:2", detail="another", reason=Reason.ROLE)
    rows = [(event.address, event.detail, event.times, event.at - event.first) for event in audit.latest]
    assert rows == [
        ("10.0.0.3", "revoked", 41, 40),
        ("tls://10.0.0.4:1", "revoked", 1, 0),
        ("tls://10.0.0.4:2", "another", 1, 0),
    ]
    assert audit.refusals == {Reason.REVOKED: 42, Reason.ROLE: 1}


def test_strangers_push_nothing_else_out() -> None:
    clock = [1_800_000_000.0]
    audit = Audit(None, lambda: clock[0])
    audit.record(REVOKED, peer="spiffe://c/client/bob", address="tls://10.0.0.3:1", detail="the certificate is revoked")
    for number in range(2_000):
        clock[0] += 1
        audit.record(TURNED_AWAY, address=f"tls://10.0.{number // 256}.{number % 256}:1", detail="no TLS")
    assert len(audit.latest) == 251
    assert audit.latest[0].kind == REVOKED


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("tls://10.0.0.3:1234", "10.0.0.3"),
        ("tls://[fd00::5]:1234", "[fd00::5]"),
        ("10.0.0.3", "10.0.0.3"),
        ("fd00::5", "fd00::5"),
        ("", ""),
    ],
)
def test_hosts_of_both_families_are_told_apart(address: str, host: str) -> None:
    assert host_of(address) == host


def refused_by(authority: Authority, leaf: Leaf | None, directory: Path) -> tuple[Event, Counter[Reason]]:
    """What a scheduler's audit says of somebody who knocks with that leaf, or without one."""
    own = authority.leaf(Role.SCHEDULER)
    ours = Enforcement(own.identity, own.pair, authority.trust())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if leaf is not None:
        files = authority.files(leaf, directory)
        context.load_cert_chain(files.cert, files.key)

    def knock(port: int) -> None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), 20) as plain,
            context.wrap_socket(plain) as stream,
        ):
            while stream.recv(1 << 12):
                pass

    event = event_of(ours, knock)
    return event, ours.audit.refusals


def test_refusals_name_the_holder_where_the_certificate_is_known_and_the_reason(
    authority: Authority, tmp_path: Path
) -> None:
    other = Authority()
    late = authority.leaf(Role.CLIENT, "late", at=-2 * DAY, ttl=3600)
    cases = {
        "revoked": (authority.revoked, Reason.REVOKED, authority.revoked.identity.uri),
        "role": (
            authority.leaf(Role.SCHEDULER, "other"),
            Reason.ROLE,
            "spiffe://default.daskpki.internal/scheduler/other",
        ),
        "unknown CA": (other.leaf(Role.CLIENT, "eve"), Reason.UNKNOWN_CA, ""),
        "expired": (late, Reason.EXPIRED, ""),
        "none": (None, Reason.CERTIFICATE, ""),
    }
    for name, (leaf, reason, who) in cases.items():
        event, refusals = refused_by(authority, leaf, tmp_path / name)
        assert (name, event.reason, event.peer) == (name, reason, who)
        assert refusals == {reason: 1}

"""Connects to a scheduler from outside, without and with a credential, and to its dashboard's port.

In TLS 1.3 the listener's answer to our certificate comes after our side of the handshake is done: as an alert, or as
the first bytes of Dask's greeting, which a listener sends unasked. So the first read decides. TLS verifies nothing
here: the certificate is only fetched, and verified by `check_certificate`.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from daskpki.authority.renewal import is_due
from daskpki.cluster.tls import client_context, key_pair
from daskpki.credentials.contexts import split_scheduler
from daskpki.credentials.source_selection import Wanted
from daskpki.credentials.sources import Environment, obtain
from daskpki.credentials.verified import VerifiedCredential
from daskpki.doctor.checks import Finding, error, note, ok, warning
from daskpki.errors import DaskpkiError
from daskpki.handover import SEALED, STOCK
from daskpki.identity import Role
from daskpki.pki.certificates import lifetime, load_certificate
from daskpki.pki.trust_document import TrustDocument
from daskpki.pki.verify import verify_leaf
from daskpki.quoting import rfc3339
from daskpki.settings import is_loopback

TIMEOUT: Final = 5.0
DASHBOARD_PORT: Final = 8787
_DASHBOARD: Final = b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n"
_LINE: Final = 64
_GREETING: Final = 1 << 14
"""Bytes of one TLS record; a greeting is much smaller."""


def examine_scheduler(address: str, trust: TrustDocument | None, here: Environment) -> Iterator[Finding]:
    """Check one `tls://HOST:PORT`; `trust` is the store's trust document, None if it could not be read."""
    host, port = split_scheduler(address)
    as_stranger = dial(host, port, stranger())
    verified: VerifiedCredential | None = None
    try:
        verified = obtain(Wanted(address=address), here).verified
    except DaskpkiError as failure:
        yield note(address, f"not checked with a credential: {failure}", failure.hint)
    as_ourselves: Dialled | None = None
    if verified and as_stranger.reachable:
        pair = key_pair(verified.credential)
        as_ourselves = dial(host, port, client_context(pair, verified.trust.roots, ssl.TLSVersion.TLSv1_2))
    known = trust or (verified.trust if verified else None)
    seen = as_ourselves if as_ourselves and as_ourselves.leaf else as_stranger
    if known is None:
        yield note(address, "its certificate was not verified: no trust document could be read", "daskpki login")
    else:
        yield from check_certificate(address, seen, known, here.now)
    yield from check_stranger(address, as_stranger)
    if verified and as_ourselves:
        yield check_friend(address, verified.credential.identity.uri, as_ourselves)
        yield from check_mode(address, as_ourselves)
        yield from check_code(address, as_ourselves)
    yield check_page(host, DASHBOARD_PORT, ask_page(host, DASHBOARD_PORT))


def stranger() -> ssl.SSLContext:
    """Make a TLS context without a certificate, which accepts any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def dial(host: str, port: int, context: ssl.SSLContext, timeout: float = TIMEOUT) -> Dialled:
    """Connect, shake hands, and read the first answer; each step has `timeout` seconds."""
    try:
        plain = socket.create_connection((host, port), timeout)
    except OSError as failure:
        return Dialled(None, Admission.SILENT, _words(failure), reachable=False)
    with plain:
        try:
            wrapped = context.wrap_socket(plain, server_hostname=host)
        except OSError as failure:  # ssl.SSLError among them
            answer = Admission.SILENT if isinstance(failure, TimeoutError) else Admission.REFUSED
            return Dialled(None, answer, _words(failure))
        with wrapped:
            return _first_answer(wrapped)


def _first_answer(connection: ssl.SSLSocket) -> Dialled:
    leaf = connection.getpeercert(binary_form=True)
    try:
        received = connection.recv(_GREETING)
    except TimeoutError:
        return Dialled(leaf, Admission.SILENT, "no answer in time")
    except OSError as failure:
        return Dialled(leaf, Admission.REFUSED, _words(failure))
    if not received:
        return Dialled(leaf, Admission.REFUSED, "closed the connection")
    from daskpki.cluster.comm import announced_modes

    mode, code = announced_modes(received)
    return Dialled(leaf, Admission.ADMITTED, mode=mode, code=code)


def ask_page(host: str, port: int, timeout: float = TIMEOUT) -> Page:
    """Send a plain HTTP request without any credential."""
    try:
        with socket.create_connection((host, port), timeout) as connection:
            loopback = is_loopback(connection.getpeername()[0])
            connection.settimeout(timeout)
            connection.sendall(_DASHBOARD)
            line = connection.recv(_LINE).split(b"\r\n", 1)[0].decode("latin-1")
    except OSError:
        return Page(None, loopback=False)
    return Page(line if line.startswith("HTTP/") else None, loopback)


def _words(failure: OSError) -> str:
    if isinstance(failure, ssl.SSLError):
        return (failure.reason or str(failure)).replace("_", " ").lower()
    return failure.strerror or ("no answer in time" if isinstance(failure, TimeoutError) else type(failure).__name__)


class Admission(StrEnum):
    """The listener's answer after the handshake."""

    REFUSED = "refused"
    ADMITTED = "admitted"
    SILENT = "silent"


class Dialled(NamedTuple):
    """One attempt to connect: the listener's leaf (DER; None without TLS), its answer, and the failure in words.

    `mode` and `code` are from its greeting: what a worker's certificate may do as a client (deny, limited, allow), and
    sealed or stock.
    """

    leaf: bytes | None
    answer: Admission
    detail: str = ""
    reachable: bool = True
    mode: str | None = None
    code: str | None = None


class Page(NamedTuple):
    """The answer on the dashboard's port: None, or the first line of the reply to a plain request."""

    status: str | None
    loopback: bool


def check_certificate(address: str, dialled: Dialled, trust: TrustDocument, now: datetime) -> Iterator[Finding]:
    """Check that it is a scheduler of this cluster; revocation is checked by `daskpki verify` and the nodes."""
    if dialled.leaf is not None:
        yield _judge_leaf(address, dialled.leaf, trust, now)
    elif not dialled.reachable:
        yield error(address, f"nothing answers ({dialled.detail})", "check the scheduler, the address and the firewall")
    elif "alert" in dialled.detail:
        yield note(address, f"speaks TLS, but refused before it sent a certificate ({dialled.detail})")
    elif dialled.answer is Admission.SILENT:
        yield error(address, "the listener sent no certificate in time", "try again, or see the scheduler's log")
    else:
        reason = f"the listener does not speak TLS ({dialled.detail})"
        yield error(address, reason, "start it by daskpki-entrypoint scheduler")


def _judge_leaf(address: str, leaf: bytes, trust: TrustDocument, now: datetime) -> Finding:
    chain = [certificate for anchor in trust.authorities for certificate in anchor.chain]
    span = lifetime(load_certificate(leaf))
    try:
        identity = verify_leaf(leaf, chain, trust.roots, now=now, trust_domain=trust.trust_domain, role=Role.SCHEDULER)
    except DaskpkiError as failure:
        reason = f"its certificate is not valid for a scheduler of cluster {trust.cluster}: {failure}"
        remedy = "do not connect: it is an impostor or not of this cluster; check the address, and what listens there"
        if now.timestamp() > span.not_after:
            remedy = "daskpki renew scheduler/scheduler, if the address is right"
        return error(address, reason, remedy)
    if is_due(span, now.timestamp()):
        reason = f"the certificate of {identity.uri} expires at {rfc3339(span.not_after)}"
        return warning(address, reason, f"daskpki renew {identity.slug}; a running node fetches it by itself")
    return ok(address, f"{identity.uri}, valid until {rfc3339(span.not_after)}")


def check_stranger(address: str, dialled: Dialled) -> Iterator[Finding]:
    """Check that a connection without a certificate is refused."""
    if dialled.leaf is None:
        return
    if dialled.answer is Admission.ADMITTED:
        yield error(address, "it accepts connections without a certificate", "start it by daskpki-entrypoint scheduler")
    elif dialled.answer is Admission.REFUSED:
        yield ok(address, f"refuses connections without a certificate ({dialled.detail})")
    else:
        yield note(address, "without a certificate, it neither refused nor answered in time", "try again")


def check_friend(address: str, who: str, dialled: Dialled) -> Finding:
    """Check that a credential of the cluster is admitted; otherwise the refusal of strangers proves nothing."""
    if dialled.answer is Admission.ADMITTED:
        return ok(address, f"admits {who}")
    reason = f"does not admit {who} ({dialled.detail or dialled.answer})"
    return error(address, reason, "daskpki whoami, and daskpki login for a fresh credential")


def check_mode(address: str, dialled: Dialled) -> Iterator[Finding]:
    """Check the mode of a scheduler, which is in its greeting for admitted clients."""
    if dialled.answer is not Admission.ADMITTED:
        return
    if dialled.mode is None:
        reason = "it uses Dask's own TLS, where every certificate of the CA may do everything"
        yield warning(address, reason, "start it by daskpki-entrypoint scheduler")
    elif dialled.mode == "allow":
        reason = "mode allow: a worker's certificate may run code on the scheduler"
        yield note(address, reason, "--worker-clients limited, unless tasks have to submit work")
    else:
        yield ok(address, f"mode {dialled.mode}: it unpickles nothing that a worker's certificate sends")


def check_code(address: str, dialled: Dialled) -> Iterator[Finding]:
    """Report whose code runs in the scheduler."""
    if dialled.code == SEALED:
        yield ok(address, "scheduler code sealed: confined helpers open what clients submit")
    elif dialled.code == STOCK:
        reason = "scheduler code stock: all who may submit work run code in the scheduler"
        yield note(address, reason, "--scheduler-code sealed, where several people share the cluster")


def check_page(host: str, port: int, page: Page) -> Finding:
    """Check that the dashboard, which shows addresses, call stacks and a proxy, cannot be reached."""
    subject = f"{host}:{port}"
    if page.status is None or page.status.split()[1:2] == ["403"]:
        return ok(subject, "no dashboard answers without TLS or to strangers")
    if page.loopback:
        reason = f"a dashboard answers on this machine's loopback ({page.status}); also run the doctor elsewhere"
        return note(subject, reason)
    remedy = "bind it to loopback, as daskpki-entrypoint scheduler does, and close the port in the firewall"
    return error(subject, f"the dashboard answers without login or TLS ({page.status})", remedy)

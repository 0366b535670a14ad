"""Dialling a scheduler from outside, as a stranger and as oneself, and its dashboard's port.

In TLS 1.3 the listener's verdict on our certificate comes after our side of the handshake is done: as an alert, or as
the first bytes of Dask's own greeting, which a listener sends unasked. So the first read tells. Nothing is trusted
here: the certificate is only brought back, and judged in `daskpki.doctor.scheduler`.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Iterator
from typing import Final

from daskpki.cluster.contexts import KeyPair, client_context
from daskpki.credentials.choice import Wanted
from daskpki.credentials.held import Held
from daskpki.credentials.sources import Surroundings, obtain
from daskpki.doctor.finding import Finding, note
from daskpki.doctor.scheduler import (
    Answer,
    Dialled,
    Page,
    check_certificate,
    check_friend,
    check_mode,
    check_page,
    check_stranger,
)
from daskpki.errors import DaskpkiError
from daskpki.pki.credential import certificate_pem, key_pem
from daskpki.pki.trust_document import TrustDocument

TIMEOUT: Final = 5.0
DASHBOARD_PORT: Final = 8787
_DASHBOARD: Final = b"GET /health HTTP/1.0\r\nHost: dashboard\r\n\r\n"
_LINE: Final = 64
_GREETING: Final = 1 << 14
"""Bytes in one TLS record, which a greeting fits by far."""


def look_from_outside(address: str, trust: TrustDocument | None, here: Surroundings) -> Iterator[Finding]:
    """Everything about one `tls://HOST:PORT`; `trust` is the store's document, None where that could not be read."""
    host, port = split_address(address)
    as_stranger = dial(host, port, stranger())
    held: Held | None = None
    try:
        held = obtain(Wanted(address=address), here).held
    except DaskpkiError as failure:
        yield note(address, f"not tried with a credential: {failure}", failure.hint)
    as_ourselves = dial(host, port, _own_context(held)) if held and as_stranger.reachable else None
    known = trust or (held.trust if held else None)
    seen = as_ourselves if as_ourselves and as_ourselves.leaf else as_stranger
    if known is None:
        yield note(address, "its certificate was not judged: no trust document could be read", "daskpki login")
    else:
        yield from check_certificate(address, seen, known, here.now)
    yield from check_stranger(address, as_stranger)
    if held and as_ourselves:
        yield check_friend(address, held.credential.identity.uri, as_ourselves)
        yield from check_mode(address, as_ourselves)
    yield check_page(host, DASHBOARD_PORT, ask_page(host, DASHBOARD_PORT))


def _own_context(held: Held) -> ssl.SSLContext:
    pair = KeyPair(certificate_pem(held.credential), key_pem(held.credential))
    return client_context(pair, held.trust.roots, ssl.TLSVersion.TLSv1_2)


def split_address(address: str) -> tuple[str, int]:
    """HOST and PORT of a parsed `tls://HOST:PORT`."""
    host, _, port = address.partition("://")[2].rpartition(":")
    return host.strip("[]"), int(port)


def stranger() -> ssl.SSLContext:
    """A context that shows no certificate, and looks at any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def dial(host: str, port: int, context: ssl.SSLContext, timeout: float = TIMEOUT) -> Dialled:
    """Connect, shake hands, and read the first answer; each step has `timeout` seconds."""
    try:
        plain = socket.create_connection((host, port), timeout)
    except OSError as failure:
        return Dialled(None, Answer.SILENT, _words(failure), reachable=False)
    with plain:
        try:
            wrapped = context.wrap_socket(plain, server_hostname=host)
        except OSError as failure:  # ssl.SSLError among them
            return Dialled(None, Answer.REFUSED, _words(failure))
        with wrapped:
            return _first_answer(wrapped)


def _first_answer(connection: ssl.SSLSocket) -> Dialled:
    leaf = connection.getpeercert(binary_form=True)
    try:
        received = connection.recv(_GREETING)
    except TimeoutError:
        return Dialled(leaf, Answer.SILENT, "no answer in time")
    except OSError as failure:
        return Dialled(leaf, Answer.REFUSED, _words(failure))
    if not received:
        return Dialled(leaf, Answer.REFUSED, "closed the connection")
    from daskpki.cluster.greeting import announced_mode

    return Dialled(leaf, Answer.ADMITTED, mode=announced_mode(received))


def ask_page(host: str, port: int, timeout: float = TIMEOUT) -> Page:
    """A plain HTTP request without any credential."""
    try:
        with socket.create_connection((host, port), timeout) as connection:
            loopback = ipaddress.ip_address(connection.getpeername()[0]).is_loopback
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

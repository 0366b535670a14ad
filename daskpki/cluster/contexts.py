"""TLS contexts from keys in memory: Python's `ssl` reads keys from paths only, and no key may lie on a disk.

Where there is `/dev/fd` (Linux, macOS, BSD) the PEM text goes through pipes: OpenSSL opens certificate and key once
each and reads them to the end, the bytes exist in kernel buffers only, and nothing is left to open a second time.
Windows has no such paths; there the key is written encrypted under a random passphrase that never leaves this process,
and the file is deleted at once, so what a disk may keep is of no use to anyone.
"""

from __future__ import annotations

import os
import secrets
import ssl
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from daskpki.cluster.sockets import PkiSocket
from daskpki.confidential import Confidential
from daskpki.errors import DaskpkiError, NotTrustedError

_DESCRIPTORS: Final = Path("/dev/fd")


class KeyPair(NamedTuple):
    """A private key and the certificates that go with it (leaf first, then intermediates), both as PEM."""

    certificates: str
    key: Confidential


def server_context(pair: KeyPair, anchors: Sequence[bytes], minimum: ssl.TLSVersion) -> ssl.SSLContext:
    """A listener's context: it demands a client certificate, and gives out nothing to resume a session with."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, pair, anchors, minimum)
    # A resumed session skips the verification of the chain: no tickets in TLS 1.3, none in 1.2 either.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    return context


def client_context(pair: KeyPair, anchors: Sequence[bytes], minimum: ssl.TLSVersion) -> ssl.SSLContext:
    """A dialler's context. Names are not compared with host names: the SPIFFE ID is checked instead."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, pair, anchors, minimum)


def _context(protocol: int, pair: KeyPair, anchors: Sequence[bytes], minimum: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.sslsocket_class = PkiSocket
    context.minimum_version = minimum
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=b"".join(anchors))
    load_key_pair(context, pair)
    return context


def load_key_pair(context: ssl.SSLContext, pair: KeyPair) -> None:
    """Put key and certificates into `context`; NotTrustedError when they do not belong together or do not parse."""
    try:
        if _DESCRIPTORS.is_dir():
            load_through_pipes(context, pair)
        else:
            load_through_sealed_file(context, pair)
    except OSError:  # ssl.SSLError is one; through a pipe OpenSSL's errors come with a misleading errno (ESPIPE)
        raise NotTrustedError(
            "key and certificate cannot be loaded: they do not belong together, or are not unencrypted PEM"
        ) from None


def load_through_pipes(context: ssl.SSLContext, pair: KeyPair) -> None:
    """The way of Linux, macOS and BSD."""
    with _pipe(pair.certificates.encode()) as certificates, _pipe(pair.key.reveal()) as key:
        context.load_cert_chain(certificates, key)


@contextmanager
def _pipe(data: bytes) -> Iterator[str]:
    reader, writer = os.pipe()
    # A thread, since a chain may be longer than what the kernel takes without a reader.
    thread = threading.Thread(target=_feed, args=(writer, data), daemon=True)
    thread.start()
    try:
        yield str(_DESCRIPTORS / str(reader))
    finally:
        os.close(reader)
        thread.join()


def _feed(writer: int, data: bytes) -> None:
    with os.fdopen(writer, "wb", buffering=0) as pipe:
        try:
            pipe.write(data)
        except BrokenPipeError:
            return  # OpenSSL gave up early, and says why itself


def load_through_sealed_file(context: ssl.SSLContext, pair: KeyPair) -> None:
    """The way of Windows."""
    passphrase = secrets.token_urlsafe(32)
    with tempfile.TemporaryDirectory() as directory:
        certificates, key = Path(directory, "cert.pem"), Path(directory, "key.pem")
        certificates.write_text(pair.certificates)
        key.write_bytes(_encrypt(pair.key, passphrase))
        context.load_cert_chain(certificates, key, passphrase)


def _encrypt(key: Confidential, passphrase: str) -> bytes:
    from cryptography.hazmat.primitives import serialization

    try:
        private = serialization.load_pem_private_key(key.reveal(), password=None)
    except (TypeError, ValueError) as error:
        raise DaskpkiError("the private key is not unencrypted PEM") from error
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase.encode()),
    )

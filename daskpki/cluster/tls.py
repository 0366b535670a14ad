"""TLS sockets and contexts: keys come from memory, and an error on one connection stays there.

OpenSSL keeps errors in a queue for each thread, and a Dask process serves all connections in one thread. CPython 3.13
and newer return from a system error (a peer's RST) without clearing that queue (`PySSL_SetError`, ERR_LIB_SYS;
python/cpython#148594). The next read without data on any other connection then reports that error as its own, and
tornado closes a healthy connection. docs/explanation/reset-connections.md shows it without Dask.

Python's `ssl` reads keys from paths only. Where `/dev/fd` exists (Linux, macOS, BSD) the PEM text goes through pipes:
OpenSSL opens certificate and key once each, and the bytes exist in kernel buffers only. On Windows the key is written
encrypted under a random passphrase that never leaves this process, and the file is deleted at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import select
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from daskpki.confidential import Confidential
from daskpki.errors import NotTrustedError, UnavailableError
from daskpki.pki.credential import Credential, certificate_pem, key_pem

_SWEEPER: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_WAITING: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_LOUD: Final = frozenset({ssl.SSL_ERROR_SSL, ssl.SSL_ERROR_SYSCALL})


def clear_error_queue() -> None:
    """Empty this thread's queue of OpenSSL errors.

    `ssl` has no function for it, but clears the queue when no cipher can be selected, and then leaves the context as it
    was.
    """
    with contextlib.suppress(ssl.SSLError):
        _SWEEPER.set_ciphers("NOPE")


class PkiSocket(ssl.SSLSocket):
    """Clears the error queue at each failure; all reads and writes of tornado's streams pass here."""

    on_turn: Callable[[], None] | None = None
    """Called whenever the handshake goes on (`daskpki.cluster.pending`)."""

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 - the name in SSLSocket
        """Read; `recv` and `recv_into` call this."""
        try:
            return super().read(len, buffer)
        except OSError as error:
            _clear_after(error)
            raise

    def send(self, data: Any, flags: int = 0) -> int:
        """Send; `sendall` calls this."""
        try:
            return super().send(data, flags)
        except OSError as error:
            _clear_after(error)
            raise

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - SSLSocket's own signature
        """Shake hands. A listener reports a failure as an early EOF, which tornado does not log; the audit does."""
        if self.on_turn is not None:
            self.on_turn()
        try:
            super().do_handshake(block)
        except OSError as error:
            _clear_after(error)
            if self.server_side and isinstance(error, ssl.SSLError) and error.args[0] in _LOUD:
                # Tornado would log a warning for each of them, at any rate at which a stranger sends nonsense.
                raise ssl.SSLError(ssl.SSL_ERROR_EOF, str(error)) from error
            raise


def _clear_after(error: OSError) -> None:
    if not isinstance(error, _WAITING):
        clear_error_queue()


_DESCRIPTORS: Final = Path("/dev/fd")


class KeyPair(NamedTuple):
    """A private key and the certificates that go with it (leaf first, then intermediates), both as PEM."""

    certificates: str
    key: Confidential


def key_pair(credential: Credential) -> KeyPair:
    """Encode a credential as a key pair; UsageError if it has no key."""
    return KeyPair(certificate_pem(credential), key_pem(credential))


def server_context(pair: KeyPair, anchors: Sequence[bytes], minimum: ssl.TLSVersion) -> ssl.SSLContext:
    """Make a listener's context: it demands a client certificate, and allows no session resumption."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, pair, anchors, minimum)
    # A resumed session skips the verification of the chain: no tickets in TLS 1.3, none in 1.2 either.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    return context


def client_context(pair: KeyPair, anchors: Sequence[bytes], minimum: ssl.TLSVersion) -> ssl.SSLContext:
    """Make a dialler's context. Host names are not compared: the SPIFFE ID is verified instead."""
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
    """Load key and certificates into `context`; NotTrustedError if they do not match or do not parse.

    UnavailableError if no descriptor is left for it, which says nothing about the key.
    """
    try:
        if _DESCRIPTORS.is_dir():
            with _pipe(pair.certificates.encode()) as certificates, _pipe(pair.key.reveal()) as key:
                context.load_cert_chain(certificates, key)
        else:
            load_through_sealed_file(context, pair)
    except OSError as error:  # as ssl.SSLError is; through a pipe, OpenSSL's errors have a misleading errno (ESPIPE)
        if error.errno in EXHAUSTED and not isinstance(error, ssl.SSLError):
            raise UnavailableError(f"the key cannot be loaded now: {error.strerror}") from error
        raise NotTrustedError(
            "key and certificate cannot be loaded: they do not belong together, or are not unencrypted PEM"
        ) from None


@contextmanager
def _pipe(data: bytes) -> Iterator[str]:
    reader, writer = os.pipe()

    def feed() -> None:
        # A BrokenPipeError means that OpenSSL gave up early, and says why itself.
        with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "wb", buffering=0) as pipe:
            pipe.write(data)

    # An empty pipe takes PIPE_BUF without a reader (POSIX, write). A longer chain needs a thread, which costs
    # milliseconds: every connected process makes new contexts for each trust document.
    thread = threading.Thread(target=feed, daemon=True)
    is_long = len(data) > select.PIPE_BUF
    (thread.start if is_long else thread.run)()
    try:
        yield str(_DESCRIPTORS / str(reader))
    finally:
        os.close(reader)
        if is_long:
            thread.join()


def load_through_sealed_file(context: ssl.SSLContext, pair: KeyPair) -> None:
    """Load them through an encrypted file, on Windows."""
    passphrase = secrets.token_urlsafe(32)
    with tempfile.TemporaryDirectory() as directory:
        certificates, key = Path(directory, "cert.pem"), Path(directory, "key.pem")
        certificates.write_text(pair.certificates)
        key.write_bytes(_encrypt(pair.key, passphrase))
        context.load_cert_chain(certificates, key, passphrase)


def _encrypt(key: Confidential, passphrase: str) -> bytes:
    from cryptography.hazmat.primitives import serialization

    from daskpki.pki.keys import parse_key

    return parse_key(key).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase.encode()),
    )

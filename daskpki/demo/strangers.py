"""Attackers that connect by plain TLS; each function returns the reason for which it was refused.

A stranger that gets past the handshake was let in; then the demo fails and says so.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Sequence
from typing import Final

from daskpki.cluster.tls import KeyPair, load_key_pair
from daskpki.credentials.contexts import split_scheduler
from daskpki.credentials.verified import VerifiedCredential
from daskpki.errors import DaskpkiError
from daskpki.pki.credential import certificate_pem, key_pem

_LIMIT: Final = 10.0


def without_certificate(address: str, anchors: Sequence[bytes]) -> str:
    """Connect without a certificate."""
    return _knock(address, _context(anchors))


def of_another_ca(address: str, anchors: Sequence[bytes], mallory: VerifiedCredential) -> str:
    """Connect with a valid client certificate of another CA."""
    context = _context(anchors)
    load_key_pair(context, KeyPair(certificate_pem(mallory.credential), key_pem(mallory.credential)))
    return _knock(address, context)


def _context(anchors: Sequence[bytes]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # a stranger is not choosy
    context.load_verify_locations(cadata=b"".join(anchors))
    return context


def _knock(address: str, context: ssl.SSLContext) -> str:
    """Shake hands and read: in TLS 1.3 the client learns only then that it was refused (RFC 8446, 4.4.2.4)."""
    try:
        with (
            socket.create_connection(split_scheduler(address), _LIMIT) as plain,
            context.wrap_socket(plain) as secured,
        ):
            secured.recv(1)
    except ssl.SSLError as error:
        return str(error.reason).lower().replace("_", " ")
    except OSError as error:
        return f"connection closed ({error})"
    raise DaskpkiError(f"{address} let a stranger in")


class Impostor:
    """A listener that shows a client's certificate where a scheduler is expected."""

    def __init__(self, alice: VerifiedCredential) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_key_pair(context, KeyPair(certificate_pem(alice.credential), key_pem(alice.credential)))
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"tls://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:  # closed: the demo is over
                return
            try:
                with self._context.wrap_socket(plain, server_side=True) as secured:
                    secured.recv(1)
            except OSError:  # the caller hung up, as it should
                continue

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

"""The TLS sockets of all our connections: what fails on one of them stays on it.

OpenSSL keeps its errors in a queue of the thread, and a Dask process serves all its connections in one thread. CPython
3.13 and newer return from a system error (a peer's RST) without clearing that queue (`PySSL_SetError`, ERR_LIB_SYS;
python/cpython#148594), and the next read without data, of whichever connection, reports that error as its own: tornado
closes a healthy connection. docs/explanation/reset-connections.md shows it without Dask.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from typing import Any, Final

_SWEEPER: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_WAITING: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
_LOUD: Final = frozenset({ssl.SSL_ERROR_SSL, ssl.SSL_ERROR_SYSCALL})


def clear_error_queue() -> None:
    """Empty this thread's queue of OpenSSL errors.

    `ssl` has no function for it, but clears the queue when no cipher can be selected, and then leaves the context as it
    was.
    """
    with contextlib.suppress(ssl.SSLError):
        _SWEEPER.set_ciphers("NOPE")


class PkiSocket(ssl.SSLSocket):
    """Clears the error queue at each failure, which all ways in and out of tornado's streams pass here."""

    on_turn: Callable[[], None] | None = None
    """Called whenever the handshake goes on (`daskpki.cluster.anteroom`)."""

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002 - the name in SSLSocket
        """See ssl.SSLSocket; `recv` and `recv_into` call this."""
        try:
            return super().read(len, buffer)
        except OSError as error:
            _clear_after(error)
            raise

    def send(self, data: Any, flags: int = 0) -> int:
        """See ssl.SSLSocket; `sendall` calls this."""
        try:
            return super().send(data, flags)
        except OSError as error:
            _clear_after(error)
            raise

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - SSLSocket's own signature
        """See ssl.SSLSocket. A listener's failure looks like an early EOF: tornado keeps quiet, the audit tells."""
        if self.on_turn is not None:
            self.on_turn()
        try:
            super().do_handshake(block)
        except OSError as error:
            _clear_after(error)
            if self.server_side and isinstance(error, ssl.SSLError) and error.args[0] in _LOUD:
                # Tornado would log a warning for each of them, at whatever rate a stranger sends nonsense.
                raise ssl.SSLError(ssl.SSL_ERROR_EOF, str(error)) from error
            raise


def _clear_after(error: OSError) -> None:
    if not isinstance(error, _WAITING):
        clear_error_queue()

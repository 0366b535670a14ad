"""Listeners that are no schedulers: each gives its connections to a function."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Talk = Callable[[socket.socket], None]


@contextmanager
def listening(talk: Talk, port: int = 0) -> Iterator[int]:
    """A listener that gives every connection to `talk`; yields its port, a free one if none is given."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, talk), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def _serve(listener: socket.socket, talk: Talk) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            try:
                talk(connection)
            except OSError:
                continue


def over_tls(directory: Path, *, demand: bool, greeting: bytes = b"greeting") -> Talk:
    """A TLS listener that greets first, as Dask's does, and asks for a certificate or does not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    context.load_verify_locations(directory / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED if demand else ssl.CERT_NONE

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            if greeting:
                wrapped.sendall(greeting)
            wrapped.recv(1)

    return talk

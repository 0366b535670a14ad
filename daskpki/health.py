"""`python -m daskpki.health`: is the Dask in this container alive? For HEALTHCHECK and probes; exit code 0 or 1.

A scheduler answers `/health` on its loopback HTTP port, and what was started with DASKPKI_HEALTH does so there, which
shows that an event loop turns. Elsewhere (a worker's HTTP port is a random one, a dashboard under mutual TLS wants a
certificate) the question is whether a process of this container listens at all; no connection is made, since an
unfinished TLS handshake would stand in Dask's log each time. Standard library only, and little of it: it runs often.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

VARIABLE: Final = "DASKPKI_HEALTH"
HTTP_PORT: Final = 8787
_LISTENING: Final = "0A"  # the kernel's TCP_LISTEN
_LOOPBACK: Final = frozenset({"0100007F", "00000000000000000000000001000000"})
_ANY: Final = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}  # noqa: S104 - to listen there; one asks at loopback
_ANSWER: Final = b"HTTP/1.1 200"


def check(proc: Path = Path("/proc"), *, timeout: float = 5.0, environ: Mapping[str, str] = os.environ) -> str | None:
    """What is wrong, or None; `timeout` in seconds is for the HTTP answer."""
    listening = list(_sockets(proc, _own_inodes(proc)))
    if not listening:
        return "nothing listens"
    if chosen := environ.get(VARIABLE):
        host, _, port = chosen.rpartition(":")
        return _ask(_ANY.get(host, host.strip("[]")), int(port), timeout)
    loopback = {port for address, port in listening if address in _LOOPBACK}
    if HTTP_PORT in loopback:
        return _ask("127.0.0.1", HTTP_PORT, timeout)
    return "nothing listens beyond loopback" if all(address in _LOOPBACK for address, _ in listening) else None


def _own_inodes(proc: Path) -> frozenset[str]:
    """The sockets that processes of this container hold, as far as they are ours to see."""
    found = set()
    for link in proc.glob("[0-9]*/fd/*"):  # of other users' processes, nothing
        with suppress(OSError):  # closed meanwhile, as the one that this loop reads the directory by
            found.add(str(link.readlink()))
    return frozenset(text.removeprefix("socket:[").removesuffix("]") for text in found)


def _sockets(proc: Path, inodes: frozenset[str]) -> Iterator[tuple[str, int]]:
    """Address (as the kernel writes it, without the port) and port of each TCP socket among them that listens."""
    for line in _lines(proc / "net" / "tcp", proc / "net" / "tcp6"):
        fields = line.split()
        if fields[3] == _LISTENING and fields[9] in inodes:
            address, _, port = fields[1].partition(":")
            yield address, int(port, 16)


def _lines(*tables: Path) -> Iterable[str]:
    for table in tables:
        if table.exists():
            yield from table.read_text().splitlines()[1:]


def _ask(host: str, port: int, timeout: float) -> str | None:
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection((host, port), timeout) as connection:
            connection.sendall(request)
            answer = connection.recv(len(_ANSWER), socket.MSG_WAITALL)
    except OSError as error:
        return f"/health gave no answer ({type(error).__name__})"
    return None if answer == _ANSWER else "/health did not answer 200"


if __name__ == "__main__":
    wrong = check()
    if wrong:
        print(wrong, file=sys.stderr)  # noqa: T201 - Docker keeps it as the reason
    sys.exit(1 if wrong else 0)

"""`python -m daskpki.health`: is the Dask in this container alive? For HEALTHCHECK and probes; exit code 0 or 1.

Asks the health server of Dask's own process (`--health`, DASKPKI_HEALTH) for `/health`, which shows that its event loop
turns; on a worker that is the process of its nannies. Standard library only, and little of it: it runs often.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from typing import Final

VARIABLE: Final = "DASKPKI_HEALTH"
_ANSWER: Final = b"HTTP/1.1 200"
_EVERY_ADDRESS: Final[Mapping[str, str]] = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - asked on loopback


def check(address: str | None, *, timeout: float = 5.0) -> str | None:
    """The failure of the server at ADDRESS:PORT, or None if it answers.

    `timeout` is in seconds.

        assert check("127.0.0.1:8788") is None
    """
    if not address:
        return f"{VARIABLE} is not set, so there is no address to ask"
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    request = f"GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode()
    try:
        with socket.create_connection((_EVERY_ADDRESS.get(host, host), int(port)), timeout) as connection:
            connection.sendall(request)
            answer = connection.recv(len(_ANSWER), socket.MSG_WAITALL)
    except (OSError, ValueError) as error:
        return f"/health at {address} gave no answer ({type(error).__name__})"
    return None if answer == _ANSWER else f"/health at {address} did not answer 200"


if __name__ == "__main__":
    sys.exit(check(os.environ.get(VARIABLE)))  # a text goes to stderr, where Docker finds it, and is exit code 1

"""Ports for servers that a test starts later."""

from __future__ import annotations

import random
import socket
from typing import Final

_PORTS: Final = iter(random.SystemRandom().sample(range(10_000, 32_000), 2_000))


def free_port() -> int:
    """A port at which nothing listens.

    It lies below those that the system gives to connections (net.ipv4.ip_local_port_range): any connection of another
    test could take one of those before the server binds it.
    """
    for port in _PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("2,000 ports were given out or taken")

"""A client that computes without a pause until it is cut off: `busy.py ADDRESS`, names of clients on stdin.

For each it says `busy` when it has begun, and at the end the moment of its last accepted operation (monotonic clock).
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time

from distributed import Client

import daskpki


def work(address: str, name: str) -> float:
    """The last moment at which the cluster answered that client."""
    security = daskpki.security(name, store="local:")
    client = Client(address, security=security, timeout=20, set_as_default=False)
    client.submit(abs, -1).result(timeout=20)
    print("busy", flush=True)
    try:
        while True:
            client.submit(abs, -1, pure=False).result()
            last = time.monotonic()
    except Exception:  # noqa: BLE001 - however it shows that the connection was cut
        with contextlib.suppress(TimeoutError):  # it is trying to come back
            client.close(timeout=1)
        return last


if __name__ == "__main__":
    logging.disable()
    for line in sys.stdin:
        print(work(sys.argv[1], line.strip()), flush=True)

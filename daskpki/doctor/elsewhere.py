"""What time it is on the other side of the store: the Date header of any reply, to a request without credentials."""

from __future__ import annotations

import time
from collections.abc import Mapping

from daskpki.boot.clock import parse_date
from daskpki.boot.connection import Connection, parse_target, proxy_for, system_trust
from daskpki.boot.retry import TryAgain
from daskpki.settings import GsmUrl
from daskpki.store.gsm.endpoint import GRPC, endpoint_for

_TIMEOUT = 5.0


def clock_ahead(url: GsmUrl, environ: Mapping[str, str]) -> float | None:
    """By how many seconds this machine's clock is ahead of Secret Manager's; None where nobody tells.

    NotTrustedError when the other side's certificate is not to be trusted.
    """
    endpoint = endpoint_for(url, environ)
    if endpoint.transport == GRPC and not endpoint.encrypted:  # gRPC tells no time, and nothing else listens there
        return None
    target = parse_target(endpoint.address, encrypted=endpoint.encrypted)
    if endpoint.encrypted:
        target = target._replace(proxy=proxy_for(target.host, environ))
    connection = Connection(target, system_trust)
    try:
        reply = connection.get("/", {}, _TIMEOUT)
    except TryAgain:
        return None
    finally:
        connection.close()
    there = parse_date(reply.headers.get("date", ""))
    return None if there is None else time.time() - there

"""Why a dial failed is still known when its last attempt was cut off: Dask raises a bare TimeoutError for that one."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest
from distributed.comm.core import connect

from daskpki.cluster.security import PkiSecurity
from daskpki.identity import Role
from tests.support.cluster_material import Authority

pytestmark = pytest.mark.cluster


def causes(error: BaseException) -> list[str]:
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    return [str(each) for each in chain]


@pytest.mark.parametrize("first", ["refused", "accepted"])
def test_an_attempt_that_is_cut_off_leaves_the_reason_of_the_one_before(
    first: str, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority()
    security = PkiSecurity({Role.WORKER: authority.enforcement(authority.leaf(Role.WORKER))})
    arguments = security.get_connection_args("worker")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if first == "accepted":
            server.listen()

        def accept(record: logging.LogRecord) -> bool:
            """From the first failure on, the peer lets everybody connect, and never answers."""
            if record.msg.startswith("Could not connect"):
                server.listen()
            return True

        dask = logging.getLogger("distributed.comm.core")
        caplog.set_level(logging.DEBUG, logger=dask.name)
        dask.addFilter(accept)
        try:
            with pytest.raises(OSError, match="Timed out trying to connect") as raised:
                asyncio.run(connect(f"tls://127.0.0.1:{server.getsockname()[1]}", timeout=1, **arguments))
        finally:
            dask.removeFilter(accept)
    assert any("Connection refused" in said for said in causes(raised.value)) is (first == "refused")

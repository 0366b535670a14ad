"""A scheduler lets go of what it refused, and bounds a worker's calls.

Each refusal kept the whole message until the garbage collector came by: 30 operation names of 20 MB took a scheduler
from 76 MB to 706 MB.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distributed.comm.core import CommClosedError
from distributed.protocol.serialize import ToPickle

from daskpki.cluster import trust_updates
from daskpki.cluster.comm import LONGEST_CALL
from daskpki.confidential import Confidential
from daskpki.identity import Role
from tests.cluster.conftest import stock_security
from tests.support.cluster_material import Authority
from tests.support.nodes import Cluster
from tests.support.rogue import dial

pytestmark = pytest.mark.cluster

SIZE = 20_000_000
TIMES = 12


def operation(text: str) -> Any:
    return {"op": text}


def argument(text: str) -> Any:
    return {"op": "event_set", "name": text}


def pickled(text: str) -> Any:
    return {"op": "event_set", "name": ToPickle(text)}


def document(text: str) -> Any:
    return trust_updates.message(Confidential(text.encode()))


@pytest.mark.parametrize(
    ("role", "message"),
    [
        (Role.WORKER, operation),
        (Role.WORKER, argument),
        (Role.WORKER, pickled),
        (Role.CLIENT, operation),
        (Role.CLIENT, document),
    ],
)
def test_a_refused_message_is_not_kept(
    role: Role, message: Callable[[str], Any], authority: Authority, limited: Cluster, tmp_path: Path
) -> None:
    security = stock_security(authority, authority.leaf(role, "talkative"), tmp_path)

    async def scenario() -> int:
        comm = await dial(limited.address, security, role.value)
        used = []
        for number in range(TIMES):
            await comm.write(message(f"{number:x}" * SIZE))
            assert "error" in (await asyncio.wait_for(comm.read(), 30))["status"]
            used.append(resident(limited.scheduler.process.pid))
        comm.abort()
        return used[-1] - used[1]

    assert asyncio.run(scenario()) < 4 * SIZE


def resident(process: int) -> int:
    """Bytes in memory."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024


def test_a_call_with_a_workers_certificate_has_a_longest_size(
    authority: Authority, limited: Cluster, tmp_path: Path
) -> None:
    """It is cut off by what it announces, before any of it is read."""
    security = stock_security(authority, authority.leaf(Role.WORKER, "talkative"), tmp_path)

    async def scenario() -> None:
        comm: Any = await dial(limited.address, security)
        await comm.write({"op": "identity"})
        await comm.read()
        with contextlib.suppress(OSError):
            await comm.stream.write(struct.pack("Q", LONGEST_CALL + 1))
        with pytest.raises(CommClosedError):
            await asyncio.wait_for(comm.read(), 20)

    asyncio.run(scenario())

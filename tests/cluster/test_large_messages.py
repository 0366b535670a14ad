"""A scheduler lets go of what it refused, and bounds what a peer sends.

Each refusal kept the whole message until the garbage collector came by: 30 operation names of 20 MB took a scheduler
from 76 MB to 706 MB.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from distributed import Client, Security
from distributed.comm.core import CommClosedError
from distributed.protocol.serialize import ToPickle

from daskpki.cluster import trust_updates
from daskpki.cluster.comm import LONGEST, LONGEST_OF_A_WORKER
from daskpki.cluster.security import client_security
from daskpki.confidential import Confidential
from daskpki.identity import Role
from tests.support import tasks
from tests.support.attacks import registration
from tests.support.cluster_material import Authority, stock_security
from tests.support.nodes import Cluster
from tests.support.rogue import dial, error_in

pytestmark = pytest.mark.cluster

SIZE = 20_000_000
TIMES = 8


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
    messages = (message(f"{number:x}" * SIZE) for number in range(TIMES))
    grown, replies = asyncio.run(growth(limited, security, role, messages))
    assert all("error" in reply["status"] for reply in replies)
    assert grown < 4 * SIZE


async def growth(cluster: Cluster, security: Security, role: Role, messages: Iterable[Any]) -> tuple[int, list[Any]]:
    """How many bytes more the scheduler has after these messages than after two of them, and what it answered."""
    comm = await dial(cluster.address, security, role.value)
    used, replies = [], []
    for message in messages:
        await comm.write(message)
        replies.append(await asyncio.wait_for(comm.read(), 30))
        used.append(resident(cluster.scheduler.process.pid))
    comm.abort()
    return used[-1] - used[1], replies


def resident(process: int, kind: str = "VmRSS") -> int:
    """Bytes in memory; of `VmHWM`, the most that there ever were."""
    found = re.search(rf"{kind}:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024


class Sender(NamedTuple):
    """What a peer says before the message in question, and how long that may be."""

    role: Role
    begins: Mapping[str, Any] | None
    most: int


SENDERS = {
    "a worker's call": Sender(Role.WORKER, None, LONGEST_OF_A_WORKER),
    "a worker's stream": Sender(
        Role.WORKER,
        registration("tls://127.0.0.3:1", name="talkative") | {"status": "running", "server_id": "Worker-talkative"},
        LONGEST_OF_A_WORKER,
    ),
    "a worker's client": Sender(
        Role.WORKER,
        {"op": "register-client", "client": "Client-worker-talkative", "heartbeat": False, "versions": {}},
        LONGEST_OF_A_WORKER,
    ),
    "a client's call": Sender(Role.CLIENT, None, LONGEST),
    "a client's stream": Sender(
        Role.CLIENT, {"op": "register-client", "client": "talkative", "heartbeat": False, "versions": {}}, LONGEST
    ),
}
TOO_MUCH: dict[str, Callable[[int], bytes]] = {
    "bytes": lambda most: struct.pack("Q", most + 1),
    "bytes in two parts": lambda most: struct.pack("QQQ", 16, 1, most),
    "frames": lambda most: struct.pack("QQ", 8, (most >> 10) + 1),
}


@pytest.mark.parametrize("announcement", TOO_MUCH)
@pytest.mark.parametrize("sender", SENDERS)
def test_a_peer_that_announces_too_much_is_cut_off(
    sender: str, announcement: str, authority: Authority, limited: Cluster, tmp_path: Path
) -> None:
    """Nothing of the message but its lengths was sent, so that none of it is in the scheduler's memory."""
    role, begins, most = SENDERS[sender]
    name = f"talkative-{[*SENDERS].index(sender)}-{[*TOO_MUCH].index(announcement)}"
    security = stock_security(authority, authority.leaf(role, name), tmp_path)

    async def scenario() -> None:
        comm: Any = await dial(limited.address, security, role.value)
        await comm.write(begins or {"op": "identity"})
        await asyncio.wait_for(comm.read(), 20)
        with contextlib.suppress(OSError):
            await comm.stream.write(TOO_MUCH[announcement](most))
        with contextlib.suppress(CommClosedError):
            while await asyncio.wait_for(comm.read(), 20):
                pass  # what the stream says until then

    asyncio.run(scenario())
    limited.scheduler.wait_for(re.compile(rf"{name}.*a message of \d+ \w+, where at most \d+ are read"))


@pytest.mark.long
def test_control_what_honest_peers_send_is_read(authority: Authority, limited: Cluster) -> None:
    """A client's data above what a worker may send, and a worker's event of 40 MB and result of 160 MB."""
    security = client_security(authority.leaf(Role.CLIENT, "alice").credential, authority.document())
    with Client(limited.address, security=security) as client:
        (data,) = client.scatter([bytes(LONGEST_OF_A_WORKER + 1)], direct=False)
        assert client.submit(len, data).result(60) == LONGEST_OF_A_WORKER + 1
        client.submit(tasks.log_long_event, 40_000_000).result(60)
        (event,) = [event for _time, event in client.get_events("long") if event]
        assert len(event) == 40_000_000
        assert len(client.gather(data, direct=False)) == LONGEST_OF_A_WORKER + 1


@pytest.mark.parametrize("values", [b"\x80", b"\x91\xc0", b"\xa2xy"], ids=["maps", "arrays", "texts"])
def test_values_that_take_more_memory_than_bytes_are_counted(
    values: bytes, authority: Authority, limited: Cluster, tmp_path: Path
) -> None:
    """20 MB of empty maps took 1.6 GB of the scheduler's memory."""
    security = stock_security(authority, authority.leaf(Role.WORKER, "talkative"), tmp_path)
    count = SIZE // len(values)
    frame = b"\xdd" + struct.pack(">I", count) + values * count

    async def scenario() -> Any:
        comm: Any = await dial(limited.address, security)
        await comm.stream.write(struct.pack("QQQ", 16 + len(frame), 1, len(frame)) + frame)
        return await asyncio.wait_for(comm.read(), 30)

    before = resident(limited.scheduler.process.pid, "VmHWM")
    reply = asyncio.run(scenario())
    assert "more than 4194304 values" in str(error_in(reply))
    assert resident(limited.scheduler.process.pid, "VmHWM") - before < 8 * SIZE


def test_control_a_message_that_is_kept_is_seen(authority: Authority, limited: Cluster, tmp_path: Path) -> None:
    """The last test here: it raises the most that there ever was, above."""
    security = stock_security(authority, authority.leaf(Role.CLIENT, "talkative"), tmp_path)

    def kept(texts: Iterable[str]) -> Iterator[Any]:
        return ({"op": "set_metadata", "keys": [number], "value": text} for number, text in enumerate(texts))

    long = kept(f"{number:x}" * SIZE for number in range(TIMES))
    assert asyncio.run(growth(limited, security, Role.CLIENT, long))[0] > 4 * SIZE
    asyncio.run(growth(limited, security, Role.CLIENT, kept(["gone"] * TIMES)))

"""Decides which worker owns an address that two identities claim, and removes what a lost worker left behind.

The first worker to claim an address gets it, so an impostor could keep the true owner out. The scheduler dials an
address only when another worker claims it as well: the address belongs to the identity that answers there.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from distributed.batched import BatchedSend

from daskpki.cluster.audit import REFUSED
from daskpki.cluster.enforcement import Enforcement
from daskpki.cluster.policy import DIALS, Channel
from daskpki.cluster.refusal import Reason
from daskpki.errors import NotTrustedError
from daskpki.identity import Identity

_PATIENCE: Final = 5.0
"""Seconds for an answer at a contested address, and for the end of the impostor's connection."""

_dialled: dict[tuple[int, str], asyncio.Task[Identity | None]] = {}


async def settle(enforcement: Enforcement, scheduler: Any, address: str, claimant: Identity) -> bool:
    """Return True if the claimant answers at `address`; if so, cut off the other holders of the address."""
    if await _asked_once(enforcement, address) != claimant:
        return False
    held = enforcement.registrations.holders(Channel.WORKER_STREAM, address)
    impostors = [comm for comm in enforcement.connections() if comm.conversation in held]
    for comm in impostors:
        if comm.conversation.peer.identity != claimant:
            reason = f"it registered {address}, where {claimant.uri} answers"
            enforcement.abort_those([comm], REFUSED, reason, Reason.OPERATION)
            with contextlib.suppress(TimeoutError):  # until Dask has noticed: it would remove the address's next worker
                await asyncio.wait_for(comm.over.wait(), _PATIENCE)
            enforcement.registrations.release(comm.conversation)
    await clear(enforcement, scheduler, address)
    return True


async def _asked_once(enforcement: Enforcement, address: str) -> Identity | None:
    """Find who answers at `address`; claims that come meanwhile wait for the same answer, so one dial is enough."""
    key = (id(enforcement), address)
    if key not in _dialled:
        _dialled[key] = asyncio.create_task(_answering(enforcement, address))
        _dialled[key].add_done_callback(lambda _task: _dialled.pop(key, None))
    return await asyncio.shield(_dialled[key])


async def _answering(enforcement: Enforcement, address: str) -> Identity | None:
    """Find the identity at `address` by a TLS handshake; None if no peer that we would dial answers."""
    host, _, port = address.partition("://")[2].rpartition(":")
    dial = asyncio.open_connection(host.strip("[]"), int(port), ssl=enforcement.client_context())
    try:
        _reader, writer = await asyncio.wait_for(dial, _PATIENCE)
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        return enforcement.admit(certificate, DIALS[enforcement.identity.role]).identity
    except (OSError, TimeoutError, NotTrustedError):
        return None


async def clear(enforcement: Enforcement, scheduler: Any, address: str) -> None:
    """Remove the worker from the scheduler's tables, unless a live connection has registered its address.

    A registration that fails half-way leaves the worker there, visible to every client and worker, but without the
    stream that Dask needs to remove it.
    """
    if address in scheduler.workers and enforcement.registrations.owner(Channel.WORKER_STREAM, address) is None:
        if address not in scheduler.stream_comms:
            scheduler.stream_comms[address] = BatchedSend(interval="5ms", loop=scheduler.loop)
        await scheduler.remove_worker(address, stimulus_id="daskpki-connection-is-over", close=False)

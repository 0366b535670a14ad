"""A revocation reaches live connections whatever CA they were accepted under, for every kind of peer and server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from distributed.comm.core import Comm, CommClosedError

from daskpki.authority.crl import DROPPED_LIMIT
from daskpki.authority.session import random_serial
from daskpki.cluster import trust_updates
from daskpki.identity import Role
from daskpki.pki.trust_document import TrustDocument
from tests.support.cluster_material import Authority, Leaf, stock_security
from tests.support.nightly import sample
from tests.support.nodes import Cluster, cluster
from tests.support.rogue import dial

pytestmark = pytest.mark.cluster


class Peers:
    """Connections that were there before any rotation: to each kind of server, as client and as worker."""

    def __init__(self, comms: Sequence[Comm]) -> None:
        self.comms = comms

    async def alive(self) -> bool:
        """Whether each of them still gets an answer."""
        return all([isinstance(await ask(comm, op="identity"), dict) for comm in self.comms])

    async def gone(self) -> None:
        """Returns once each of them was cut."""
        for comm in self.comms:
            with pytest.raises(CommClosedError):
                await asyncio.wait_for(comm.read(), 20)


async def ask(comm: Comm, **message: Any) -> Any:
    await comm.write(message)
    return await asyncio.wait_for(comm.read(), 20)


async def connect(authority: Authority, leaf: Leaf, directory: Path, addresses: Sequence[str]) -> Peers:
    security = stock_security(authority, leaf, directory)
    return Peers([await dial(address, security, leaf.identity.role.value) for address in addresses])


@pytest.mark.parametrize(("rotations", "tiers"), sample([(2, 2), (1, 1)], one_of=2))
def test_who_is_revoked_after_rotations_is_cut_and_nobody_else(tmp_path: Path, rotations: int, tiers: int) -> None:
    authority = Authority(tiers=tiers)
    bob, alice = authority.leaf(Role.CLIENT, "bob"), authority.leaf(Role.CLIENT, "alice")
    gone, stays = authority.leaf(Role.WORKER), authority.leaf(Role.WORKER)  # a nanny takes that name only
    admin = authority.leaf(Role.CLIENT, "admin")

    async def scenario(running: Cluster) -> None:
        everywhere = [running.address, running.worker, running.nanny]
        (scheduler,) = (await connect(authority, admin, tmp_path / "admin", everywhere[:1])).comms
        (nanny,) = (await connect(authority, authority.leaf(Role.WORKER), tmp_path / "w", everywhere[2:])).comms

        async def push(document: TrustDocument) -> None:
            """To the scheduler, whose stream carries it to the worker; and to the nanny."""
            for comm in (scheduler, nanny):
                reply = await ask(comm, **trust_updates.message(authority.signed(document)))
                assert reply["epoch"] == document.epoch
            holds = re.compile(rf"trust document {document.epoch} is in force")
            await asyncio.to_thread(running.workers.wait_for, holds, 2)

        revoked = [
            await connect(authority, bob, tmp_path / "bob", everywhere[:2]),
            await connect(authority, gone, tmp_path / "gone", everywhere),
        ]
        others = [
            await connect(authority, alice, tmp_path / "alice", everywhere[:2]),
            await connect(authority, stays, tmp_path / "stays", everywhere),
        ]
        for _ in range(rotations):
            for document in authority.rotate():
                await push(document)
        assert all([await peers.alive() for peers in (*revoked, *others)]), "whose CA was dropped stays connected"
        authority.revoke(bob)
        authority.revoke(gone)
        await push(authority.document())
        for peers in revoked:
            await peers.gone()
        assert all([await peers.alive() for peers in others])
        authority.revoke_serials((random_serial() for _ in range(DROPPED_LIMIT)), generation=1)
        await scheduler.write(trust_updates.message(authority.signed(authority.document())))
        for peers in others:
            with pytest.raises(CommClosedError):
                await asyncio.wait_for(peers.comms[0].read(), 20)

    with cluster(authority, tmp_path / "nodes", "limited", nworkers=1) as running:
        asyncio.run(scenario(running))

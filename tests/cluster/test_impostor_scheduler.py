"""Somebody with a worker's certificate in the scheduler's place, who answers what he is asked with a pickle.

Dask's Client asks `identity` before it registers, and unpickles the answer; one that was connected connects again by
itself to whoever has the port by now.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from distributed import Client, Nanny, Scheduler, Security, Worker
from distributed.comm.core import Comm, connect, listen
from distributed.protocol.serialize import ToPickle

from daskpki.cluster.push import PushAnswer, push_trust
from daskpki.cluster.security import PkiSecurity, client_security
from daskpki.credentials.verified import VerifiedCredential
from daskpki.identity import Role
from tests.support.attacks import Evidence
from tests.support.cluster_material import Authority, stock_security

pytestmark = pytest.mark.cluster

WHO = ["a worker", "a revoked worker"]


@pytest.fixture
def own() -> Authority:
    return Authority()


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    return tmp_path / "proof"


@pytest.fixture
def alice(own: Authority) -> PkiSecurity:
    return client_security(own.leaf(Role.CLIENT, "alice").credential, own.document())


@pytest.fixture
def bob(own: Authority) -> PkiSecurity:
    """A task's client, which has the certificate of its worker."""
    working = own.enforcement(own.leaf(Role.WORKER, "bob"))
    return PkiSecurity({Role.WORKER: working, Role.CLIENT: working})


@pytest.fixture
def poser(own: Authority, tmp_path: Path, request: pytest.FixtureRequest) -> Security:
    leaf = own.leaf(Role.WORKER, "stolen")
    if getattr(request, "param", WHO[0]) == WHO[1]:
        for caller in ("alice", "bob"):  # who do not know of it
            request.getfixturevalue(caller)
        own.revoke(leaf)
    return stock_security(own, leaf, tmp_path / "poser")


@asynccontextmanager
async def posing(poser: Security, proof: Path, port: int = 0) -> AsyncIterator[str]:
    """Answer every call with something that leaves a proof where it is unpickled; the address."""

    async def serve(comm: Comm) -> None:
        try:
            while True:
                await comm.read()
                await comm.write({"status": "OK", "type": "Scheduler", "workers": ToPickle(Evidence(proof))})
        except OSError:
            return

    async with listen(f"tls://127.0.0.1:{port}", serve, **poser.get_listen_args("worker")) as listener:
        yield listener.contact_address


@pytest.mark.parametrize("poser", WHO, indirect=True)
@pytest.mark.parametrize("caller", ["alice", "bob"])
def test_no_client_unpickles_its_answer(
    poser: Security, caller: str, proof: Path, request: pytest.FixtureRequest
) -> None:
    security: PkiSecurity = request.getfixturevalue(caller)

    async def scenario() -> None:
        async with posing(poser, proof) as address:
            with pytest.raises(Exception, match="role worker, and here only scheduler"):
                await Client(address, security=security, asynchronous=True, timeout=5)

    asyncio.run(scenario())
    assert not proof.exists()


@pytest.mark.parametrize("poser", WHO, indirect=True)
def test_no_client_that_connects_again_unpickles_its_answer(
    own: Authority, alice: PkiSecurity, poser: Security, proof: Path
) -> None:
    scheduling = PkiSecurity({Role.SCHEDULER: own.enforcement(own.leaf(Role.SCHEDULER))})

    async def scenario() -> None:
        async with Scheduler(
            security=scheduling, host="127.0.0.1", port=0, dashboard=False, dashboard_address=":0"
        ) as scheduler:
            client = await Client(scheduler.address, security=alice, asynchronous=True, timeout=3)
            port = int(scheduler.address.rpartition(":")[2])
            for listener in scheduler.listeners:
                listener.stop()
            async with posing(poser, proof, port):
                for comm in scheduling.enforcement(Role.SCHEDULER).connections():
                    comm.abort_soon()
                await asyncio.wait_for(asyncio.shield(client._handle_report_task), 60)
                await client.close()
        assert client.status == "closed"

    asyncio.run(scenario())
    assert not proof.exists()


def test_no_operator_unpickles_its_answer(own: Authority, poser: Security, proof: Path) -> None:
    """`revoke` takes the trust document to each scheduler: the poser has the place of the second one."""
    scheduling = PkiSecurity({Role.SCHEDULER: own.enforcement(own.leaf(Role.SCHEDULER))})
    credential, document = own.leaf(Role.CLIENT, "operator").credential, own.document()
    held = VerifiedCredential(credential, document, own.signed(document))

    async def scenario() -> list[PushAnswer]:
        async with (
            Scheduler(
                security=scheduling, host="127.0.0.1", port=0, dashboard=False, dashboard_address=":0"
            ) as scheduler,
            posing(poser, proof) as address,
        ):
            both = [scheduler.address, address]
            return await asyncio.to_thread(push_trust, both, held, own.signed(own.document()), limit=30)

    answers = asyncio.run(scenario())
    assert not proof.exists()
    assert "role worker, and here only scheduler" in answers[1].reason


@pytest.mark.parametrize("kind", [Worker, Nanny], ids=["worker", "nanny"])
def test_no_worker_or_nanny_unpickles_its_answer(
    bob: PkiSecurity, poser: Security, proof: Path, kind: type[Worker | Nanny]
) -> None:
    async def scenario() -> None:
        async with posing(poser, proof) as address:
            with pytest.raises(RuntimeError, match="failed to start") as error:
                await kind(address, security=bob, host="127.0.0.1", death_timeout=10)
            assert "here only scheduler is accepted" in str(error.value.__cause__)

    asyncio.run(scenario())
    assert not proof.exists()


def test_control_stock_dask_unpickles_it(own: Authority, poser: Security, proof: Path, tmp_path: Path) -> None:
    stock = stock_security(own, own.leaf(Role.CLIENT, "alice"), tmp_path / "alice")

    async def scenario() -> None:
        async with posing(poser, proof) as address:
            with pytest.raises(Exception, match=r".*"):
                await Client(address, security=stock, asynchronous=True, timeout=5)

    asyncio.run(scenario())
    assert proof.exists()


def test_a_worker_that_fails_early_reaches_its_nanny_first(own: Authority, bob: PkiSecurity) -> None:
    """What is dialled first is the scheduler's, but not where a server says where its scheduler is."""
    scheduling = PkiSecurity({Role.SCHEDULER: own.enforcement(own.leaf(Role.SCHEDULER))})

    async def scenario() -> None:
        async with (
            Scheduler(
                security=scheduling, host="127.0.0.1", port=0, dashboard=False, dashboard_address=":0"
            ) as scheduler,
            Worker(scheduler.address, security=bob, host="127.0.0.1") as other,
        ):
            worker = Worker(scheduler.address, security=bob, host="127.0.0.1")
            await worker.listen("tls://127.0.0.1:0", **bob.get_listen_args("worker"))
            comm = await connect(other.address, **worker.connection_args)
            comm.abort()
            await worker.close()

    asyncio.run(scenario())

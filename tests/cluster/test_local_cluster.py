"""LocalCluster under daskpki: no preload, no files, and no key in a pickle that could be written down."""

from __future__ import annotations

import os
import pickle
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import cloudpickle
import pytest
from distributed import Client, LocalCluster

from daskpki.cluster.local_cluster import POLL, LocalSecurity, cluster_security
from daskpki.cluster.policy import WorkerClients
from daskpki.cluster.refresh import Refused
from daskpki.cluster.security import client_security
from daskpki.cluster.tls import KeyPair
from daskpki.cluster.trust_updates import TrustMessage
from daskpki.confidential import Confidential
from daskpki.errors import NotFoundError
from daskpki.identity import Role
from daskpki.pki.trust_document import TrustDocument, parse_trust
from tests.support.cluster_material import Authority
from tests.support.ports import free_port

pytestmark = pytest.mark.cluster


@pytest.fixture
def security(authority: Authority) -> LocalSecurity:
    return make(authority)


def make(authority: Authority, mode: WorkerClients = WorkerClients.ALLOW) -> LocalSecurity:
    leaves = (authority.leaf(Role.SCHEDULER), authority.leaf(Role.WORKER), authority.leaf(Role.CLIENT, "me"))
    return cluster_security([leaf.credential for leaf in leaves], authority.document(), mode=mode)


def roles_here(dask_worker: Any) -> list[str]:
    return sorted(each.identity.slug for each in dask_worker.security.enforcements.values())


def test_processes_get_the_workers_credential_alone(authority: Authority, security: LocalSecurity) -> None:
    with (
        LocalCluster(n_workers=2, processes=True, security=security, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        assert cluster.scheduler_address.startswith("tls://")
        assert client.gather(client.map(lambda x: x + 1, range(5))) == [1, 2, 3, 4, 5]
        assert set(map(tuple, client.run(roles_here).values())) == {("worker/worker", "worker/worker")}
        alice = client_security(authority.leaf(Role.CLIENT, "alice").credential, authority.document())
        with Client(cluster.scheduler_address, security=alice) as other:
            assert other.submit(sum, [1, 2]).result(timeout=20) == 3


class Shelf:
    """A store to which the test adds a document."""

    def __init__(self) -> None:
        self.signed: Confidential | None = None

    def trust_after(self, held: TrustDocument, refused: Refused) -> TrustMessage | None:  # noqa: ARG002 - the protocol's
        later = self.signed and parse_trust(self.signed).document.epoch > held.epoch
        return TrustMessage(self.signed) if self.signed and later else None

    def credential(self, held: KeyPair) -> None: ...


def believed_in(dask_worker: Any) -> tuple[int, int]:
    enforcement = dask_worker.security.enforcement(Role.WORKER)
    return os.getpid(), enforcement.trust.epoch


def test_a_revocation_reaches_every_process_also_those_that_start_later() -> None:
    authority, shelf = Authority(), Shelf()
    leaves = (authority.leaf(Role.SCHEDULER), authority.leaf(Role.WORKER), authority.leaf(Role.CLIENT, "me"))
    security = cluster_security([leaf.credential for leaf in leaves], authority.document(), source=shelf)
    bob = authority.leaf(Role.CLIENT, "bob")
    his = client_security(bob.credential, authority.document())
    with (
        LocalCluster(n_workers=1, security=security, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        poll = cluster.scheduler.periodic_callbacks[POLL]
        assert poll.is_running()
        with Client(cluster.scheduler_address, security=his, set_as_default=False) as control:
            assert control.submit(sum, [1, 2]).result(timeout=20) == 3
        authority.revoke(bob)
        document = authority.document()
        shelf.signed = authority.signed(document)
        cluster.sync(poll.callback)
        assert {each.trust.epoch for each in security.enforcements.values()} == {document.epoch}
        ((first, epoch),) = client.run(believed_in).values()  # on the stream after the document
        assert epoch == document.epoch
        client.restart(timeout=60)
        ((second, epoch),) = client.run(believed_in).values()
        assert (second != first, epoch) == (True, document.epoch)
        with pytest.raises(OSError, match="is revoked"):
            Client(cluster.scheduler_address, security=his, timeout=5)


def test_threads_and_scaling(security: LocalSecurity) -> None:
    with (
        LocalCluster(n_workers=1, processes=False, security=security, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        cluster.scale(2)
        client.wait_for_workers(2, timeout=20)
        assert client.submit(sum, [1, 2]).result(timeout=20) == 3


def test_restarting(security: LocalSecurity) -> None:
    with (
        LocalCluster(n_workers=1, security=security, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        first = client.submit(os.getpid, pure=False).result(timeout=60)
        client.restart(timeout=60)
        assert client.submit(os.getpid, pure=False).result(timeout=60) not in {first, os.getpid()}


def test_adapting_from_no_worker_at_all(security: LocalSecurity) -> None:
    with (
        LocalCluster(n_workers=0, processes=False, security=security, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        cluster.adapt(minimum=0, maximum=1, interval="100ms")
        assert client.submit(sum, [1, 2]).result(timeout=60) == 3


def test_the_page_answers_on_loopback(security: LocalSecurity) -> None:
    with LocalCluster(n_workers=1, security=security, dashboard_address="127.0.0.1:0") as cluster:
        address = urlsplit(cluster.dashboard_link)
        assert address.hostname == "127.0.0.1"
        with urllib.request.urlopen(f"http://{address.netloc}/daskpki", timeout=20) as answer:
            assert "spiffe://" in answer.read().decode()


@pytest.mark.parametrize("save", [pickle.dumps, cloudpickle.dumps])
def test_keys_are_not_pickled_for_other_hosts(security: LocalSecurity, save: Any) -> None:
    with pytest.raises(TypeError, match="goes to worker processes of this machine only"):
        save(security)


def test_every_role_is_needed(authority: Authority) -> None:
    with pytest.raises(NotFoundError, match="no credential of a worker"):
        cluster_security([authority.leaf(Role.SCHEDULER).credential], authority.document())


def test_a_stranger_is_refused(security: LocalSecurity) -> None:
    stranger = Authority()
    bob = client_security(stranger.leaf(Role.CLIENT, "bob").credential, stranger.document())
    with (
        LocalCluster(n_workers=0, security=security, dashboard_address=":0", scheduler_port=free_port()) as cluster,
        pytest.raises(OSError, match="certificate"),
    ):
        Client(cluster.scheduler_address, security=bob, timeout=5)

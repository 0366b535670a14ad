"""Revocation in a running cluster: pushed over live connections, the signature being the authority."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from daskpki.cluster import trust_updates
from daskpki.cluster.push import PushAnswer, push_trust
from daskpki.cluster.security import PkiSecurity, client_security
from daskpki.confidential import Confidential
from daskpki.credentials.verified import VerifiedCredential
from daskpki.identity import Role
from tests.support.cluster_material import Authority, stock_security
from tests.support.nodes import Cluster, cluster
from tests.support.rogue import admission, call

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def own() -> Authority:
    """An authority of its own, since documents move on in these tests."""
    return Authority()


@pytest.fixture(scope="module")
def running(own: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(own, tmp_path_factory.mktemp("revoking"), "limited", nworkers=1) as running:
        yield running


@pytest.fixture(scope="module")
def admin(own: Authority) -> PkiSecurity:
    return client_security(own.leaf(Role.CLIENT, "admin").credential, own.document())


def push(running: Cluster, admin: PkiSecurity, signed: Confidential) -> int:
    arguments = admin.get_connection_args("client")
    return asyncio.run(trust_updates.send_trust(running.address, arguments, signed))


@pytest.mark.long
def test_a_busy_client_is_cut_off(own: Authority, running: Cluster, admin: PkiSecurity) -> None:
    leaf = own.leaf(Role.CLIENT, "leaver")
    with Client(running.address, security=client_security(leaf.credential, own.document()), timeout=10) as client:
        future = client.submit(sum, [1, 2])
        assert future.result(timeout=20) == 3
        own.revoke(leaf)
        document = own.document()
        begin = time.monotonic()
        assert push(running, admin, own.signed(document)) == document.epoch
        running.scheduler.wait_for(re.compile(r'"revoked".*client/leaver'))
        assert time.monotonic() - begin < 5
        with pytest.raises(OSError, match="is revoked"):
            Client(running.address, security=client_security(leaf.credential, own.document()), timeout=5)


def test_a_revoked_worker_is_refused_everywhere(
    own: Authority, running: Cluster, admin: PkiSecurity, tmp_path: Path
) -> None:
    leaf = own.leaf(Role.WORKER, "worker")  # another of that name, since a nanny takes no other
    security = stock_security(own, leaf, tmp_path)
    places = [running.address, running.worker, running.nanny]
    assert [asyncio.run(admission(place, security)) for place in places] == ["admitted"] * 3
    own.revoke(leaf)
    epoch = push(running, admin, own.signed(own.document()))
    reloaded = re.compile(rf'"reloaded".*trust document {epoch} is in force')
    running.workers.wait_for(reloaded, 2)  # the worker, and its nanny
    assert all("is revoked" in asyncio.run(admission(place, security)) for place in places)


def test_the_cluster_works_on(own: Authority, running: Cluster, admin: PkiSecurity) -> None:
    with Client(running.address, security=admin) as client:
        before = set(client.scheduler_info(n_workers=-1)["workers"])
        push(running, admin, own.signed(own.document()))
        assert client.gather(client.map(lambda x: x + 1, range(20))) == list(range(1, 21))
        assert set(client.scheduler_info(n_workers=-1)["workers"]) == before


def test_a_client_learns_over_its_own_connection(own: Authority, running: Cluster, admin: PkiSecurity) -> None:
    security = client_security(own.leaf(Role.CLIENT, "alice").credential, own.document())
    with Client(running.address, security=security) as client:
        newest = own.document()
        push(running, admin, own.signed(newest))
        client.submit(sum, [1]).result(timeout=20)  # answered later on the same stream
        assert security.enforcement(Role.CLIENT).trust.epoch == newest.epoch


def test_a_newcomer_with_an_old_document_gets_the_new_one(own: Authority, running: Cluster, admin: PkiSecurity) -> None:
    old = own.document()
    newest = own.document()
    push(running, admin, own.signed(newest))
    security = client_security(own.leaf(Role.CLIENT, "alice").credential, old)
    with Client(running.address, security=security) as client:
        client.submit(sum, [1]).result(timeout=20)
        assert security.enforcement(Role.CLIENT).trust.epoch == newest.epoch


def test_an_older_document_changes_nothing(own: Authority, running: Cluster, admin: PkiSecurity) -> None:
    old, newest = own.document(), own.document()
    push(running, admin, own.signed(newest))
    assert push(running, admin, own.signed(old)) == newest.epoch


def test_a_forged_document_is_refused_and_said_so(own: Authority, running: Cluster, admin: PkiSecurity) -> None:
    stranger = Authority()
    forged = stranger.document()._replace(epoch=own.document().epoch + 100)
    with pytest.raises(PermissionError, match="trust document"):
        push(running, admin, stranger.signed(forged))
    signed = own.signed(own.document()).reveal()
    with pytest.raises(PermissionError, match="signature"):
        push(running, admin, Confidential(signed.replace(b"test-", b"text-", 1)))
    running.scheduler.wait_for(re.compile("refused.*a trust document"))


def test_what_an_administrators_command_is_told(
    own: Authority, running: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "distributed.daskpki.audit")
    held = VerifiedCredential(own.leaf(Role.CLIENT, "admin").credential, own.document(), own.signed(own.document()))
    newest, stranger = own.document(), Authority()
    forged = stranger.signed(stranger.document()._replace(epoch=newest.epoch + 100))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        deaf = f"tls://127.0.0.1:{silent.getsockname()[1]}"
        (unheard,) = push_trust([deaf], held, own.signed(newest), limit=0.5)
    (refused,) = push_trust([running.address], held, forged)
    (taken,) = push_trust([running.address], held, own.signed(newest))
    assert (refused.epoch, refused.refused) == (None, True)
    assert "trust document" in refused.reason
    assert taken == PushAnswer(running.address, newest.epoch, taken=True)
    assert unheard == PushAnswer(deaf, None, "no answer within 0.5 s")
    assert caplog.text == "", "the command's answers stand alone on the terminal"


def test_a_worker_brings_no_document_to_the_scheduler(own: Authority, running: Cluster, tmp_path: Path) -> None:
    security = stock_security(own, own.leaf(Role.WORKER), tmp_path)
    signed = own.signed(own.document()).reveal()
    reply = asyncio.run(call(running.address, security, op="daskpki-trust", signed=signed))
    assert isinstance(reply, PermissionError)

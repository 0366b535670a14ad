"""Revocation and a whole rollover by the real commands, on a real store and nodes that the entrypoint booted."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import dask
import pytest
from cryptography import x509
from distributed import Client, Future

import daskpki
from daskpki.cli.demo import Node, Stage
from daskpki.cluster.security import PkiSecurity, client_security
from daskpki.credentials.source_selection import Wanted
from daskpki.credentials.sources import obtain, this_process
from tests.support.ports import free_port

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

CERTIFICATES = "scheduler,worker,client/alice,client/bob,client/carol,client/admin"
LOCAL = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0", "--no-dashboard")
BATCH = 250
THOUSANDS = 3000


@dataclass
class Site:
    """A cluster of one scheduler and two workers with a nanny each, and the store behind it."""

    stage: Stage
    scheduler: Node
    workers: Node
    address: str
    nannies: tuple[str, ...]

    def client(self, name: str) -> Client:
        """Connected with that client's newest credential."""
        return Client(self.address, security=self.security(name), timeout=20, set_as_default=False)

    def security(self, name: str) -> PkiSecurity:
        return daskpki.security(name, store="local:")

    def run(self, *arguments: str, **environ: str) -> str:
        """A command that succeeds, as whoever has the credential of client/admin in a directory; what it hints."""
        return run(arguments, self.stage.environ | self.operator | environ)

    @property
    def operator(self) -> dict[str, str]:
        return {"DASKPKI_CREDENTIAL_DIR": str(self.stage.home / "admin"), "DASKPKI_SCHEDULER": self.address}

    def renew_operator(self) -> None:
        self.run("export", "client/admin", "--out", str(self.stage.home / "admin"), "--force")


def run(arguments: tuple[str, ...], environ: Mapping[str, str]) -> str:
    command = [sys.executable, "-m", "daskpki", *arguments]
    done = subprocess.run(command, env=dict(environ), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Stage() as stage:
        stage.run("init-ca", "--with", CERTIFICATES)
        stage.run("export", "client/admin", "--out", str(stage.home / "admin"))
        scheduler = stage.start("scheduler", "scheduler", "--poll", "1", "--", *LOCAL, "--port", "0")
        address = scheduler.wait_for(r"Scheduler at:\s+(tls://\S+)")
        sizes = ("--num-workers", "2", "--threads-per-worker", "2")
        workers = stage.start("worker", "worker", "--poll", "1", "--scheduler", address, *sizes, "--", *LOCAL)
        nannies = tuple(workers.wait_for(r"Start Nanny at: '(tls://\S+)'") for _nanny in range(2))
        for _worker in range(2):
            workers.wait_for(r"(Registered) to:\s+tls://\S+")
        yield Site(stage, scheduler, workers, address, nannies)


@pytest.fixture(autouse=True)
def _own_store(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DASKPKI_HOME", "DASKPKI_KEY_FILE"):
        monkeypatch.setenv(name, site.stage.environ[name])


# --- revocation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("alice", (), r"tls://\S+: updated to trust epoch \d+; it forwards it to its workers"),
        ("bob", ("--no-push",), r"\Anodes fetch it within a minute\Z"),
    ],
    ids=["pushed", "polled"],
)
def test_a_connected_client_is_cut_off(site: Site, name: str, options: tuple[str, ...], said: str) -> None:
    security = site.security(name)
    with Client(site.address, security=security, timeout=20, set_as_default=False) as client:
        assert client.submit(sum, [1, 2]).result(timeout=20) == 3
        assert re.search(said, site.run("revoke", f"client/{name}", *options).strip())
        site.scheduler.wait_for(rf'"(revoked)".*client/{name}"')
    with pytest.raises(OSError, match="is revoked"):
        Client(site.address, security=security, timeout=10, set_as_default=False)


def test_nobody_has_to_answer(site: Site) -> None:
    address = f"tls://127.0.0.1:{free_port()}"
    impatient = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "500ms"}
    said = site.run("revoke", "client/alice", "--scheduler", address, **impatient)
    assert re.search(rf"{address} was not notified \(.+\); nodes fetch it within a minute", said)


def test_whoever_is_nobody_here_is_told_how_long_it_takes(site: Site) -> None:
    said = site.run("revoke", "client/alice", DASKPKI_CREDENTIAL_DIR="")
    assert "nodes fetch it within a minute (no scheduler was notified: nobody is logged in here)" in said


def test_a_node_from_a_directory_goes_by_what_is_put_there(site: Site) -> None:
    directory = str(site.stage.home / "spare")
    site.run("issue", "scheduler", "--name", "spare")
    site.run("export", "scheduler/spare", "--out", directory)
    node = site.stage.start(
        "scheduler", "spare", "--credential-dir", directory, "--poll", "1", "--", *LOCAL, "--port", "0"
    )
    node.wait_for(r"(Scheduler at):")
    site.run("renew", "scheduler/spare", "--no-push")
    site.run("export", "scheduler/spare", "--out", directory, "--force")
    node.wait_for(r"a newer credential is in (use)")
    assert node.end() == 0


# --- rollover ------------------------------------------------------------------------------------------------------


def work(number: int) -> int:
    """Some time on a worker, and little of this machine's: the commands are to get on beside it."""
    time.sleep(0.01)
    return number + 1


class Load(threading.Thread):
    """Keeps the cluster busy with small tasks until it is told to stop, and keeps what came of each."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self._client = client
        self._enough = threading.Event()
        self.done = 0
        self.right = 0

    def run(self) -> None:
        ahead = self._submit()
        while not self._enough.is_set() or self.done < THOUSANDS:
            following = self._submit()  # so that there is always work to do
            self._collect(ahead)
            ahead = following
        self._collect(ahead)

    def _submit(self) -> list[Future[int]]:
        return list(self._client.map(work, range(BATCH), pure=False))

    def _collect(self, futures: list[Future[int]]) -> None:
        self.right += sum(
            result == number + 1 for number, result in enumerate(self._client.gather(futures, errors="raise"))
        )
        self.done += len(futures)

    def stop(self) -> None:
        self._enough.set()
        self.join(120)
        assert not self.is_alive()


@pytest.mark.long
def test_a_rollover_of_the_ca_under_load(site: Site) -> None:
    """Thousands of tasks, no process restarted, none lost; then the old CA's certificates open nothing any more."""
    once = obtain(Wanted(name="carol", store="local:"), this_process()).verified
    old_carol = client_security(once.credential, once.trust)
    with of_one_connection(), Client(site.address, security=old_carol, timeout=20, set_as_default=False) as carol:
        before = processes(carol)
        load = Load(carol)
        load.start()
        try:
            site.run("rotate-ca", "start")
            site.workers.wait_for(r"trust document \d+ is (in force)")
            site.run("rotate-ca", "promote")
            everyone = (site.address, *site.nannies, *before)
            for node, times in ((site.scheduler, 1), (site.workers, 3)):  # two workers, and their nannies' process
                for _time in range(times):
                    node.wait_for(r"a newer credential is in (use)")
            assert {issuer_at(address) for address in everyone} == {"daskpki CA 2"}
            site.renew_operator()
            assert re.search("updated to trust epoch", site.run("rotate-ca", "finish"))
        finally:
            load.stop()
        assert load.right == load.done >= THOUSANDS
        assert processes(carol) == before
        assert site.scheduler.process.poll() is site.workers.process.poll() is None

        with pytest.raises(OSError, match=r"certificate|closed|verify"):
            Client(site.address, security=old_carol, timeout=5, set_as_default=False)
        with site.client("carol") as renewed:
            assert renewed.submit(sum, [1, 2]).result(timeout=20) == 3
            assert carol.submit(sum, [3, 4]).result(timeout=20) == 7  # her old connection lives on

            _address, victim = next(iter(before.items()))
            os.kill(victim, signal.SIGKILL)
            site.workers.wait_for(r"(Registered) to:\s+tls://\S+")
            after = processes(renewed)
            assert len(after) == 2
            assert victim not in after.values()
            assert {issuer_at(address) for address in after} == {"daskpki CA 2"}


def of_one_connection() -> AbstractContextManager[object]:
    """For a client that asks for one thing at a time, and for nothing by itself, which would take a second connection.

    Who has not renewed in time keeps what is open, and cannot open more.
    """
    return dask.config.set({"distributed.client.scheduler-info-interval": "1h"})


def processes(client: Client) -> dict[str, int]:
    """The workers' process ids, by address."""
    return dict(client.run(os.getpid))


def issuer_at(address: str) -> str:
    """Whose certificate a server shows to anybody who comes."""
    host, port = address.removeprefix("tls://").rsplit(":", 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((host, int(port)), timeout=10) as plain, context.wrap_socket(plain) as wrapped:
        shown = wrapped.getpeercert(binary_form=True)
    assert shown is not None
    names = x509.load_der_x509_certificate(shown).issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value)


@pytest.mark.long
def test_after_an_emergency_the_scheduler_goes_on_and_workers_that_start_again_join_it(site: Site) -> None:
    """The last one here: the workers lose their scheduler."""
    site.run("rotate-ca", "--emergency")
    site.scheduler.wait_for(r"its CA is not (trusted) any more")
    site.scheduler.wait_for(r"a newer credential is in (use)")
    site.stage.start("worker", "worker", "--scheduler", site.address, "--", *LOCAL).wait_for(r"(Registered) to:")
    with site.client("carol") as carol:
        assert carol.submit(sum, [1, 2]).result(timeout=20) == 3

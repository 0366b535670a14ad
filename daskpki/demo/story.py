"""The steps of the demo and their checks, and the attackers, who connect by plain TLS."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

from daskpki.cluster.tls import key_pair, load_key_pair
from daskpki.credentials.contexts import split_scheduler
from daskpki.credentials.fetch import fetch_credential
from daskpki.credentials.verified import Pins, VerifiedCredential
from daskpki.demo.stage import Stage
from daskpki.errors import DaskpkiError
from daskpki.identity import Role
from daskpki.settings import DEFAULT_CLUSTER, store_url

_LIMIT: Final = 10.0


def _context(anchors: Sequence[bytes]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # a stranger is not choosy
    context.load_verify_locations(cadata=b"".join(anchors))
    return context


def _refusal(address: str, context: ssl.SSLContext) -> str:
    """Connect, and return the reason of the refusal; DaskpkiError if there is none.

    In TLS 1.3 the client learns of it only when it reads after the handshake (RFC 8446, 4.4.2.4).
    """
    try:
        with (
            socket.create_connection(split_scheduler(address), _LIMIT) as plain,
            context.wrap_socket(plain) as secured,
        ):
            secured.recv(1)
    except ssl.SSLError as error:
        return str(error.reason).lower().replace("_", " ")
    except OSError as error:
        return f"connection closed ({error})"
    raise DaskpkiError(f"{address} let a stranger in")


class Impostor:
    """A listener that shows a client's certificate where a scheduler is expected."""

    def __init__(self, alice: VerifiedCredential) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_key_pair(context, key_pair(alice.credential))
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"tls://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:  # closed: the demo is over
                return
            try:
                with self._context.wrap_socket(plain, server_side=True) as secured:
                    secured.recv(1)
            except OSError:  # the caller hung up, as it should
                continue

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


Tell = Callable[[str], None]

_OTHERS: Final = "elsewhere"
_ALICE: Final = "daskpki.demo.alice"
_AS_ALICE: Final = {"DASKPKI_SOURCE": "store", "DASKPKI_STORE": "local:", "DASKPKI_NAME": "alice"}

_NEXT: Final = """Next, a cluster that stays:
  $ export DASKPKI_KEY_FILE=$HOME/daskpki.key
  $ daskpki init-ca --with scheduler,worker,client/alice
  $ daskpki-entrypoint node"""


def tell_story(tell: Tell) -> None:
    """Run the demo; raises DaskpkiError at the first check that fails."""
    began = time.monotonic()
    with Stage() as stage:
        tell("In a temporary home directory, a CA and certificates for a scheduler, two workers and alice:\n")
        command = ("init-ca", "--with", "scheduler,worker/w-0,worker/w-1,client/alice")
        tell(f"  $ daskpki {' '.join(command)}")
        for line in stage.run(*command):
            tell(f"    {line}")
        address = _start_cluster(stage, tell)
        tell("\nAlice connects with her own certificate, and computes:\n")
        for line in stage.run(address, module=_ALICE, **_AS_ALICE):
            tell(f"    {line}")
        _turn_away_strangers(stage, tell, address)
        tell("\nThe processes are ended, and the directory with all keys is removed.")
    tell(f"All checks passed, in {time.monotonic() - began:.0f} seconds.")
    tell(_NEXT)


def _start_cluster(stage: Stage, tell: Tell) -> str:
    tell("\nEach machine's entrypoint fetches its own credential into memory, checks it, and becomes Dask:\n")
    tell("  $ daskpki-entrypoint scheduler")
    options = ("--", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")
    scheduler = stage.start("scheduler", "scheduler", *options)
    address = scheduler.wait_for(r"Scheduler at:\s+(tls://\S+)")
    tell(f"    Scheduler at {address}")
    one_thread = ("--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard")
    workers = {name: stage.start("worker", name, "--scheduler", address, "--", *one_thread) for name in ("w-0", "w-1")}
    for name, worker in workers.items():
        tell(f"  $ DASKPKI_NAME={name} daskpki-entrypoint worker --scheduler {address}")
        started = worker.wait_for(r"Start worker at:\s+(tls://\S+)")
        tell(f"    Worker at {started}")
    return address


def _turn_away_strangers(stage: Stage, tell: Tell, address: str) -> None:
    tell("\nThree strangers knock:\n")
    stage.run("--cluster", _OTHERS, "init-ca", "--with", "client/mallory")
    alice, mallory = _credential(stage, DEFAULT_CLUSTER, "alice"), _credential(stage, _OTHERS, "mallory")
    anchors = alice.trust.roots
    of_another_ca = _context(anchors)
    load_key_pair(of_another_ca, key_pair(mallory.credential))
    tell(f"  no certificate                      refused: {_refusal(address, _context(anchors))}")
    tell(f"  a certificate of another CA         refused: {_refusal(address, of_another_ca)}")
    tell(f"  a client that poses as a scheduler  refused: {_impostor(stage, alice)}")


def _credential(stage: Stage, cluster: str, name: str) -> VerifiedCredential:
    from daskpki.store.opening import open_store

    with closing(open_store(store_url(stage.environ), environ=stage.environ)) as store:
        return fetch_credential(store, cluster, Role.CLIENT, name, pins=Pins(), now=datetime.now(UTC))


def _impostor(stage: Stage, alice: VerifiedCredential) -> str:
    """Run Alice's program against an address where a client's certificate answers."""
    impostor = Impostor(alice)
    try:
        stage.run(impostor.address, module=_ALICE, **_AS_ALICE)
    except DaskpkiError as error:
        return str(error).splitlines()[-1].rpartition("Error: ")[2]
    finally:
        impostor.close()
    raise DaskpkiError("a client's certificate was taken for a scheduler's")

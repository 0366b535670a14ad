"""The steps of the demo and their checks."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from daskpki.credentials.fetch import fetch_credential
from daskpki.credentials.verified import Pins, VerifiedCredential
from daskpki.demo import strangers
from daskpki.demo.stage import Node, Stage
from daskpki.errors import DaskpkiError
from daskpki.identity import Role
from daskpki.settings import DEFAULT_CLUSTER, store_url

Tell = Callable[[str], None]

_OTHERS: Final = "elsewhere"
_AS_ALICE: Final = {"DASKPKI_SOURCE": "store", "DASKPKI_STORE": "local:", "DASKPKI_NAME": "alice"}


def tell_story(tell: Tell) -> None:
    """Run the demo; raises DaskpkiError at the first check that fails."""
    began = time.monotonic()
    with Stage() as stage:
        tell("In a temporary home directory, a CA and certificates for a scheduler, two workers and alice:\n")
        _command(stage, tell, "init-ca", "--with", "scheduler,worker/w-0,worker/w-1,client/alice")
        address = _start_cluster(stage, tell)
        _compute(stage, tell, address)
        _turn_away_strangers(stage, tell, address)
        tell("\nThe processes are ended, and the directory with all keys is removed.")
    tell(f"All checks passed, in {time.monotonic() - began:.0f} seconds.")
    tell("Next: daskpki init-ca --with scheduler,worker,client/alice")


def _command(stage: Stage, tell: Tell, *arguments: str) -> None:
    tell(f"  $ daskpki {' '.join(arguments)}")
    for line in stage.run(*arguments):
        tell(f"    {line}")


def _start_cluster(stage: Stage, tell: Tell) -> str:
    tell("\nEach machine's entrypoint fetches its own credential into memory, checks it, and becomes Dask:\n")
    tell("  $ daskpki-entrypoint scheduler")
    options = ("--", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")
    scheduler = stage.start("scheduler", "scheduler", *options)
    address = scheduler.wait_for(r"Scheduler at:\s+(tls://\S+)")
    tell(f"    Scheduler at {address}")
    workers = {name: _start_worker(stage, name, address) for name in ("w-0", "w-1")}
    for name, worker in workers.items():
        tell(f"  $ DASKPKI_NAME={name} daskpki-entrypoint worker --scheduler {address}")
        started = worker.wait_for(r"Start worker at:\s+(tls://\S+)")
        tell(f"    Worker at {started}")
    return address


def _start_worker(stage: Stage, name: str, address: str) -> Node:
    options = ("--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard")
    return stage.start("worker", name, "--scheduler", address, "--", *options)


def _compute(stage: Stage, tell: Tell, address: str) -> None:
    tell("\nAlice connects with her own certificate, and computes:\n")
    for line in stage.run_module("daskpki.demo.alice", address, **_AS_ALICE):
        tell(f"    {line}")


def _turn_away_strangers(stage: Stage, tell: Tell, address: str) -> None:
    tell("\nThree strangers knock:\n")
    stage.run("--cluster", _OTHERS, "init-ca", "--with", "client/mallory")
    alice, mallory = _credential(stage, DEFAULT_CLUSTER, "alice"), _credential(stage, _OTHERS, "mallory")
    anchors = alice.trust.roots
    tell(f"  no certificate                      refused: {strangers.without_certificate(address, anchors)}")
    tell(f"  a certificate of another CA         refused: {strangers.of_another_ca(address, anchors, mallory)}")
    tell(f"  a client that poses as a scheduler  refused: {_impostor(stage, alice)}")


def _credential(stage: Stage, cluster: str, name: str) -> VerifiedCredential:
    from daskpki.store.opening import open_store

    store = open_store(store_url(stage.environ), environ=stage.environ)
    try:
        now = datetime.now(UTC)
        return fetch_credential(store.secrets, cluster, Role.CLIENT, name, pins=Pins(), now=now)
    finally:
        store.close()


def _impostor(stage: Stage, alice: VerifiedCredential) -> str:
    """Alice's own program, sent to an address where a client's certificate answers."""
    impostor = strangers.Impostor(alice)
    try:
        stage.run_module("daskpki.demo.alice", impostor.address, **_AS_ALICE)
    except DaskpkiError as error:
        return str(error).splitlines()[-1].rpartition("Error: ")[2]
    finally:
        impostor.close()
    raise DaskpkiError("a client's certificate was taken for a scheduler's")

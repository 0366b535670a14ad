"""The sources other than the keyring: a directory, the store, and what the entrypoint hands down."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from daskpki import secret_names
from daskpki.credentials.credential_files import export_directory
from daskpki.credentials.source_selection import CredentialSource, Wanted
from daskpki.credentials.sources import Environment, obtain
from daskpki.errors import (
    NotTrustedError,
    UsageError,
)
from daskpki.handover import Handover, encode_handover
from daskpki.identity import Role
from daskpki.pki.certificates import load_certificate
from daskpki.pki.crl import Revocation, crl_part, sign_crl
from daskpki.pki.pem import fingerprint
from daskpki.pki.trust import sign_trust
from daskpki.store.local.store import LocalStore
from tests.support.login_material import Founded, add
from tests.support.schedulers import scheduler


def test_somebody_elses_credential_is_an_error_and_no_reason_to_look_elsewhere(mounted: Environment) -> None:
    with pytest.raises(
        UsageError, match=r"'bob' was asked for, and the credential in use is .*client/alice\nhint: it was chosen"
    ) as refusal:
        obtain(Wanted(name="bob"), mounted)
    assert "DASKPKI_CREDENTIAL_DIR" in str(refusal.value.hint)
    with pytest.raises(UsageError, match="the cluster 'prod' was asked for"):
        obtain(Wanted(cluster="prod"), mounted)


def test_the_choice_tells_what_was_passed_over(mounted: Environment) -> None:
    environ = {**mounted.environ, "DASKPKI_SOURCE": "store"}
    verified, choice, _, _ = obtain(Wanted(), mounted._replace(environ=environ))
    assert verified.credential.identity.uri == "spiffe://default.daskpki.internal/client/alice"
    assert choice.source is CredentialSource.DIRECTORY
    assert choice.passed_over == ("DASKPKI_SOURCE is store",)


def _stored(here: Environment, store: LocalStore, **more: str) -> Environment:
    settings = {"DASKPKI_SOURCE": "store", "DASKPKI_STORE": store.url, "DASKPKI_NAME": "alice"}
    return here._replace(environ={**here.environ, **settings, **more})


def test_the_store_is_a_source(founded: Founded, store: LocalStore, here: Environment) -> None:
    verified, choice, _, _ = obtain(Wanted(), _stored(here, store))
    assert verified.credential.identity.uri == f"spiffe://{founded.trust_domain}/client/alice"
    assert choice.source is CredentialSource.STORE
    explicit = obtain(Wanted(name="alice", store=store.url), here)
    assert explicit.verified == verified
    assert explicit.choice.why == f"the store {store.url} was asked for"


def test_pins_hold_for_the_store(founded: Founded, store: LocalStore, here: Environment) -> None:
    pin = fingerprint(founded.hold(founded.issue(Role.CLIENT, "x")).trust.roots[0])
    obtain(Wanted(), _stored(here, store, DASKPKI_CA_SHA256=pin, DASKPKI_MIN_EPOCH="1"))
    with pytest.raises(NotTrustedError, match="below the required 2"):
        obtain(Wanted(), _stored(here, store, DASKPKI_MIN_EPOCH="2"))
    with pytest.raises(NotTrustedError, match="not signed by the pinned CA"):
        obtain(Wanted(), _stored(here, store, DASKPKI_CA_SHA256="ab" * 32))
    with pytest.raises(UsageError, match="DASKPKI_MIN_EPOCH=x is not a number"):
        obtain(Wanted(), _stored(here, store, DASKPKI_MIN_EPOCH="x"))


def test_the_store_needs_a_name(store: LocalStore, here: Environment) -> None:
    with pytest.raises(UsageError, match="needs a name"):
        obtain(Wanted(), _stored(here, store, DASKPKI_NAME=""))


def test_a_revocation_is_followed_in_every_source(founded: Founded, store: LocalStore, here: Environment) -> None:
    """From the store, and from a directory."""
    credential = founded.issue(Role.CLIENT, "rob")
    founded.store(store.secrets, credential)
    rob = obtain(Wanted(name="rob"), _stored(here, store)).verified
    directory = Path(here.environ["HOME"]) / "rob"
    export_directory(rob, directory)
    serial = load_certificate(credential.leaf).serial_number
    at = int(founded.now.timestamp())
    crl = sign_crl(founded.issuer, [Revocation(serial, at, "superseded")], number=9, now=founded.now)
    document = founded.document()._replace(crls=(crl_part(1, crl),))
    signed = sign_trust(document, [founded.issuer])
    add(store.secrets, secret_names.trust_id("default"), signed, secret_names.labels("default", secret_names.TRUST))
    with pytest.raises(NotTrustedError, match="client/rob is revoked"):
        obtain(Wanted(name="rob"), _stored(here, store))
    (directory / "trust.json").write_bytes(signed.reveal())
    mounted = here._replace(environ={**here.environ, "DASKPKI_CREDENTIAL_DIR": str(directory)})
    with pytest.raises(NotTrustedError, match="client/rob is revoked"):
        obtain(Wanted(), mounted)


HANDED_DOWN = """
import sys
from dask.distributed import Client
import dask.config
dask.config.set({"distributed.client.security-loader": "daskpki.loader.security_loader"})
with Client(sys.argv[1], timeout=20) as client:
    print(client.scheduler_info()["type"], "connected")
"""


@pytest.mark.cluster
def test_what_the_entrypoint_hands_down_is_a_source(tmp_path: Path) -> None:
    """As a task on a worker sees it: `Client(address)` with nothing else."""
    cluster = Founded()
    for role in (Role.SCHEDULER, Role.WORKER):
        export_directory(cluster.hold(cluster.issue(role, role.value)), tmp_path / role.value)
    directory = tmp_path / "worker"
    handover = Handover(
        cluster="default",
        trust_domain=cluster.trust_domain,
        role="worker",
        name="worker",
        cert=str(directory / "cert.pem"),
        key=str(directory / "key.pem"),
        ca=str(directory / "ca.pem"),
        trust=str(directory / "trust.json"),
        worker_clients="limited",
        dashboard="loopback",
        tls_min="1.3",
    )
    (tmp_path / "handover.json").write_bytes(encode_handover(handover))
    environ = {**os.environ, "DASKPKI_HANDOVER": str(tmp_path / "handover.json")}
    with scheduler(tmp_path / "scheduler") as address:
        command = [sys.executable, "-c", HANDED_DOWN, address]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "Scheduler connected\n", done.stderr

"""Each command once on the command line, on a cluster whose log and trust document a forger added versions to."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from daskpki import open_store
from daskpki.identity import Identity, Role
from daskpki.pki.csr import create_request, request_pem
from daskpki.pki.keys import KeyType, generate_key
from tests.support import forging
from tests.support.command_stores import CLOUD
from tests.support.nightly import sample
from tests.support.running import Run

COMMANDS = [
    ("issue", "client", "--name", "eve"),
    ("list", "--json"),
    ("status",),
    ("show", "worker/b", "--json"),
    ("verify", "b.pem"),
    ("renew", "--due"),
    ("renew", "worker/b"),
    ("revoke", "worker/b"),
    ("revoke", "worker/held", "--release"),
    ("crl", "--json"),
    ("sign", "alice.csr"),
    ("rotate-ca", "status"),
    ("rotate-ca", "start"),
    ("rotate-ca", "--emergency"),
    ("export", "worker/b", "--out", "exported"),
    ("secret", "set", "db", "--file", "password"),
    ("audit", "--verify"),
    ("report", "--html", "report.html"),
    ("copy", "--to", "local:{}/copy", "--key-file", "{}/copy.key"),
    ("doctor", "--json"),
    ("grant", "worker/b", "--to", "serviceAccount:w@my-project.iam.gserviceaccount.com"),
    ("export", "client/carol", "--out", "carol"),
]


@pytest.fixture
def forged(cloud: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A cluster with a revoked worker, one on hold and one more, and with versions that only a forger signed."""
    monkeypatch.chdir(tmp_path)
    cloud("init-ca", "--with", "worker/a,worker/b,worker/held,client/carol")
    cloud("revoke", "worker/a", "--reason", "keyCompromise")
    cloud("revoke", "worker/held", "--reason", "certificateHold")
    cloud("export", "worker/b", "--out", "b")
    Path("b.pem").write_bytes(Path("b/cert.pem").read_bytes())
    Path("password").write_text("x")
    alice = Identity("default.daskpki.internal", Role.CLIENT, "alice")
    Path("alice.csr").write_text(request_pem(create_request(generate_key(KeyType.P256), "default", alice)))
    serial = int(cloud("show", "worker/a", "--json").json()["serial"], 16)
    with closing(open_store(CLOUD)) as store:
        for attack in ("a CA", "a release", "a publication"):
            forging.append(store.secrets, forging.drafts_of(attack, serial))
        mallory = forging.own_ca(1)
        store.secrets.add(forging.TRUST, forging.own_trust(store.secrets, mallory, epoch=forging.GREATEST))
    return cloud


@pytest.mark.parametrize("command", sample(COMMANDS, one_of=2), ids=" ".join)
def test_a_command_is_neither_misled_nor_stopped(forged: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    said = forged(*(word.format(tmp_path) for word in command))
    assert "mallory" not in said.out
    assert forged("show", "worker/a", "--json").json()["state"] == "revoked"
    assert max(leaf["issuer"] for leaf in forged("list", "--json").json()) <= 2
    assert "mallory" not in forged("audit", "--json").out
    forged("audit", "--verify")

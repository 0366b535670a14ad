"""The CRL of an offline root: made with it, signed anew by its file, published, judged by OpenSSL and pkilint."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daskpki.authority.ca import CertificateAuthority
from daskpki.authority.ca_keys import OfflineRoot
from daskpki.authority.creation import plan_ca
from daskpki.authority.crl import root_running_out
from daskpki.confidential import Confidential
from daskpki.doctor.checks import check_root_crls
from daskpki.errors import NotTrustedError
from daskpki.pki.crl import Revocation, sign_crl
from daskpki.pki.issuer import Issuer, create_offline_root
from daskpki.pki.keys import KeyType, generate_key
from daskpki.pki.trust import sign_trust, verify_trust
from daskpki.pki.trust_document import TrustDocument, parse_trust
from tests.support.clocks import Clock
from tests.support.judges import lint_crl
from tests.support.local_places import LocalPlace
from tests.support.running import Run


def passphrase(tmp_path: Path) -> Sequence[str]:
    file = tmp_path / "root.passphrase"
    if not file.exists():
        file.touch(0o600)
        file.write_text("of the root\n")
    return ("--root-passphrase-file", str(file))


def check_all(directory: Path, crls: Path) -> str:
    """OpenSSL's verdict on an exported credential, every certificate of its chain held against a CRL."""
    ca, credential = directory / "ca.pem", directory / "cert.pem"
    command: list[str | Path] = ["openssl", "verify", "-x509_strict", "-crl_check_all", "-CRLfile", crls]
    command += ["-CAfile", ca, "-untrusted", credential, credential]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_two_tiers_have_two_crls_that_openssl_wants_both(local: Run, tmp_path: Path) -> None:
    root, alice, crls = str(tmp_path / "root.key"), tmp_path / "alice", tmp_path / "crls.pem"
    local("init-ca", "--with", "client/alice", "--offline-root", root, *passphrase(tmp_path))
    local("export", "client/alice", "--out", str(alice))
    shown = local("crl", "--json").json()
    assert [(one["state"], one["number"]) for one in shown] == [("active", 1), ("offline root", 1)]
    local("crl", "--out", str(crls))
    assert check_all(alice, crls).endswith("cert.pem: OK\n")
    first = crls.read_text().partition("-----END X509 CRL-----\n")[0]
    alone = tmp_path / "alone.pem"
    alone.write_text(f"{first}-----END X509 CRL-----\n")
    assert "unable to get certificate CRL" in check_all(alice, alone), "the control"
    signed = local("crl", "--offline-root", root, *passphrase(tmp_path), "--json")
    assert "signed the CRL of CA 1 (offline root)\n" in signed.err
    again = signed.json()
    assert [(one["state"], one["number"]) for one in again] == [("active", 1), ("offline root", 2)]
    lasts = datetime.fromisoformat(again[1]["nextUpdate"]) - datetime.fromisoformat(again[1]["thisUpdate"])
    assert lasts == timedelta(days=365)
    assert "offline root" in local("crl").out
    local("audit", "--verify")
    local("crl", "--revoke-intermediate", code=2)


@pytest.mark.parametrize(
    ("options", "code", "names"),
    [
        (("--out", "{tmp}/taken"), 1, "taken exists"),
        (("--out", "{tmp}/missing/crl.pem"), 4, "missing/crl.pem does not exist"),
        (("--out", "{tmp}/crl.der", "--der"), 2, "openssl crl -outform DER"),
        (("--generation", "7"), 4, "CAs are 1"),
    ],
)
def test_nothing_is_signed_that_could_not_be_handed_out(
    local: Run, tmp_path: Path, options: tuple[str, ...], code: int, names: str
) -> None:
    root = str(tmp_path / "root.key")
    local("init-ca", "--offline-root", root, *passphrase(tmp_path))
    (tmp_path / "taken").touch()
    asked = [option.replace("{tmp}", str(tmp_path)) for option in options]
    if "--der" in asked:
        asked += ["--generation", "1"]
    refused = local("crl", "--offline-root", root, *passphrase(tmp_path), *asked, code=code).err
    assert names in refused
    assert [one["number"] for one in local("crl", "--json").json()] == [1, 1]
    local("crl", "--offline-root", root, *passphrase(tmp_path), "--out", str(tmp_path / "free"))
    assert [one["number"] for one in local("crl", "--json").json()] == [1, 2], "control"


def test_an_intermediate_is_revoked_once_it_was_replaced(local: Run, tmp_path: Path) -> None:
    old, new, alice, crls = str(tmp_path / "old"), str(tmp_path / "new"), tmp_path / "alice", tmp_path / "crls.pem"
    local("init-ca", "--with", "client/alice", "--offline-root", old, *passphrase(tmp_path))
    local("export", "client/alice", "--out", str(alice))
    local("crl", "--out", str(crls))
    revoke = ("crl", "--offline-root", old, *passphrase(tmp_path), "--revoke-intermediate")
    assert "is still trusted" in local(*revoke, code=3).err
    local("rotate-ca", "--emergency", "--offline-root", new, *passphrase(tmp_path))
    issuing = crls.read_text().split("-----END X509 CRL-----\n", 1)[0] + "-----END X509 CRL-----\n"
    assert "of CA 1 (offline root, no longer trusted)" in local(*revoke[:-1]).err, "not the root of the CA in use"
    alone = tmp_path / "gone.crl"
    local(*revoke, "--generation", "1", "--der", "--out", str(alone))
    assert alone.read_bytes()[0] == 0x30, "DER of one list, which came with this command"
    told = local(*revoke, "--json").json()
    (gone,) = [one for one in told if one["state"] == "offline root, no longer trusted"]
    assert [revoked["reason"] for revoked in gone["revoked"]] == ["cACompromise"]
    said = local("crl", "--pem", "--generation", "1").out
    crls.write_text(issuing + said)
    assert "certificate revoked" in check_all(alice, crls)
    other = tmp_path / "other"
    local("init-ca", "--cluster", "other", "--offline-root", str(other), *passphrase(tmp_path))
    assert local("crl", "--offline-root", str(other), *passphrase(tmp_path), code=3).err, "sealed for another cluster"


@pytest.fixture
def ca(tmp_path: Path) -> CertificateAuthority:
    authority = CertificateAuthority(LocalPlace(tmp_path).create(), clock=Clock())
    authority.init(plan_ca("default", offline_root=root_file(tmp_path)))
    return authority


def root_file(tmp_path: Path) -> OfflineRoot:
    return OfflineRoot(tmp_path / "root.key", "default", lambda _new: Confidential("of the root"))


def judged(ca: CertificateAuthority, document: TrustDocument, previous: TrustDocument | None = None) -> None:
    signed = parse_trust(sign_trust(document, [ca.issuer()]))
    verify_trust(signed, cluster="default", previous=previous, now=ca.session.now())


def test_a_trust_document_is_refused_that_a_root_contradicts(ca: CertificateAuthority, tmp_path: Path) -> None:
    document, now = ca.trust(), ca.session.now()
    (der,) = document.root_crls
    assert lint_crl(der) == []
    key = root_file(tmp_path).open()
    issuer = ca.issuer()
    root = Issuer(issuer.root, key, generation=1, root=issuer.root)
    revoked = Revocation(issuer.certificate.serial_number, int(now.timestamp()), "cACompromise")
    newer = sign_crl(root, (), number=2, now=now)
    stranger = create_offline_root("default", generate_key(KeyType.P256), generation=1, serial=7, now=now)
    judged(ca, document)
    later = document._replace(epoch=document.epoch + 1, root_crls=(newer,))
    judged(ca, later, document)
    for crls, message in (
        ((sign_crl(root, [revoked], number=2, now=now),), "was revoked by its offline root"),
        ((sign_crl(stranger, (), number=2, now=now),), "no offline root of its CAs signed"),
        ((der, newer), "two CRLs of the root"),
    ):
        with pytest.raises(NotTrustedError, match=message):
            judged(ca, document._replace(root_crls=crls))
    for older in ((), (der,)):
        with pytest.raises(NotTrustedError, match=r"went back from number 2, or is missing"):
            judged(ca, later._replace(epoch=later.epoch + 1, root_crls=older), later)


def test_its_end_is_said_before_it_comes(ca: CertificateAuthority) -> None:
    now = ca.session.now()
    assert root_running_out(ca.inventory(), now) is None
    end = root_running_out(ca.inventory(), now + timedelta(days=300))
    assert end == int((now + timedelta(days=365)).timestamp())
    said = [
        [finding.severity.name for finding in check_root_crls(document, (now + timedelta(days=days)).timestamp())]
        for document in (ca.trust(), ca.trust()._replace(root_crls=()))
        for days in (1, 300, 366)
    ]
    assert said == [["OK"], ["WARNING"], ["WARNING"], ["WARNING"], ["WARNING"], ["WARNING"]]
    assert now.tzinfo is UTC

"""`daskpki sign` on both stores and transports, for requests that any program makes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from daskpki.pki.certificates import certificate_grades, load_certificate
from daskpki.pki.pem import parse_certificates
from daskpki.pki.profile import GRADE_OIDS, Grade
from tests.support.running import Run


def request(directory: Path, subject: str, *options: str) -> str:
    file = directory / "x.csr"
    command = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", str(directory / "x.key"), "-out", str(file), "-subj", subject, *options]
    subprocess.run(command, check=True, capture_output=True)
    return str(file)


def test_a_request_of_openssls(run: Run, tmp_path: Path) -> None:
    run("init-ca")
    csr = request(tmp_path, "/CN=Somebody")
    assert f"sign {csr} client/NAME" in run("sign", csr, code=2).err
    signed = run("sign", csr, "worker/w", "--ttl", "7d", "--out", str(tmp_path / "x.pem"), "--json").json()
    assert (signed["identity"], signed["keyType"]) == ("spiffe://default.daskpki.internal/worker/w", "csr")
    run("verify", str(tmp_path / "x.pem"))
    public = ["openssl", "pkey", "-in", str(tmp_path / "x.key"), "-pubout"]
    certified = ["openssl", "x509", "-in", str(tmp_path / "x.pem"), "-pubkey", "-noout"]
    outputs = [subprocess.run(command, capture_output=True, check=True).stdout for command in (public, certified)]
    assert outputs[0] == outputs[1]
    assert "stayed where" in run("export", "worker/w", "--out", str(tmp_path / "out"), code=2).err


def test_bulk_renewal_passes_requests_over(local: Run, tmp_path: Path) -> None:
    local("init-ca", "--with", "worker")
    local("sign", request(tmp_path, "/O=default/OU=client/CN=alice"))
    assert local("list", "--json").json()[1]["name"] == "alice"
    local("rotate-ca", "start")
    promoted = local("rotate-ca", "promote", "--json")
    assert promoted.json()["heldByOthers"] == ["client/alice"]
    assert "daskpki request" in promoted.err
    assert "client/alice" in local("rotate-ca", "finish", code=3).err
    local("sign", str(tmp_path / "x.csr"), "client/alice")
    local("rotate-ca", "finish")


def test_a_file_that_exists_is_found_before_anything_is_issued(local: Run, tmp_path: Path) -> None:
    local("init-ca")
    csr, out = request(tmp_path, "/O=default/OU=client/CN=alice"), tmp_path / "alice.login"
    out.write_text("mine")
    refused = local("sign", csr, "--out", str(out), code=1).err
    assert f"{out} exists" in refused
    assert "--force" in refused
    assert "does not exist" in local("sign", csr, "--out", str(tmp_path / "missing" / "a.login"), code=4).err
    assert local("list", "--json").json() == []
    local("sign", csr, "--out", str(out), "--force")
    assert [entry["name"] for entry in local("list", "--json").json()] == ["alice"]


def test_refusals_name_the_rule(local: Run, tmp_path: Path) -> None:
    local("init-ca", "--with", "client/alice")
    csr = request(tmp_path, "/O=default/OU=client/CN=alice")
    again = local("sign", csr, "--out", f"{tmp_path}/a b.login", "--ttl", "7d", code=3).err
    assert f"sign {csr} --out '{tmp_path}/a b.login' --ttl 7d client/alice" in again
    assert "400d" in local("sign", csr, "client/bob", "--ttl", "400d", code=3).err
    assert "does not exist" in local("sign", "/no/such.csr", code=4).err
    assert "keyring" in local("request", "worker", "--name", "w", code=3).err
    assert local("list", "--json").json()[-1]["name"] == "alice"


def test_a_request_that_asks_for_a_grade_gets_none(local: Run, tmp_path: Path) -> None:
    local("init-ca")
    grade = ("-addext", f"extendedKeyUsage=clientAuth,{GRADE_OIDS[Grade.ADMIN]}")
    csr = request(tmp_path, "/O=default/OU=client/CN=alice", *grade)
    assert (
        GRADE_OIDS[Grade.ADMIN]
        in subprocess.run(
            ["openssl", "req", "-in", csr, "-noout", "-text"], capture_output=True, text=True, check=True
        ).stdout
    )
    signed = tmp_path / "x.pem"
    local("sign", csr, "--out", str(signed))
    (leaf, *_) = parse_certificates(signed.read_bytes())
    assert certificate_grades(load_certificate(leaf)) == frozenset()
    local("issue", "client", "--name", "ops", "--grade", "admin")
    local("export", "client/ops", "--out", str(tmp_path / "ops"))
    (leaf, *_) = parse_certificates((tmp_path / "ops" / "cert.pem").read_bytes())
    assert certificate_grades(load_certificate(leaf)) == {Grade.ADMIN}

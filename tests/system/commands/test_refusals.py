"""Bad input: an error that names the value, the rule and the way out; the documented exit code; nothing changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.running import Run, runner

CASES = [
    (("issue", "client"), 2, "a client needs a name", "--name alice"),
    (("issue", "nanny"), 2, "nanny", ""),
    (("issue", "worker", "--name", "Bad_Name"), 2, "'Bad_Name'", "'bad-name' would do"),
    (("issue", "worker", "--ttl", "3 weeks"), 2, "'3 weeks'", "90d, 2w or 12h"),
    (("issue", "worker", "--ttl", "400d"), 3, "397", "BR 6.3.2"),
    (("issue", "worker", "--ttl", "1m"), 3, "under the minimum", ""),
    (("issue", "worker", "--dns", "worker.other.example"), 3, "worker.other.example", "--permit-dns"),
    (("issue", "worker", "--dns", "*.default.daskpki.internal"), 2, "wildcard", ""),
    (("issue", "worker", "--ip", "10.0.0.300"), 2, "'10.0.0.300'", "10.0.0.5"),
    (("issue", "worker", "--key-type", "rsa1024"), 2, "'rsa1024'", "p256"),
    (("issue", "worker", "--count", "0"), 2, "--count", ""),
    (("show", "client/nobody"), 4, "client/nobody", "daskpki list"),
    (("show", "not-a-serial"), 2, "'not-a-serial'", "client/alice"),
    (("list", "--state", "fresh"), 2, "'fresh'", "superseded"),
    (("list", "--expiring-in", "soon"), 2, "'soon'", ""),
    (("list", "--role", "worker", "--name", "client/alice"), 2, "contradicts --name client/alice", "leave --role"),
    (("list", "--role", "worker", "--role", "client", "--name", "client/alice"), 2, "--role contradicts", ""),
    (("list", "--ca-sha256", "ab"), 2, "'ab' is not a SHA-256 fingerprint", "64 hexadecimal digits"),
    (("issue", "worker", "--ca-sha256", ""), 2, "'' is not a SHA-256 fingerprint, which has 64", "init-ca"),
    (("issue", "worker", "--ca-sha256", "0" * 64), 3, "pinned CA", ""),
    (("verify", "/no/such/file"), 4, "/no/such/file", ""),
    (("export", "client/alice"), 2, "directory or a PKCS#12", "--out DIR"),
    (("export", "client/nobody", "--out", "/tmp/x"), 4, "client/nobody", "--name nobody; daskpki list shows which"),
    (("--cluster", "Prod", "list"), 2, "'Prod'", "'prod' would do"),
    (("--cluster", "absent", "list"), 4, "'absent'", "init-ca"),
    (("--cluster", "absent", "issue", "worker"), 4, "'absent'", "init-ca"),
    (("--store", "s3://bucket", "list"), 2, "'s3://bucket'", "gsm://PROJECT"),
    (("--store", "local:relative", "list"), 2, "'local:relative'", "local:/srv"),
    (("--store", "gsm://X", "list"), 2, "'X' is not a Google Cloud project id", "6 to 30 of a-z"),
    (
        ("--key-file", "/no/such.key", "issue", "worker"),
        5,
        "locked: the key file (--key-file, DASKPKI_KEY_FILE) does not exist",
        "name the path of the key file",
    ),
]


@pytest.mark.parametrize(
    ("arguments", "code", "names", "hint"),
    CASES,
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else None,
)
def test_a_refusal_names_value_and_way_out_and_changes_nothing(
    local: Run, arguments: tuple[str, ...], code: int, names: str, hint: str
) -> None:
    local("init-ca", "--with", "client/alice")
    before = local("list", "--json").out
    refused = local(*arguments, code=code)
    assert names in refused.err
    assert hint in refused.err
    assert "Traceback" not in refused.err
    assert local("list", "--json").out == before


def test_an_empty_variable_for_the_pin_counts_as_unset(local: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    local("init-ca")
    monkeypatch.setenv("DASKPKI_CA_SHA256", "")
    local("issue", "worker")


def test_verbose_adds_the_traceback(local: Run) -> None:
    local("init-ca")
    assert "Traceback" in local("show", "client/nobody", "--verbose", code=4).err


@pytest.mark.parametrize("domain", ["UPPER.example", "a..b", "single", "*.example.org"])
def test_init_ca_refuses_domains_that_cannot_be_constraints(local: Run, domain: str) -> None:
    refused = local("init-ca", "--permit-dns", domain, code=2)
    assert domain in refused.err
    assert local("list", code=4)


def damaged(tmp_path: Path, content: bytes) -> str:
    file = tmp_path / "damaged.pem"
    file.write_bytes(content)
    return str(file)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"\x30\x82\xff\xff" + bytes(100),
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"x" * (3 << 20),
    ],
    ids=["empty", "garbage", "torn DER", "PEM of nothing", "half a PEM", "a key", "oversized"],
)
def test_verify_survives_damaged_files(local: Run, tmp_path: Path, content: bytes) -> None:
    local("init-ca")
    path = damaged(tmp_path, content)
    from daskpki.cli.app import main

    assert main(
        ["--store", f"local:{tmp_path / 'store'}", "--key-file", str(tmp_path / "store.key"), "verify", path]
    ) in (2, 3)


def test_a_foreign_certificate_is_told_apart(local: Run, tmp_path: Path) -> None:
    local("init-ca")
    local("--cluster", "other", "init-ca", "--with", "client/mallory")
    local("--cluster", "other", "export", "client/mallory", "--out", str(tmp_path / "mallory"))
    certificate = str(tmp_path / "mallory" / "cert.pem")
    local("--cluster", "other", "verify", certificate)
    refused = local("verify", certificate, "--json", code=3)
    assert json.loads(refused.out)[0]["trusted"] is False


def test_a_store_that_others_can_read_is_refused(local: Run, tmp_path: Path) -> None:
    local("init-ca")
    local("list")
    (tmp_path / "store").chmod(0o755)
    refused = local("list", code=5)
    assert "chmod 700" in refused.err


def test_a_wrong_key_file_opens_nothing(local: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    local("init-ca")
    other = tmp_path / "other.key"
    other.touch(0o600)
    other.write_bytes(bytes(32))
    wrong = runner(capsys, "--store", f"local:{tmp_path / 'store'}", "--key-file", str(other))
    refused = wrong("issue", "worker", code=5)
    assert "unlock it with its key file (--key-file, DASKPKI_KEY_FILE)" in refused.err
    assert local("list", "--json").json() == []


def test_an_ed25519_leaf_comes_with_a_warning_that_names_who_refuses_it(local: Run) -> None:
    local("init-ca")
    warned = local("issue", "worker", "--key-type", "ed25519").err
    assert "warning: Ed25519 certificates are refused by some validators (NSS" in warned
    assert "pyca" not in warned, "it takes such leaves by now (tests/pki/test_verify_leaf.py)"
    assert "Ed25519" not in local("issue", "worker", "--name", "other").err


@pytest.mark.parametrize(
    ("option", "value", "code"),
    [("--permit-dns", "*", 2), ("--max-ttl", "soon", 2), ("--key-type", "ed25519", 3), ("--trust-domain", "UPPER", 2)],
)
def test_what_a_ca_cannot_be_is_refused_before_a_store_is_made(
    local: Run, tmp_path: Path, option: str, value: str, code: int
) -> None:
    """Such a store would open by whatever was at hand then, and not by what the next attempt names."""
    local("init-ca", option, value, code=code)
    assert not (tmp_path / "store").exists()
    local("init-ca")
    assert (tmp_path / "store").exists()


@pytest.mark.parametrize("content", [None, "{}", "no JSON"])
def test_bad_google_credentials_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "adc.json"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    told = runner(capsys, "--store", "gsm://my-project")("list", code=5).err
    assert "error: GOOGLE_APPLICATION_CREDENTIALS does not name a file with usable" in told
    assert "or unset it" in told
    assert "gcloud auth application-default login" not in told, "which would change nothing"

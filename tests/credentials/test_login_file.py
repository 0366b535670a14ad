"""A colleague who cannot read the store: request, sign, and a login by one file, by the real commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import pexpect
import pytest

from daskpki.confidential import Confidential
from daskpki.credentials.contexts import encode_context, is_login_file, load_login_file, parse_context
from daskpki.credentials.login import login_by_file, logout, logout_targets
from daskpki.credentials.os_keyring import OSKeyring
from daskpki.credentials.source_selection import Wanted
from daskpki.credentials.sources import Environment, obtain
from daskpki.errors import CorruptError, NotTrustedError, UsageError
from daskpki.identity import Role
from daskpki.loader import dial_security
from daskpki.pki.certificates import load_certificate
from daskpki.pki.crl import next_update
from daskpki.store.opening import open_store
from tests.support.desktop import Desktop
from tests.support.key_search import Canary

DASKPKI = str(Path(sys.executable).parent / "daskpki")


class Person(NamedTuple):
    """Somebody's own home on a machine of theirs; who has no desktop has no keyring either."""

    home: Path
    environ: dict[str, str]

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [DASKPKI, *arguments]
        done = subprocess.run(
            command, cwd=self.home, env=self.environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, done.stderr
        return done


def person(home: Path, desktop: Desktop | None) -> Person:
    home.mkdir(exist_ok=True)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("DASK", "XDG"))}
    environ |= {"HOME": str(home), "COLUMNS": "200", "TERM": "dumb"}
    environ |= {"DBUS_SESSION_BUS_ADDRESS": desktop.environ["DBUS_SESSION_BUS_ADDRESS"]} if desktop else {}
    return Person(home, environ)


def operator_at(home: Path) -> Person:
    made = person(home, None)
    made.environ["DASKPKI_KEY_FILE"] = str(home / "operator.key")
    return made


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Person:
    """With a local store and its CA."""
    made = operator_at(tmp_path_factory.mktemp("founded"))
    made.run("init-ca")
    return made


@pytest.fixture
def operator(founded: Person, tmp_path: Path) -> Person:
    """An operator whose home is a copy of that one, for a test that changes it."""
    shutil.copytree(founded.home, tmp_path / "operator")
    return operator_at(tmp_path / "operator")


@pytest.fixture
def dora(tmp_path: Path, session: Desktop) -> Person:
    return person(tmp_path / "dora", session)


@pytest.fixture
def here(dora: Person, keyring: OSKeyring) -> Environment:
    return Environment(dora.environ, datetime.now(UTC), keyring, open_store)


@pytest.fixture
def signed(operator: Person, dora: Person) -> Path:
    """dora.login, made for dora's waiting key."""
    dora.run("request", "client/dora", "--out", "dora.csr")
    said = operator.run("sign", str(dora.home / "dora.csr"), "--out", str(dora.home / "dora.login"))
    assert "--ca-sha256 FINGERPRINT" in said.stderr
    return dora.home / "dora.login"


def test_a_colleague_logs_in_by_one_file(operator: Person, dora: Person, signed: Path, here: Environment) -> None:
    pin = load_login_file(signed).ca_sha256
    said = dora.run("login", "dora.login", "--ca-sha256", pin, "--scheduler", "tls://10.0.0.5:8786")
    assert said.stdout == "logged in as spiffe://default.daskpki.internal/client/dora\n"
    assert "SHA-256" in said.stderr
    found = obtain(Wanted(), here)
    assert found.verified.credential.identity.name == "dora"
    assert found.schedulers == ("tls://10.0.0.5:8786",)
    key = found.verified.credential.key
    assert key is not None
    canary = Canary({"dora": key})
    assert not canary.in_files([signed.parent, operator.home])
    assert "no store" not in dora.run("whoami").stderr
    assert not (dora.home / ".local/share/daskpki/store").exists()
    assert dora.run("logout", "default/dora").stdout == "logged out default/dora\n"


def test_logout_forgets_what_programs_have_seen(
    operator: Person, dora: Person, signed: Path, here: Environment
) -> None:
    dora.run("login", "dora.login", "--ca-sha256", load_login_file(signed).ca_sha256)
    operator.run("revoke", "client/dora")
    operator.run("sign", str(dora.home / "dora.csr"), "client/dora", "--out", "later.login")
    newer = Confidential(load_login_file(operator.home / "later.login").trust)
    manager = dial_security(obtain(Wanted(), here), Wanted(), here).enforcement(Role.CLIENT).manager
    assert manager is not None
    manager.accept_trust(newer)
    kept = here.contexts.directory.parent / "trust"
    assert len(list(kept.iterdir())) == 1
    dora.run("logout", "default/dora")
    assert not kept.exists()


@pytest.mark.long
def test_it_is_renewed_by_the_same_steps(operator: Person, dora: Person, signed: Path, here: Environment) -> None:
    """The second time the CA is known, so that no fingerprint is asked for."""
    dora.run("login", "./dora.login", "--ca-sha256", load_login_file(signed).ca_sha256)
    first = obtain(Wanted(), here).verified.credential
    refusal = dora.run("login", code=2).stderr
    assert "default/dora came by a login file" in refusal
    assert "daskpki sign dora.csr client/dora --out dora.login" in refusal
    dora.run("request", "client/dora", "--out", "again.csr")
    operator.run("sign", str(dora.home / "again.csr"), "client/dora", "--out", str(dora.home / "again.login"))
    dora.run("login", "again.login")
    second = obtain(Wanted(), here).verified.credential
    assert second.leaf != first.leaf
    assert second.key != first.key
    assert len(here.contexts.all()) == 1
    dora.run("logout")


@pytest.mark.long
def test_the_doctor_of_a_colleague_misses_no_store(dora: Person, signed: Path) -> None:
    before = json.loads(dora.run("--json", "doctor", code=3).stdout)
    assert [each["severity"] for each in before if each["subject"] == "store"] == ["error"]
    dora.run("login", "./dora.login", "--ca-sha256", load_login_file(signed).ca_sha256)
    findings = json.loads(dora.run("--json", "doctor").stdout)
    (store,) = [each for each in findings if each["subject"] == "store"]
    assert (store["severity"], "init-ca" in store["remedy"]) == ("note", False)
    assert [each["severity"] for each in findings if each["subject"] == "login default/dora"] == ["ok"]
    mistyped = json.loads(dora.run("--json", "--store", "local:/mistyped", "doctor", code=3).stdout)
    assert [each["severity"] for each in mistyped if each["subject"] == "store"] == ["error"]
    dora.run("logout")


@pytest.mark.long
def test_a_colleague_is_not_told_to_make_a_store(dora: Person, signed: Path) -> None:
    dora.run("login", "./dora.login", "--ca-sha256", load_login_file(signed).ca_sha256)
    for command in ("status", "list"):
        refusal = dora.run(command, code=4).stderr
        assert "init-ca" not in refusal
        assert "daskpki whoami" in refusal
    dora.run("logout")


@pytest.mark.long
def test_the_steps_of_a_renewal_replace_the_files_of_the_last_one(
    operator: Person, dora: Person, signed: Path, here: Environment
) -> None:
    dora.run("login", "./dora.login", "--ca-sha256", load_login_file(signed).ca_sha256)
    first = obtain(Wanted(), here).verified.credential
    assert {"dora.csr", "dora.login"} <= {path.name for path in dora.home.iterdir()}
    refusal = dora.run("login", code=2).stderr
    steps = re.findall(r"daskpki ((?:request|sign|login) .*?)(?:; |$)", refusal, re.MULTILINE)
    assert [step.split()[0] for step in steps] == ["request", "sign", "login"]
    for who, step in zip((dora, operator._replace(home=dora.home), dora), steps, strict=True):
        who.run(*step.split())
    assert obtain(Wanted(), here).verified.credential.leaf != first.leaf
    dora.run("logout")


def test_a_renewal_goes_on_by_what_each_command_prints(
    operator: Person, dora: Person, signed: Path, here: Environment
) -> None:
    dora.run("login", "./dora.login", "--ca-sha256", load_login_file(signed).ca_sha256)
    first = obtain(Wanted(), here).verified.credential
    said = dora.run("request", "client/dora", "--out", "dora2.csr").stderr
    sign, login = re.findall(r"daskpki ((?:sign|login) .*?)(?: and sends|\n)", said)
    assert sign == "sign dora2.csr client/dora --out dora2.login --force"
    moved = operator._replace(home=dora.home)
    refused = moved.run(*sign.replace(" client/dora", "").split(), code=3).stderr
    (hint,) = re.findall(r"daskpki (sign .*)", refused)
    moved.run(*hint.split())
    dora.run(*login.split())
    assert obtain(Wanted(), here).verified.credential.leaf != first.leaf
    dora.run("logout")


def test_without_a_terminal_the_fingerprint_is_required(dora: Person, signed: Path) -> None:
    refusal = dora.run("login", "dora.login", code=2).stderr
    assert load_login_file(signed).ca_sha256 in refusal
    assert "hint: --ca-sha256 FINGERPRINT" in refusal
    wrong = dora.run("login", "dora.login", "--ca-sha256", "0" * 64, code=3).stderr
    assert "not signed by the pinned CA" in wrong
    assert "64 hexadecimal digits" in dora.run("login", "dora.login", "--ca-sha256", "12:34", code=2).stderr
    assert "nobody is logged in" in dora.run("whoami", code=4).stderr
    dora.run("logout")


@pytest.mark.parametrize("right", [True, False])
def test_on_a_terminal_it_is_asked_for(dora: Person, signed: Path, *, right: bool) -> None:
    pin = load_login_file(signed).ca_sha256
    spelled = ":".join(pin[at : at + 2] for at in range(0, 64, 2)).upper()
    environ = {**dora.environ, "PATH": os.environ["PATH"]}
    with pexpect.spawn(DASKPKI, ["login", "dora.login"], cwd=str(dora.home), env=environ, encoding="utf-8") as child:
        child.expect_exact("SHA-256")
        child.expect_exact("as the operator told you by another way: ", timeout=30)
        child.sendline(spelled if right else "00:" * 31 + "00")
        child.expect(pexpect.EOF, timeout=30)
        child.close()
        assert child.exitstatus == (0 if right else 3), child.before
    dora.run("logout")


def test_a_file_for_another_key_is_refused(operator: Person, dora: Person, signed: Path, here: Environment) -> None:
    """Dora's request was replaced by one with another key: the file that was signed for it does not fit hers."""
    dora.run("logout", "--all")
    dora.run("request", "client/dora", "--out", "dora.csr", "--force")
    refusal = dora.run("login", "dora.login", "--ca-sha256", load_login_file(signed).ca_sha256, code=4).stderr
    assert "the key of spiffe://default.daskpki.internal/client/dora is not in this keyring" in refusal
    assert here.contexts.all() == []
    dora.run("logout", "--all")
    assert operator.run("list", "--role", "client").stdout.count("client/dora") == 1


def test_the_revocation_list_outlasts_the_certificate(operator: Person, dora: Person) -> None:
    """It is signed anew for the file where the present one would end first."""
    dora.run("request", "client/dora", "--out", "dora.csr")
    ten_days = (datetime.now(UTC) + timedelta(days=10)).strftime("%Y-%m-%d %H:%M:%S")
    command = ["faketime", ten_days, DASKPKI, "sign", str(dora.home / "dora.csr"), "--out", str(dora.home / "d.login")]
    subprocess.run(command, env=operator.environ, check=True, capture_output=True, timeout=60)
    file = load_login_file(dora.home / "d.login")
    assert next_update(file.document) > load_certificate(file.leaf).not_valid_after_utc.timestamp()
    dora.run("logout")


def test_a_login_file_is_told_from_a_name() -> None:
    assert all(map(is_login_file, ("dora.login", "/tmp/x", "./dora", "../dora", "a b.login")))
    assert not any(map(is_login_file, ("dora", "client/dora", "login", "dora.pem")))


def test_only_a_client_gets_a_login_file(operator: Person, dora: Person, tmp_path: Path) -> None:
    dora.run("request", "client/dora", "--out", "dora.csr")
    refusal = operator.run(
        "sign", str(dora.home / "dora.csr"), "worker/dora", "--out", str(tmp_path / "x.login"), code=2
    )
    assert "a worker does not log in" in refusal.stderr
    assert operator.run("list").stdout == "no certificates\n", "nothing was issued for it"
    dora.run("logout")


def test_no_key_is_made_for_a_request_that_cannot_be_written(dora: Person) -> None:
    (dora.home / "dora.csr").touch()
    assert "dora.csr exists" in dora.run("request", "client/dora", "--out", "dora.csr", code=1).stderr
    assert "does not exist" in dora.run("request", "client/dora", "--out", "missing/dora.csr", code=4).stderr
    assert "waits" not in dora.run("whoami", code=4).stderr
    dora.run("request", "client/dora", "--out", "dora.csr", "--force")
    assert "a key waits" in dora.run("whoami", code=4).stderr, "control"
    dora.run("logout")


DAMAGES: Final[dict[Callable[[bytes], bytes], type[Exception]]] = {
    lambda data: data[:-40]: CorruptError,
    lambda data: data.replace(b'"format": 1', b'"format": 2'): NotTrustedError,
    lambda data: data.replace(b'"cluster": "default"', b'"cluster": "../x"'): CorruptError,
    lambda data: data.replace(b'"schedulers": []', b'"schedulers": ["tcp://x"]'): CorruptError,
    lambda data: data.replace(b'"chain": []', b'"chain": [1]'): CorruptError,
    lambda _data: b"-----BEGIN CERTIFICATE-----": CorruptError,
    lambda data: data + b" " * (1 << 20): CorruptError,
}


def test_a_damaged_file_is_refused(signed: Path, dora: Person) -> None:
    data = signed.read_bytes()
    assert encode_context(parse_context(data)) == data
    for damage, error in DAMAGES.items():
        assert damage(data) != data
        signed.write_bytes(damage(data))
        with pytest.raises(error):
            load_login_file(signed)
    dora.run("logout")


def test_what_it_says_of_itself_is_verified(dora: Person, signed: Path, here: Environment, tmp_path: Path) -> None:
    """Certificate and trust document of two clusters, and one for another cluster's name: neither is believed."""
    file = load_login_file(signed)
    other = operator_at(tmp_path / "other")
    other.run("init-ca")
    other.run("sign", str(dora.home / "dora.csr"), "--out", str(tmp_path / "other.login"))
    foreign = load_login_file(tmp_path / "other.login")
    with pytest.raises(NotTrustedError):
        login_by_file(file._replace(trust=foreign.trust), [], here, ca_sha256=foreign.ca_sha256)
    with pytest.raises(NotTrustedError, match="of cluster default, not of lab"):
        login_by_file(file._replace(cluster="lab"), [], here, ca_sha256=file.ca_sha256)
    with pytest.raises(UsageError, match="but nothing here confirms it"):
        login_by_file(file, [], here)
    assert here.contexts.all() == []
    logout(here, *logout_targets(here, None))


def test_without_a_keyring_the_error_gives_one_command(operator: Person) -> None:
    """The one that was printed works: a directory, which plain Client and whoami use."""
    operator.environ["DBUS_SESSION_BUS_ADDRESS"] = "unix:path=/nonexistent"  # no desktop session
    operator.run("issue", "client/alice")
    refusal = operator.run("login", "alice", code=5).stderr
    (remedy,) = [line.removeprefix("hint: ") for line in refusal.splitlines() if line.startswith("hint: ")]
    done = subprocess.run(
        ["bash", "-c", f"{remedy} && daskpki whoami"],
        env=operator.environ | {"PATH": f"{Path(DASKPKI).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "from         directory" in done.stdout, done.stderr


def test_a_person_without_a_store_is_not_told_to_make_one(dora: Person) -> None:
    refusal = dora.run("login", "dora", code=4).stderr
    assert "daskpki request client/dora --out dora.csr" in refusal
    assert "init-ca" not in refusal
    assert "hint: --store names its place; daskpki init-ca creates a new one" in dora.run("list", code=4).stderr

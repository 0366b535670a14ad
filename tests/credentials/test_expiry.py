"""The end of a login is announced from two thirds of its life on: by Client, whoami and the list of logins."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daskpki.credentials.contexts import LOGIN_FILE, Context
from daskpki.credentials.login import login, logout
from daskpki.credentials.sources import Environment, ending, renewal_of_login
from daskpki.identity import Role
from daskpki.pki.certificates import load_certificate
from daskpki.quoting import remaining_seconds
from daskpki.store.local.store import LocalStore
from tests.support.desktop import Desktop
from tests.support.login_material import Founded

DAY = 86_400
BIN = Path(sys.executable).parent

STEPS = (
    "daskpki --cluster lab request client/dora --out dora.csr --force; an operator runs daskpki --cluster lab sign "
    "dora.csr client/dora --out dora.login --force; then daskpki login dora.login"
)

TWICE = """
import warnings
from distributed.client import _maybe_call_security_loader
import daskpki
for address in ("tls://10.0.0.5:8786", "tls://10.0.0.5:8786"):
    assert _maybe_call_security_loader(address)
daskpki.security()
"""


COMMANDS = """
import sys
from daskpki.cli.app import main
for command in sys.argv[1:]:
    assert main(command.split()) == 0
    print("end of output")
"""


@pytest.fixture
def alice(session: Desktop, here: Environment, tmp_path: Path) -> Iterator[dict[str, str]]:
    yield dict(here.environ) | {
        "DBUS_SESSION_BUS_ADDRESS": session.environ["DBUS_SESSION_BUS_ADDRESS"],
        "DASKPKI_STORE": f"local:{tmp_path / 'store'}",
        "COLUMNS": "200",
    }
    logout(here, here.contexts.all())


def later(environ: dict[str, str], days: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program so many days from now."""
    moment = (datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%d %H:%M:%S")
    return subprocess.run(
        ["faketime", moment, *command],
        env=environ | {"TZ": "UTC"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.usefixtures("founded")
def test_a_client_warns_once_a_process_and_never_as_a_warning_of_python(
    store: LocalStore, here: Environment, alice: dict[str, str]
) -> None:
    login(store, "default", "alice", [], here)
    early = later(alice, 19, sys.executable, "-W", "error", "-c", TWICE)
    assert (early.returncode, early.stderr) == (0, "")
    late = later(alice, 28, sys.executable, "-W", "error::UserWarning", "-c", TWICE)
    assert late.returncode == 0, late.stderr
    (said,) = late.stderr.splitlines()
    assert said.startswith("the credential of spiffe://default.daskpki.internal/client/alice expires in 2 days (")
    assert said.endswith("with its certificate: daskpki login renews it")


@pytest.mark.usefixtures("founded")
def test_whoami_and_the_list_say_how_long_it_lasts(store: LocalStore, here: Environment, alice: dict[str, str]) -> None:
    login(store, "default", "alice", [], here)
    early = later(alice, 19, str(BIN / "daskpki"), "whoami")
    assert "spiffe://default.daskpki.internal/client/alice" in early.stdout
    assert "renews it" not in early.stdout
    late = later(alice, 28, sys.executable, "-c", COMMANDS, "whoami", "--json whoami", "context list")
    assert late.returncode == 0, late.stderr
    told, document, logins, _ = late.stdout.split("end of output\n")
    assert "(in 2 days; daskpki login renews it)" in told
    assert json.loads(document)["validUntil"] == json.loads(document)["notAfter"]
    listed = logins.splitlines()
    assert listed[0].split() == ["LOGIN", "EXPIRES", "STORE", "SCHEDULERS", "ID"]
    assert listed[1].startswith("*  default/alice  in 2 days  local:")


def test_login_without_a_name_renews_the_active_login(
    founded: Founded, store: LocalStore, here: Environment, alice: dict[str, str]
) -> None:
    login(store, "default", "alice", ["tls://10.0.0.5"], here)
    renewed = founded.issue(Role.CLIENT, "alice")
    founded.store(store.secrets, renewed)
    elsewhere = alice | {"DASKPKI_STORE": ""}  # the login knows from which store it came
    del elsewhere["DASKPKI_STORE"]
    done = later(elsewhere, 0, str(BIN / "daskpki"), "login")
    assert done.stdout == "logged in as spiffe://default.daskpki.internal/client/alice\n", done.stderr
    (saved,) = here.contexts.all()
    assert (saved.context.leaf, saved.context.schedulers) == (renewed.leaf, ("tls://10.0.0.5:8786",))


def test_a_second_login_says_which_one_decides(
    founded: Founded, store: LocalStore, here: Environment, alice: dict[str, str]
) -> None:
    founded.store(store.secrets, founded.issue(Role.CLIENT, "bob"))
    login(store, "default", "alice", [], here)
    here.contexts.prefer(here.contexts.find("default/alice"))
    done = later(alice, 0, str(BIN / "daskpki"), "login", "bob")
    assert "default/alice is still used if several logins match; daskpki " in done.stderr
    assert "context use default/bob switches to this one" in done.stderr
    here.contexts.prefer(here.contexts.find("default/bob"))
    again = later(alice, 0, str(BIN / "daskpki"), "login")
    assert again.stdout == "logged in as spiffe://default.daskpki.internal/client/bob\n"
    assert "decides" not in again.stderr


def test_it_ends_with_whichever_ends_first() -> None:
    """The revocation list of 35 days before a certificate of 60, and after one of 30."""
    cluster = Founded()
    trust = cluster.document()
    long, usual = (cluster.issue(Role.CLIENT, "alice", ttl=days * DAY) for days in (60, 30))
    assert ending(long.leaf, trust, cluster.now).what == "its revocation list"
    assert ending(long.leaf, trust, cluster.now).at == datetime.fromtimestamp(trust.crls[0].next_update, UTC)
    assert ending(usual.leaf, trust, cluster.now).what == "its certificate"
    certificate = load_certificate(usual.leaf)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    assert ending(usual.leaf, trust, cluster.now).at == end
    two_thirds = begin + (end - begin) * 2 / 3
    assert not ending(usual.leaf, trust, two_thirds - timedelta(seconds=1)).is_near
    assert ending(usual.leaf, trust, two_thirds + timedelta(seconds=1)).is_near


@pytest.mark.parametrize(
    ("store", "cluster", "active", "command"),
    [
        ("local:/s", "default", True, "daskpki login"),
        ("local:/my store", "lab", False, "daskpki --cluster lab --store 'local:/my store' login dora"),
        (
            LOGIN_FILE,
            "lab",
            True,
            STEPS,
        ),
    ],
)
def test_how_a_login_is_renewed(store: str, cluster: str, *, active: bool, command: str) -> None:
    saved = Context(store, cluster, "dora", (), b"", (), b"")
    assert renewal_of_login(saved, is_active=active) == command


@pytest.mark.parametrize(
    ("seconds", "text"), [(2 * DAY, "in 2 days"), (3600, "in 1 hour"), (61, "in 1 minute"), (-3 * DAY, "3 days ago")]
)
def test_the_time_that_is_left(seconds: int, text: str) -> None:
    assert remaining_seconds(seconds) == text

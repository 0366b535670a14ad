"""The loader's rule (daskpki/loader.py), asked as Dask asks it: by a plain `Client(...)` in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daskpki.credentials.credential_files import export_directory
from daskpki.credentials.login import login, logout
from daskpki.credentials.sources import Environment
from daskpki.identity import Role
from daskpki.store.local.store import LocalStore
from tests.support.desktop import Desktop
from tests.support.login_material import Founded
from tests.support.schedulers import scheduler

LOADED = """
import sys
from distributed.client import _maybe_call_security_loader
for address in sys.argv[1:]:
    try:
        found = _maybe_call_security_loader(address)
        print(found and found.get_connection_args("client") and repr(found).partition("/client/")[2][:5])
    except Exception as error:
        print(f"{type(error).__name__}: {error}; {getattr(error, 'hint', None)}")
"""


def run(program: str, environ: dict[str, str], *arguments: str, check: bool = True) -> str:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


def ask(environ: dict[str, str], *addresses: str) -> list[str]:
    """What the loader of Dask's real configuration says: a name, None, or an error."""
    return run(LOADED, environ, *addresses).splitlines()


@pytest.fixture
def alice(session: Desktop, here: Environment) -> Iterator[dict[str, str]]:
    """The environment of alice's programs; at the end nothing of hers is left in the keyring."""
    yield dict(here.environ) | {"DBUS_SESSION_BUS_ADDRESS": session.environ["DBUS_SESSION_BUS_ADDRESS"]}
    logout(here, here.contexts.all())


def without_keyring(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}


def test_without_a_login_the_error_says_what_to_do(alice: dict[str, str]) -> None:
    """What is no tls:// address is left to Dask: dask-gateway's scheme, too, and what is no address at all."""
    others = ["tcp://10.0.0.5:8786", "10.0.0.5:8786", "gateway://hub:8786/cluster", "inproc://x", ""]
    *left, said = ask(alice, *others, "tls://10.0.0.5:8786")
    assert left == ["None"] * len(others)
    assert said.startswith(
        "NotFoundError: nobody is logged in here, so there is no certificate for tls://10.0.0.5:8786;"
    )
    assert "daskpki login NAME; without a keyring, daskpki export client/NAME --out DIR, and export DASKPKI" in said
    assert "Client(..., security=...)" in said


@pytest.mark.usefixtures("founded")
def test_a_login_is_for_the_addresses_that_it_lists(
    store: LocalStore, here: Environment, alice: dict[str, str]
) -> None:
    login(store, "default", "alice", ["tls://10.0.0.5", "tls://127.0.0.1:9000"], here)
    listed = [
        "tls://10.0.0.5:8786",
        "TLS://10.0.0.5",
        "tls://localhost:9000",
        "tls://[::1]:9000",
        "tls://127.0.0.1:9000",
    ]
    assert ask(alice, *listed) == ["alice"] * len(listed)
    elsewhere = ["tls://localhost:9001", "tls://10.0.0.6:8786", "tls://[::"]
    for address, said in zip(elsewhere, ask(without_keyring(alice), *elsewhere), strict=True):
        assert said.startswith(
            f"NotFoundError: no login knows {address}; "
            "known: tls://10.0.0.5:8786 (default/alice), tls://127.0.0.1:9000 (default/alice);"
        )
        assert f"daskpki login alice --scheduler {address}" in said
        assert "Client(..., security=...)" in said


def test_a_login_without_addresses_is_for_the_rest_if_it_is_the_only_one(
    founded: Founded, store: LocalStore, here: Environment, alice: dict[str, str]
) -> None:
    founded.store(store.secrets, founded.issue(Role.CLIENT, "bob"))
    founded.store(store.secrets, founded.issue(Role.CLIENT, "carol"))
    login(store, "default", "alice", [], here)
    login(store, "default", "bob", ["tls://10.0.0.5"], here)
    addresses = ["tls://10.0.0.5:8786", "tls://elsewhere:1"]
    assert ask(alice, *addresses)[1:] == ["alice"]
    login(store, "default", "carol", [], here)
    known, several = ask(alice, *addresses)
    assert known.startswith("bob")
    assert several.startswith("UsageError: several logins fit address tls://elsewhere:1: default/alice in ")
    assert "daskpki context use ID" in several


@pytest.mark.usefixtures("founded")
def test_tls_files_of_dasks_own_come_before_a_login_for_any_address(
    store: LocalStore, here: Environment, alice: dict[str, str], exported: Path
) -> None:
    login(store, "default", "alice", [], here)
    configured = alice | {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(exported / "ca.pem")}
    assert ask(without_keyring(configured), "tls://other:8786") == ["None"]
    login(store, "default", "alice", ["tls://10.0.0.5"], here)
    assert ask(configured, "tls://10.0.0.5:8786", "tls://other:8786") == ["alice", "None"]
    logout(here, here.contexts.all())
    assert ask(configured, "tls://10.0.0.5:8786") == ["None"], "nobody is logged in, and that is no fault here"


def test_a_directory_is_for_every_address(alice: dict[str, str], exported: Path) -> None:
    """Also where Dask has TLS files of its own: somebody set the variable for this very process."""
    given = without_keyring(alice) | {"DASKPKI_CREDENTIAL_DIR": str(exported)}
    given["DASK_DISTRIBUTED__COMM__TLS__CA_FILE"] = str(exported / "ca.pem")
    assert ask(given, "tls://10.0.0.5:8786", "tcp://10.0.0.5:8786") == ["alice", "None"]


def test_a_store_is_for_every_address(alice: dict[str, str], founded: Founded, store: LocalStore) -> None:
    assert founded.cluster == "default"
    given = without_keyring(alice) | {"DASKPKI_SOURCE": "store", "DASKPKI_STORE": store.url, "DASKPKI_NAME": "alice"}
    assert ask(given, "tls://10.0.0.5:8786") == ["alice"]


OTHERS = """
import sys
from dask.distributed import Client, LocalCluster, Security
temporary = Security.temporary()
with LocalCluster(n_workers=0, security=temporary, dashboard_address=None) as cluster:
    with Client(cluster) as client:
        print(client.scheduler_info(n_workers=0)["type"])
    with Client(cluster.scheduler_address, security=temporary) as client:
        print(client.scheduler_info(n_workers=0)["type"])
with LocalCluster(n_workers=0, dashboard_address=None) as cluster, Client(cluster.scheduler_address) as client:
    print(client.scheduler_info(n_workers=0)["type"])
try:
    Client("tls://127.0.0.1:1", security=False, timeout=1)
except Exception as error:
    print(type(error).__name__)
"""


@pytest.mark.cluster
def test_other_peoples_clusters_go_on_as_before(alice: dict[str, str]) -> None:
    """`Security.temporary()` by cluster and by address, `tcp://`, and `security=False`, which is never asked about."""
    assert run(OTHERS, alice).splitlines() == ["Scheduler", "Scheduler", "Scheduler", "TypeError"]


CONNECTED = """
import sys
from dask.distributed import Client
import daskpki
for address in sys.argv[1:-1]:
    with Client(address, timeout=20) as client:
        print(client.scheduler_info(n_workers=0)["type"])
with Client(scheduler_file=sys.argv[-1], security=daskpki.security(), timeout=20) as client:
    print(client.scheduler_info(n_workers=0)["type"])
"""

BY_FILE = """
with daskpki.connect(scheduler_file=sys.argv[-1], timeout=20) as client:
    print(client.scheduler_info(n_workers=0)["type"])
"""


@pytest.mark.cluster
def test_a_plain_client_connects_by_a_directory_and_by_a_login(
    founded: Founded, store: LocalStore, here: Environment, alice: dict[str, str], tmp_path: Path
) -> None:
    for role in (Role.SCHEDULER, Role.CLIENT):
        export_directory(founded.hold(founded.issue(role, role.value)), tmp_path / role.value)
    with scheduler(tmp_path / "scheduler") as address:
        (tmp_path / "scheduler.json").write_text(f'{{"address": "{address}"}}')
        named = [address, address.replace("127.0.0.1", "localhost")]
        by_directory = without_keyring(alice) | {"DASKPKI_CREDENTIAL_DIR": str(tmp_path / "client")}
        assert run(CONNECTED, by_directory, *named, str(tmp_path / "scheduler.json")).split() == ["Scheduler"] * 3
        login(store, "default", "alice", [address], here)
        assert run(CONNECTED + BY_FILE, alice, *named, str(tmp_path / "scheduler.json")).split() == ["Scheduler"] * 4

"""Logging in and out on a real keyring: what is written, what is refused, and that nothing is left."""

from __future__ import annotations

import base64
import re
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import dask.config
import pytest

from daskpki.confidential import Confidential
from daskpki.credentials import dask_config
from daskpki.credentials.login import login, logout
from daskpki.credentials.os_keyring import OSKeyring
from daskpki.credentials.source_selection import CredentialSource, Wanted
from daskpki.credentials.sources import Environment, obtain
from daskpki.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    CorruptError,
    DaskpkiError,
    NotFoundError,
    UsageError,
)
from daskpki.identity import Role
from daskpki.pki.keys import KeyType
from daskpki.store.local.store import LocalStore
from tests.support.desktop import Desktop, SessionKeyring
from tests.support.login_material import Founded


def _files(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def _home(here: Environment) -> Path:
    return Path(here.environ["HOME"])


@pytest.mark.usefixtures("founded")
def test_login_makes_the_credential_available(store: LocalStore, here: Environment, keyring: OSKeyring) -> None:
    here = here._replace(keyring=keyring)
    result = login(store, "default", "alice", ["tls://10.0.0.5:8786"], here)
    verified, choice, schedulers, _ = obtain(Wanted(), here)
    assert verified == result.verified
    assert verified.credential.identity.uri == "spiffe://default.daskpki.internal/client/alice"
    assert choice.source is CredentialSource.KEYRING
    assert schedulers == ("tls://10.0.0.5:8786",)
    logout(here, here.contexts.all())


@pytest.mark.usefixtures("founded")
def test_the_key_is_in_the_keyring_only(store: LocalStore, here: Environment, session: Desktop) -> None:
    result = login(store, "default", "alice", [], here)
    key = result.verified.credential.key
    assert key is not None
    files = [path for path in _home(here).rglob("*") if path.is_file()]
    assert any(path.parent.name == "contexts" for path in files)
    assert not [path for path in files if _holds(path.read_bytes(), key.reveal())]
    assert {path.stat().st_mode & 0o077 for path in files if path.parent.name == "contexts"} == {0}
    # Anyone may read labels and attributes of a locked keyring: neither cluster nor name stands there.
    mine = [item for item in session.items() if result.saved.service in item]
    assert len(mine) == 1
    assert "alice" not in mine[0]
    assert "default" not in mine[0]
    logout(here, here.contexts.all())


def _holds(data: bytes, key: bytes) -> bool:
    forms = [key, *(base64.b64encode(key[offset:])[4:-8] for offset in range(3))]
    return any(form in data for form in forms)


def test_the_search_for_keys_finds_a_planted_one(founded: Founded) -> None:
    key = founded.issue(Role.CLIENT, "eve").key
    assert key is not None
    assert _holds(b"..." + key.reveal(), key.reveal())
    assert all(_holds(base64.b64encode(b"x" * shift + key.reveal()), key.reveal()) for shift in range(3))


@pytest.mark.usefixtures("founded")
def test_logout_leaves_nothing(store: LocalStore, here: Environment, session: Desktop) -> None:
    before, entries = _files(_home(here)), session.items()
    login(store, "default", "alice", [], here)
    assert _files(_home(here)) != before
    assert session.items() != entries
    logout(here, here.contexts.all())
    assert _files(_home(here)) == before
    assert not here.contexts.directory.exists()
    assert session.items() == entries
    with pytest.raises(NotFoundError, match="nobody is logged in here"):
        obtain(Wanted(), here)


def test_the_last_logout_unsets_the_loader_and_not_the_first(
    founded: Founded, store: LocalStore, here: Environment
) -> None:
    founded.store(store.secrets, founded.issue(Role.CLIENT, "bob"))
    alice = login(store, "default", "alice", [], here, user_config=True)
    bob = login(store, "default", "bob", [], here)
    config = dask_config.config_file(here.environ)
    logout(here, [alice.saved])
    assert dask_config.LOADER in config.read_text()
    logout(here, [bob.saved])
    assert not config.exists()


@pytest.mark.usefixtures("founded")
def test_a_dask_configuration_of_the_user_is_not_touched(
    store: LocalStore, here: Environment, session: Desktop
) -> None:
    config = dask_config.config_file(here.environ)
    config.parent.mkdir(parents=True)
    config.write_text("distributed: {}\n")
    entries = session.items()
    with pytest.raises(AlreadyExistsError, match="not written by daskpki"):
        login(store, "default", "alice", [], here, user_config=True)
    assert session.items() == entries
    assert here.contexts.all() == []
    login(store, "default", "alice", [], here)  # which has no business there
    logout(here, here.contexts.all())
    assert config.read_text() == "distributed: {}\n"


SHIPPED = files("daskpki.credentials").joinpath("daskpki.yaml").read_text()


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel's file, among those that Dask reads here."""
    path = tmp_path / "prefix/etc/dask/daskpki.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(SHIPPED)
    monkeypatch.setattr(dask.config, "paths", [str(path.parent), *dask.config.paths])
    return path


@pytest.mark.usefixtures("founded")
def test_without_being_asked_login_writes_no_dask_configuration(store: LocalStore, here: Environment) -> None:
    found = login(store, "default", "alice", [], here).dask
    assert (found.shipped, found.asks_daskpki, found.overruled_by) == (None, False, None)
    assert not dask_config.config_file(here.environ).parent.exists()
    logout(here, here.contexts.all())


@pytest.mark.usefixtures("founded")
def test_where_the_wheels_file_is_read_nothing_is_written(store: LocalStore, here: Environment, shipped: Path) -> None:
    found = login(store, "default", "alice", [], here, user_config=True).dask
    assert (found.shipped, found.asks_daskpki) == (shipped, True)
    assert not dask_config.config_file(here.environ).parent.exists()
    logout(here, here.contexts.all())


@pytest.mark.usefixtures("founded", "shipped")
def test_a_file_that_was_asked_for_stays_for_the_environment_that_needs_it(
    store: LocalStore, here: Environment
) -> None:
    config = dask_config.set_loader(here.environ)
    login(store, "default", "alice", [], here)
    assert config.exists()
    logout(here, here.contexts.all())
    assert not config.exists()


def test_an_rsa_key_fits_the_keyring(
    founded: Founded, store: LocalStore, here: Environment, keyring: OSKeyring
) -> None:
    here = here._replace(keyring=keyring)
    credential = founded.issue(Role.CLIENT, "kim", kind=KeyType.RSA3072)
    founded.store(store.secrets, credential)
    login(store, "default", "kim", [], here)
    assert obtain(Wanted(), here).verified.credential == credential
    logout(here, here.contexts.all())


@pytest.mark.usefixtures("founded")
def test_a_changed_file_is_noticed(store: LocalStore, here: Environment) -> None:
    saved = login(store, "default", "alice", ["tls://good:8786"], here).saved
    file = here.contexts.directory / f"{saved.id}.json"
    file.write_text(file.read_text().replace("tls://good:8786", "tls://evil:8786"))
    with pytest.raises(CorruptError, match="it was changed since"):
        obtain(Wanted(), here)
    login(store, "default", "alice", [], here)
    assert obtain(Wanted(), here).verified.credential.identity.name == "alice"
    logout(here, here.contexts.all())


@pytest.mark.usefixtures("founded")
def test_an_unknown_name_changes_nothing(store: LocalStore, here: Environment) -> None:
    before = _files(_home(here))
    with pytest.raises(NotFoundError, match="no credential client/mallory") as refusal:
        login(store, "default", "mallory", [], here)
    assert "daskpki issue client --name mallory" in str(refusal.value.hint)
    assert _files(_home(here)) == before


@pytest.mark.usefixtures("founded")
def test_several_logins_are_named_and_one_can_be_preferred(store: LocalStore, here: Environment) -> None:
    other = Founded("other")
    other.publish(store.secrets)
    other.store(store.secrets, other.issue(Role.CLIENT, "alice"))
    login(store, "default", "alice", [], here)
    login(store, "other", "alice", ["tls://other:8786"], here)
    with pytest.raises(UsageError, match=r"default/alice in .*, other/alice in "):
        obtain(Wanted(), here)
    assert obtain(Wanted(cluster="other"), here).verified.credential.cluster == "other"
    assert obtain(Wanted(address="tls://OTHER"), here).verified.credential.cluster == "other"
    assert obtain(Wanted(address="tls://elsewhere:1"), here).verified.credential.cluster == "default"
    here.contexts.prefer(here.contexts.find("other"))
    assert obtain(Wanted(), here).verified.credential.cluster == "other"
    logout(here, here.contexts.all())


@pytest.mark.usefixtures("founded")
def test_without_a_keyring_nothing_is_written(store: LocalStore, here: Environment) -> None:
    before = _files(_home(here))
    environ = dict(here.environ) | {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}
    with pytest.raises(AccessDeniedError, match="protects what it keeps"):
        login(store, "default", "alice", [], here._replace(keyring=OSKeyring(environ)))
    assert _files(_home(here)) == before


@pytest.mark.usefixtures("founded")
def test_a_loader_of_the_users_own_is_reported(store: LocalStore, here: Environment) -> None:
    config = dask_config.config_file(here.environ)
    config.parent.mkdir(parents=True)
    own = config.with_name("zz.yaml")
    assert login(store, "default", "alice", [], here, user_config=True).dask.overruled_by is None
    own.write_text("distributed: {client: {security_loader: my.loader}}\n")
    assert login(store, "default", "alice", [], here).dask.overruled_by == str(own)
    by_variable = {**here.environ, "DASK_DISTRIBUTED__CLIENT__SECURITY_LOADER": "my.loader"}
    found = dask_config.read_own_config(by_variable)
    assert found.overruled_by == "DASK_DISTRIBUTED__CLIENT__SECURITY_LOADER"
    logout(here, here.contexts.all())
    assert own.exists()


@pytest.mark.parametrize("place", ["daskpki_home/contexts", ".config"])
@pytest.mark.usefixtures("founded")
def test_what_cannot_be_written_is_taken_back(
    store: LocalStore, here: Environment, session: Desktop, place: str
) -> None:
    obstacle = _home(here) / place
    obstacle.parent.mkdir(exist_ok=True)
    obstacle.write_text("in the way")
    before, entries = _files(_home(here)), session.items()
    with pytest.raises(DaskpkiError, match=re.escape(str(obstacle))):
        login(store, "default", "alice", [], here, user_config=True)
    assert session.items() == entries
    assert _files(_home(here)) == before
    obstacle.unlink()
    login(store, "default", "alice", [], here)
    logout(here, here.contexts.all())


class _Interrupted(SessionKeyring):
    """Somebody presses Ctrl-C once the entry is in the keyring."""

    def set(self, service: str, username: str, secret: Confidential) -> None:
        super().set(service, username, secret)
        raise KeyboardInterrupt


@pytest.mark.usefixtures("founded")
def test_what_ctrl_c_cut_off_is_taken_back(store: LocalStore, here: Environment, session: Desktop) -> None:
    entries = session.items()
    with pytest.raises(KeyboardInterrupt):
        login(store, "default", "alice", [], here._replace(keyring=_Interrupted(session)))
    assert session.items() == entries
    assert here.contexts.all() == []


@pytest.mark.usefixtures("founded")
def test_a_failed_login_leaves_the_one_before(store: LocalStore, here: Environment) -> None:
    before = login(store, "default", "alice", ["tls://a:1"], here, user_config=True)
    config = dask_config.config_file(here.environ)
    config.unlink()
    config.parent.rmdir()
    config.parent.write_text("in the way")
    with pytest.raises(DaskpkiError):
        login(store, "default", "alice", ["tls://b:1"], here, user_config=True)
    assert here.contexts.all() == [before.saved]
    assert obtain(Wanted(), here).verified == before.verified
    config.parent.unlink()
    logout(here, here.contexts.all())


def test_logins_at_the_same_time_do_not_disturb_each_other(
    founded: Founded, store: LocalStore, here: Environment
) -> None:
    names = ["ann", "ben"]
    for name in names:
        founded.store(store.secrets, founded.issue(Role.CLIENT, name))
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: login(store, "default", name, [], here), [*names, *names]))
    assert [saved.context.name for saved in here.contexts.all()] == names
    for name in names:
        assert obtain(Wanted(name=name), here).verified.credential.identity.name == name
    logout(here, here.contexts.all())

"""What a login believes: revoked, expired, put back or replaced by a stranger is refused, with the way out."""

from __future__ import annotations

import shutil
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from daskpki.credentials.login import login, logout
from daskpki.credentials.source_selection import Wanted
from daskpki.credentials.sources import Environment, obtain
from daskpki.errors import (
    NotTrustedError,
)
from daskpki.identity import Role
from daskpki.pki.certificates import load_certificate
from daskpki.pki.crl import Revocation
from daskpki.pki.profile import DAY
from daskpki.settings import LocalUrl
from daskpki.store.local.store import LocalStore
from tests.support.login_material import Founded


def test_a_revoked_credential_is_refused(founded: Founded, store: LocalStore, here: Environment) -> None:
    credential = founded.issue(Role.CLIENT, "rob")
    founded.store(store.secrets, credential)
    login(store, "default", "rob", [], here)
    serial = load_certificate(credential.leaf).serial_number
    founded.revoked.append(Revocation(serial, int(founded.now.timestamp()), "keyCompromise"))
    founded.publish(store.secrets)
    with pytest.raises(NotTrustedError, match="client/rob is revoked"):
        login(store, "default", "rob", [], here)
    assert obtain(Wanted(), here).verified.trust.epoch == 1  # the login stays as it was; the cluster refuses it
    logout(here, here.contexts.all())


def test_a_store_that_went_back_is_refused(
    founded: Founded, store: LocalStore, here: Environment, tmp_path: Path
) -> None:
    login(store, "default", "alice", [], here)
    store.close()
    shutil.copytree(tmp_path / "store", tmp_path / "backup")
    with closing(here.open_store(LocalUrl(tmp_path / "store"))) as newer:
        founded.publish(newer.secrets)
        login(newer, "default", "alice", [], here)
    shutil.rmtree(tmp_path / "store")
    (tmp_path / "backup").rename(tmp_path / "store")
    with closing(here.open_store(LocalUrl(tmp_path / "store"))) as restored:
        with pytest.raises(NotTrustedError, match="went back from epoch 2 to 1") as refusal:
            login(restored, "default", "alice", [], here)
        assert "daskpki logout" in str(refusal.value.hint)
        assert obtain(Wanted(), here).verified.trust.epoch == 2
        logout(here, here.contexts.all())
        assert login(restored, "default", "alice", [], here).verified.trust.epoch == 1
    logout(here, here.contexts.all())


@pytest.mark.usefixtures("founded")
def test_a_ca_that_the_old_one_does_not_vouch_for_is_refused(store: LocalStore, here: Environment) -> None:
    login(store, "default", "alice", [], here)
    usurper = Founded()
    usurper.epoch = 1  # a stranger who may add versions goes on where the real CA stopped
    usurper.publish(store.secrets)
    usurper.store(store.secrets, usurper.issue(Role.CLIENT, "alice"))
    with pytest.raises(NotTrustedError, match="does not lead to the cluster's CA"):
        login(store, "default", "alice", [], here)
    logout(here, here.contexts.all())


@pytest.mark.usefixtures("founded")
def test_a_certificate_that_ran_out_is_refused(store: LocalStore, here: Environment) -> None:
    login(store, "default", "alice", [], here)
    obtain(Wanted(), here._replace(now=here.now + timedelta(days=29)))
    with pytest.raises(NotTrustedError, match="the login default/alice: ") as refusal:
        obtain(Wanted(), here._replace(now=here.now + timedelta(days=31)))
    assert "daskpki login" in str(refusal.value.hint)
    logout(here, here.contexts.all())


def test_a_revocation_list_that_ran_out_is_refused(founded: Founded, store: LocalStore, here: Environment) -> None:
    founded.store(store.secrets, founded.issue(Role.CLIENT, "lee", ttl=90 * DAY))
    login(store, "default", "lee", [], here)
    obtain(Wanted(), here._replace(now=here.now + timedelta(days=34)))
    with pytest.raises(NotTrustedError, match="CRL expired") as refusal:
        obtain(Wanted(), here._replace(now=here.now + timedelta(days=36)))
    assert "daskpki login" in str(refusal.value.hint)
    logout(here, here.contexts.all())

"""An old version that is put back is refused, on either store, and there is a way to accept it knowingly.

| what is put back | a running node (`tests/cluster`) | a pin | what this user has seen |
|---|---|---|---|
| a secret: a credential that is replaced and revoked | `test_rotation.py` | here | here |
| a trust document with an older CRL | `test_revocation.py` | here, `tests/boot/test_verify.py` | here |
| a whole store | `test_refresh_polling.py` | here | here, and its log in `tests/authority/test_backup.py` |

What this user's commands have seen of a store counts for a login from it, too.

A node accepts nothing older while it runs: it is started anew. A pin is lowered, a login is removed and made again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from daskpki import CertificateAuthority, secret_names
from daskpki.credentials.login import login, logout
from daskpki.credentials.source_selection import Wanted
from daskpki.credentials.sources import Environment, obtain
from daskpki.errors import NotTrustedError
from daskpki.identity import Role
from daskpki.pki.certificates import der, load_certificate
from daskpki.pki.crl import Revocation
from daskpki.pki.pem import fingerprint
from daskpki.pki.trust_document import TrustDocument
from daskpki.settings import ENDPOINT
from daskpki.store.port import SecretStore, Store
from tests.support.gsm_places import open_place
from tests.support.local_places import LocalPlace
from tests.support.login_material import Founded, add

ALICE = secret_names.credential_id("default", Role.CLIENT, "alice")
TRUST = secret_names.trust_id("default")


@pytest.fixture(params=["local", "gsm"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty store of either kind."""
    if request.param == "local":
        with closing(LocalPlace(tmp_path).create()) as store:
            yield store
    else:
        with open_place("grpc", None) as place, closing(place.factory()) as store:
            monkeypatch.setenv(ENDPOINT, place.endpoint)
            yield store


@pytest.fixture
def cluster(anywhere: Store) -> Founded:
    """A cluster in which alice's first credential was put on hold, and replaced by a second."""
    founded = Founded()
    founded.publish(anywhere.secrets)
    stolen = founded.issue(Role.CLIENT, "alice")
    founded.store(anywhere.secrets, stolen)
    serial = load_certificate(stolen.leaf).serial_number
    founded.revoked.append(Revocation(serial, int(founded.now.timestamp()), "certificateHold"))
    founded.publish(anywhere.secrets)
    founded.store(anywhere.secrets, founded.issue(Role.CLIENT, "alice"))
    return founded


def put_back(secrets: SecretStore, secret: str, number: int) -> None:
    """Whoever may write makes the secret again with an older version alone, as a careless restoration does too."""
    old, info = secrets.access(secret, number), secrets.describe(secret)
    secrets.delete(secret)
    add(secrets, secret, old, dict(info.labels))


def stored(here: Environment, store: Store, **pins: str) -> Environment:
    """A program that takes alice's credential from the store."""
    settings = {"DASKPKI_SOURCE": "store", "DASKPKI_STORE": store.url, "DASKPKI_NAME": "alice"}
    return here._replace(environ={**here.environ, **settings, **pins})


@pytest.mark.usefixtures("cluster")
def test_an_old_trust_document_against_a_pin(anywhere: Store, here: Environment) -> None:
    program = stored(here, anywhere, DASKPKI_MIN_EPOCH="2")
    assert obtain(Wanted(), program).verified.trust.epoch == 2
    put_back(anywhere.secrets, TRUST, 1)
    with pytest.raises(NotTrustedError, match="has epoch 1, below the required 2"):
        obtain(Wanted(), program)
    lowered = stored(here, anywhere, DASKPKI_MIN_EPOCH="1")
    assert obtain(Wanted(), lowered).verified.trust.epoch == 1


@pytest.mark.usefixtures("cluster")
def test_an_old_trust_document_against_what_this_user_has_seen(anywhere: Store, here: Environment) -> None:
    login(anywhere, "default", "alice", [], here)
    put_back(anywhere.secrets, TRUST, 1)
    with pytest.raises(NotTrustedError, match="went back from epoch 2 to 1") as refused:
        login(anywhere, "default", "alice", [], here)
    assert "daskpki logout" in str(refused.value.hint)
    assert obtain(Wanted(), here).verified.trust.epoch == 2
    logout(here, here.contexts.all())
    assert login(anywhere, "default", "alice", [], here).verified.trust.epoch == 1
    logout(here, here.contexts.all())


def test_an_old_credential_is_known_to_be_revoked(cluster: Founded, anywhere: Store, here: Environment) -> None:
    program = stored(here, anywhere, DASKPKI_MIN_EPOCH="2")
    newest = login(anywhere, "default", "alice", [], here).verified.credential
    put_back(anywhere.secrets, ALICE, 1)
    with pytest.raises(NotTrustedError, match="client/alice is revoked"):
        obtain(Wanted(), program)
    with pytest.raises(NotTrustedError, match="client/alice is revoked") as refused:
        login(anywhere, "default", "alice", [], here)
    assert "issue a new one" in str(refused.value.hint)
    assert obtain(Wanted(), here).verified.credential == newest, "the login is as it was"
    cluster.revoked.clear()  # the operator releases it
    cluster.publish(anywhere.secrets)
    assert login(anywhere, "default", "alice", [], here).verified.credential != newest
    logout(here, here.contexts.all())


@pytest.fixture
def operated(anywhere: Store) -> TrustDocument:
    """A cluster that this user's commands made, so that they have seen it."""
    ca = CertificateAuthority(anywhere)
    ca.init()
    list(ca.issue(ca.requests(Role.CLIENT, ["alice"])))
    ca.announce("tls://10.0.0.5:8786")
    return ca.trust()


def another(secrets: SecretStore, epoch: int) -> Founded:
    """Put a stranger's cluster of the same name in its place, whose CA has the same generation."""
    stranger = Founded()
    stranger.epoch = epoch
    for secret in (TRUST, ALICE):
        secrets.delete(secret)
    stranger.publish(secrets)
    stranger.store(secrets, stranger.issue(Role.CLIENT, "alice"))
    return stranger


@pytest.mark.parametrize("newer_by", [0, 1])
def test_a_strangers_cluster_against_what_this_users_commands_saw(
    operated: TrustDocument, anywhere: Store, here: Environment, newer_by: int
) -> None:
    """The fingerprint counts, and not only the number."""
    stranger = another(anywhere.secrets, operated.epoch - 1 + newer_by)
    with pytest.raises(NotTrustedError, match="not signed by a CA that was seen here before") as refused:
        login(anywhere, "default", "alice", [], here)
    assert "--ca-sha256" in str(refused.value.hint)
    pin = {"DASKPKI_CA_SHA256": fingerprint(der(stranger.issuer.root))}
    pinned = here._replace(environ={**here.environ, **pin})
    assert login(anywhere, "default", "alice", [], pinned).verified.trust.active.certificate == der(
        stranger.issuer.root
    )
    logout(here, here.contexts.all())
    anywhere.memory.forget()
    login(anywhere, "default", "alice", [], here)  # who has seen nothing believes it
    logout(here, here.contexts.all())


def test_two_cas_and_nothing_known_are_not_chosen_between(cluster: Founded, anywhere: Store, here: Environment) -> None:
    stranger = Founded()
    stranger.epoch = cluster.epoch
    stranger.publish(anywhere.secrets)
    with pytest.raises(NotTrustedError, match="two CAs claim cluster 'default'") as refused:
        login(anywhere, "default", "alice", [], here)
    assert all(fingerprint(der(each.issuer.root)) in str(refused.value) for each in (cluster, stranger))
    assert "--ca-sha256" in str(refused.value.hint)
    pin = {"DASKPKI_CA_SHA256": fingerprint(der(cluster.issuer.root))}
    pinned = here._replace(environ={**here.environ, **pin})
    assert login(anywhere, "default", "alice", [], pinned).verified.trust.epoch == cluster.epoch
    logout(here, here.contexts.all())


def test_an_older_document_against_what_this_users_commands_saw(
    operated: TrustDocument, anywhere: Store, here: Environment
) -> None:
    put_back(anywhere.secrets, TRUST, 1)
    with pytest.raises(NotTrustedError, match=f"below the required {operated.epoch}"):
        login(anywhere, "default", "alice", [], here)
    program = stored(here._replace(open_store=lambda _url: anywhere), anywhere)
    with pytest.raises(NotTrustedError, match=f"below the required {operated.epoch}"):
        obtain(Wanted(), program)


@pytest.mark.usefixtures("cluster")
def test_a_whole_store_against_a_pin_and_what_this_user_has_seen(anywhere: Store, here: Environment) -> None:
    """Both secrets are old, so that the credential is not revoked as far as the store knows."""
    login(anywhere, "default", "alice", [], here)
    for secret in (TRUST, ALICE):
        put_back(anywhere.secrets, secret, 1)
    with pytest.raises(NotTrustedError, match="went back from epoch 2 to 1"):
        login(anywhere, "default", "alice", [], here)
    with pytest.raises(NotTrustedError, match="below the required 2"):
        obtain(Wanted(), stored(here, anywhere, DASKPKI_MIN_EPOCH="2"))
    assert obtain(Wanted(), stored(here, anywhere)).verified.trust.epoch == 1, "who knows nothing believes it"
    logout(here, here.contexts.all())
    assert login(anywhere, "default", "alice", [], here).verified.trust.epoch == 1
    logout(here, here.contexts.all())

"""Dask's `security-loader`: finds the certificate for a plain `Client("tls://...")`.

The wheel's `etc/dask/daskpki.yaml` names it (docs/adr/0014), and the entrypoint does so on a node. Dask calls it
for every address that is a string and for which no `security=` was given, also from inside an event loop, and tells
it nothing but the address. It never asks at a terminal. The first rule that fits decides:

1. Anything but a `tls://` address: None, so that Dask goes on as if daskpki were not there.
2. A credential that was handed down, or a directory, a file or the store as the source: that credential.
3. A login that lists the address (`localhost`, `127.0.0.1` and `::1` are one host): that login.
4. Dask's own TLS files are configured (`distributed.comm.tls`): None.
5. Exactly one login without addresses, or one that `context use` chose: that login.
6. Else an error that names the address, those that are known and the remedy; without a certificate, Dask could only
   fail. Only the public files of logins are read for this; the keyring is opened for the login that was chosen.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from daskpki.errors import DaskpkiError

if TYPE_CHECKING:
    from pathlib import Path

    from daskpki.boot.fetch import Reader
    from daskpki.boot.refresh import StoreSource
    from daskpki.cluster.refresh import SharedLookup, WholeSource
    from daskpki.cluster.security import PkiSecurity
    from daskpki.cluster.tls import KeyPair
    from daskpki.cluster.trust_updates import TrustManager
    from daskpki.confidential import Confidential
    from daskpki.credentials.contexts import NewestTrust
    from daskpki.credentials.source_selection import Wanted
    from daskpki.credentials.sources import Environment, Obtained
    from daskpki.settings import StoreUrl

logger = logging.getLogger("daskpki")

_LOOKUPS: dict[tuple[str, str, str], SharedLookup] = {}
"""This process's lookups by home, place and cluster, so that two clients do not ask twice."""


def security_loader(info: dict[str, Any]) -> PkiSecurity | None:
    """The Security for `info["address"]`, or None; the module's first lines have the rules.

    NotFoundError when no rule fits, UsageError that names the candidates when several logins do; AccessDeniedError
    without the keyring; NotTrustedError when the credential fails its verification.

        dask.config.set({"distributed.client.security-loader": "daskpki.loader.security_loader"})
    """
    address = info.get("address")
    if not isinstance(address, str) or not address.lower().startswith("tls://"):
        return None  # before anything is imported: every Client of this environment comes here
    from daskpki.credentials.source_selection import Wanted
    from daskpki.credentials.sources import leaves_to_dask, obtain, this_process

    wanted, here = Wanted(address=address), this_process()
    if _has_tls_files() and leaves_to_dask(wanted, here):
        return None
    return dial_security(obtain(wanted, here), wanted, here)


def _has_tls_files() -> bool:
    """True if Dask's configuration names TLS files, with which it can connect by itself."""
    from dask import config

    return any(config.get(f"distributed.comm.tls.{name}", None) for name in ("ca-file", "client.cert", "client.key"))


def dial_security(obtained: Obtained, wanted: Wanted, here: Environment) -> PkiSecurity:
    """Make the Security of a client with this credential, which is renewed from its source."""
    from daskpki.cluster.refresh import SharedLookup
    from daskpki.cluster.security import NodeSecurity, client_security
    from daskpki.credentials.contexts import LOGIN_FILE
    from daskpki.credentials.source_selection import DIRECTORY
    from daskpki.credentials.source_selection import CredentialSource as From
    from daskpki.handover import VARIABLE, load_handover

    verified = obtained.verified
    if obtained.choice.source is From.HANDOVER:  # the worker's own, which tasks use as well
        return NodeSecurity(load_handover(here.environ[VARIABLE]))
    _announce_end(obtained, wanted, here)
    name, cluster = verified.credential.identity.name, verified.credential.cluster
    source = _credentials_source(wanted._replace(name=name, cluster=cluster))
    known = LOGIN_FILE if obtained.choice.source is From.KEYRING else obtained.choice.source
    place = str(obtained.store or here.environ.get(DIRECTORY) or known)
    memory = _home(here)
    of_trust = store_source(cluster, obtained.store) if obtained.store else source
    security = client_security(
        verified.credential,
        verified.trust,
        source=source,
        shared=_LOOKUPS.setdefault((str(memory), place, cluster), SharedLookup(of_trust)),
    )
    if memory is not None:
        _remember(security, here.newest_trust(here.contexts.id_of(place, cluster, name)))
    return security


def _home(here: Environment) -> Path | None:
    """The directory of daskpki's own files; None for a user without a home directory, as in some containers."""
    from daskpki.settings import home

    try:
        return home(here.environ)
    except DaskpkiError:
        return None


def _remember(security: PkiSecurity, kept: NewestTrust) -> None:
    """Use the newest saved trust document, and save each newer one; failures are only logged."""
    from daskpki.identity import Role

    manager = security.enforcement(Role.CLIENT).manager
    assert manager is not None

    def keep(newer: TrustManager) -> None:
        try:
            if newer.signed is not None:
                kept.keep(newer.signed)
        except DaskpkiError as error:
            logger.warning("the newest trust document is not kept for the next program: %s", error)

    try:
        if (signed := kept.load()) is not None:
            manager.accept_trust(signed)
    except DaskpkiError as error:
        logger.warning("the trust document that an earlier program kept is not used: %s", error)
    manager.on_trust.append(keep)


_announced: set[bytes] = set()
"""Certificates of which this process has warned that they end soon."""


def _announce_end(obtained: Obtained, wanted: Wanted, here: Environment) -> None:
    """Log once per process that a certificate expires soon; no Python warning, since `-W error` makes those errors."""
    from daskpki.credentials.sources import ending, renewal
    from daskpki.quoting import minute, remaining_seconds

    credential = obtained.verified.credential
    end = ending(credential.leaf, obtained.verified.trust, here.now)
    if not end.is_near or credential.leaf in _announced:
        return
    _announced.add(credential.leaf)
    left = remaining_seconds(int((end.at - here.now).total_seconds()))
    logger.warning(
        "the credential of %s expires %s (%s), with %s: %s renews it",
        credential.identity.uri,
        left,
        minute(end.at),
        end.what,
        renewal(obtained, wanted, here),
    )


def store_source(cluster: str, url: StoreUrl) -> StoreSource:
    """Make a source over a store's trust documents, without credentials."""
    from daskpki.boot.refresh import StoreSource

    return StoreSource(cluster, partial(_reader, url))


@contextmanager
def _reader(url: StoreUrl) -> Iterator[Reader]:
    """Open the store for one lookup, without a prompt.

    Secret Manager is read as a node reads it, since Google's library is slow. A node speaks REST only, so the library
    is used for an endpoint of another kind.
    """
    from daskpki.credentials.sources import open_without_asking
    from daskpki.settings import ENDPOINT, REST, GsmUrl, endpoint_for

    if isinstance(url, GsmUrl):
        from daskpki.boot.refresh import open_reader

        chosen = os.environ.get(ENDPOINT)
        if chosen is None or endpoint_for(url, os.environ).transport == REST:
            with open_reader(url, chosen, os.environ) as reader:
                yield reader
            return
    with closing(open_without_asking(url)) as opened:
        yield opened.secrets


def _credentials_source(wanted: Wanted) -> WholeSource:
    """Make a source over a credential's own source, such as a login that was renewed since.

    It raises the errors of `daskpki.credentials.sources.obtain`.
    """
    from daskpki.cluster.refresh import WholeSource
    from daskpki.cluster.tls import key_pair
    from daskpki.credentials.sources import obtain, this_process

    def read() -> tuple[Confidential, KeyPair]:
        found = obtain(wanted, this_process()).verified
        return found.signed, key_pair(found.credential)

    return WholeSource(read, "the source")

"""Dask's `security-loader`: what plain `Client("tls://...")` asks for its certificate.

`daskpki login` names it in the user's Dask configuration, and the entrypoint in that of a node. Dask calls it for
every address that is a string, also from inside an event loop, and gives it nothing but the address. It never asks at
a terminal. What it does not know is None, so that every other cluster works as if daskpki were not there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from daskpki.credentials.contexts import SCHEME
from daskpki.credentials.source_selection import DIRECTORY
from daskpki.errors import DaskpkiError
from daskpki.identity import Role
from daskpki.settings import GsmUrl, LocalUrl, home

if TYPE_CHECKING:
    from pathlib import Path

    from daskpki.boot.fetch import Reader
    from daskpki.cluster.enforcement import Keeping
    from daskpki.cluster.refresh import Lookout, Source
    from daskpki.cluster.security import PkiSecurity
    from daskpki.cluster.tls import KeyPair
    from daskpki.cluster.trust_updates import TrustMessage
    from daskpki.credentials.newest_trust import NewestTrust
    from daskpki.credentials.source_selection import Wanted
    from daskpki.credentials.sources import Environment, Obtained
    from daskpki.credentials.verified import VerifiedCredential
    from daskpki.pki.trust_document import TrustDocument

logger = logging.getLogger("distributed.daskpki")


def security_loader(info: dict[str, Any]) -> PkiSecurity | None:
    """The Security for `info["address"]`; None for another scheme, and for an address that no login knows.

    A login without addresses is for every address that no other login claims. UsageError names the candidates when
    several fit; AccessDeniedError without the keyring; NotTrustedError when the credential does not hold.
    """
    address = info.get("address")
    if not isinstance(address, str) or not address.lower().startswith(SCHEME):
        return None
    from daskpki.credentials.source_selection import Wanted
    from daskpki.credentials.sources import knows, obtain, this_process

    wanted, here = Wanted(address=address), this_process()
    return dial_security(obtain(wanted, here), wanted, here) if knows(wanted, here) else None


def dial_security(obtained: Obtained, wanted: Wanted, here: Environment) -> PkiSecurity:
    """The Security under which a client dials with this credential, and with what is renewed where it came from."""
    from daskpki.cluster.security import client_security, node_security
    from daskpki.credentials.source_selection import Source as From
    from daskpki.handover import VARIABLE, load_handover

    held = obtained.held
    if obtained.choice.source is From.HANDOVER:  # the worker's own, which tasks use as well
        return node_security(load_handover(here.environ[VARIABLE]))
    name, cluster = held.credential.identity.name, held.credential.cluster
    source = RenewedCredential(wanted._replace(name=name, cluster=cluster))
    place = str(obtained.store or f"directory {here.environ[DIRECTORY]}")
    memory = _home(here)
    security = client_security(
        held.credential,
        held.trust,
        source=source,
        lookout=_lookout(
            (str(memory), place, cluster), StoreTrust(cluster, obtained.store) if obtained.store else source
        ),
    )
    if memory is not None:
        _remember(security, here.newest_trust(here.contexts.id_of(place, cluster, name)))
    return security


def _home(here: Environment) -> Path | None:
    """Where something may be kept; None for a user without a home directory, as in some containers."""
    try:
        return home(here.environ)
    except (RuntimeError, DaskpkiError):
        return None


_LOOKOUTS: dict[tuple[str, str, str], Lookout] = {}


def _lookout(place: tuple[str, str, str], source: Source) -> Lookout:
    """The one of this process for that home, place and cluster: two clients do not ask twice."""
    from daskpki.cluster.refresh import Lookout

    return _LOOKOUTS.setdefault(place, Lookout(source))


def _remember(security: PkiSecurity, kept: NewestTrust) -> None:
    """Go by the newest trust document that was kept, and keep each that comes; without a memory it goes on as well."""
    keeper = security.enforcement(Role.CLIENT).keeper
    assert keeper is not None

    def keep(newer: Keeping) -> None:
        try:
            if newer.signed is not None:
                kept.keep(newer.signed)
        except DaskpkiError as error:
            logger.warning("the newest trust document is not kept for the next program: %s", error)

    try:
        if (signed := kept.load()) is not None:
            keeper.offer(signed)
    except DaskpkiError as error:
        logger.warning("the trust document that an earlier program kept is not used: %s", error)
    keeper.on_news.append(keep)


class StoreTrust:
    """`daskpki.cluster.refresh.Source` over a store's trust documents. Raises what a store raises."""

    def __init__(self, cluster: str, url: LocalUrl | GsmUrl) -> None:
        from daskpki.boot.refresh import TrustVersions

        self._versions = TrustVersions(cluster)
        self._url = url

    def trust_after(self, held: TrustDocument) -> Iterator[TrustMessage]:
        """See daskpki.cluster.refresh.Source."""
        with _reader(self._url) as store:
            yield from self._versions.after(store, held)

    def credential(self) -> None:
        """See daskpki.cluster.refresh.Source."""


@contextmanager
def _reader(url: LocalUrl | GsmUrl) -> Iterator[Reader]:
    """The store for one look, never by a prompt: Secret Manager as a node reads it, since Google's library takes long.

    That way speaks REST only, so that an endpoint of another kind is left to the library.
    """
    from daskpki.credentials.sources import open_without_asking

    if isinstance(url, GsmUrl):
        from daskpki.boot.refresh import open_reader
        from daskpki.store.gsm.endpoint import REST, VARIABLE, endpoint_for

        chosen = os.environ.get(VARIABLE)
        if chosen is None or endpoint_for(url, os.environ).transport == REST:
            with open_reader(url, chosen, os.environ) as reader:
                yield reader
            return
    with closing(open_without_asking(url)) as opened:
        yield opened.secrets


class RenewedCredential:
    """`daskpki.cluster.refresh.Source` over where a credential came from: what `daskpki login` wrote since, for example.

    Both raise what `daskpki.credentials.sources.obtain` raises.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted

    def trust_after(self, held: TrustDocument) -> Iterator[TrustMessage]:
        """See daskpki.cluster.refresh.Source."""
        from daskpki.cluster.trust_updates import TrustMessage

        obtained = self._obtain()
        if obtained.trust.epoch > held.epoch:
            yield TrustMessage(obtained.signed)

    def credential(self) -> KeyPair:
        """See daskpki.cluster.refresh.Source."""
        from daskpki.cluster.tls import KeyPair
        from daskpki.pki.credential import certificate_pem, key_pem

        credential = self._obtain().credential
        return KeyPair(certificate_pem(credential), key_pem(credential))

    def _obtain(self) -> VerifiedCredential:
        from daskpki.credentials.sources import obtain, this_process

        return obtain(self._wanted, this_process()).held

"""Dask's `security-loader`: what plain `Client("tls://...")` asks for its certificate.

`daskpki login` names it in the user's Dask configuration, and the entrypoint in that of a node. Dask calls it for
every address that is a string, also from inside an event loop, and gives it nothing but the address. It never asks at
a terminal. What it does not know is None, so that every other cluster works as if daskpki were not there.
"""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Any

from daskpki.credentials.contexts import SCHEME

if TYPE_CHECKING:
    from daskpki.cluster.security import PkiSecurity
    from daskpki.cluster.tls import KeyPair
    from daskpki.confidential import Confidential
    from daskpki.credentials.source_selection import Wanted
    from daskpki.credentials.sources import Environment, Obtained
    from daskpki.credentials.verified import VerifiedCredential


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
    from daskpki.credentials.source_selection import Source
    from daskpki.handover import VARIABLE, load_handover

    held = obtained.held
    if obtained.choice.source is Source.HANDOVER:  # the worker's own, which tasks use as well
        return node_security(load_handover(here.environ[VARIABLE]))
    same = wanted._replace(name=held.credential.identity.name, cluster=held.credential.cluster)
    return client_security(held.credential, held.trust, source=RenewedCredential(same))


class StoreTrust:
    """`daskpki.cluster.refresh.Source` over a store's trust documents; `store` is its URL, or None for the usual one.

    Raises what `daskpki.credentials.fetch` raises.
    """

    def __init__(self, cluster: str, store: str | None) -> None:
        self._cluster = cluster
        self._store = store

    def trust_after(self, epoch: int) -> Confidential | None:
        """See daskpki.cluster.refresh.Source."""
        from daskpki.credentials.fetch import fetch_trust
        from daskpki.credentials.sources import open_without_asking
        from daskpki.settings import store_url

        with closing(open_without_asking(store_url(os.environ, self._store))) as opened:
            found = fetch_trust(opened.secrets, self._cluster)
        return found.data if found.signed.document.epoch > epoch else None

    def credential(self) -> None:
        """See daskpki.cluster.refresh.Source."""


class RenewedCredential:
    """`daskpki.cluster.refresh.Source` over where a credential came from: what `daskpki login` wrote since, for example.

    Both raise what `daskpki.credentials.sources.obtain` raises.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted

    def trust_after(self, epoch: int) -> Confidential | None:
        """See daskpki.cluster.refresh.Source."""
        held = self._obtain()
        return held.signed if held.trust.epoch > epoch else None

    def credential(self) -> KeyPair:
        """See daskpki.cluster.refresh.Source."""
        from daskpki.cluster.tls import KeyPair
        from daskpki.pki.credential import certificate_pem, key_pem

        credential = self._obtain().credential
        return KeyPair(certificate_pem(credential), key_pem(credential))

    def _obtain(self) -> VerifiedCredential:
        from daskpki.credentials.sources import obtain, this_process

        return obtain(self._wanted, this_process()).held

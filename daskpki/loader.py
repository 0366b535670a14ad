"""Dask's `security-loader`: what plain `Client("tls://...")` asks for its certificate.

The wheel's `etc/dask/daskpki.yaml` names it (docs/adr/0014), and the entrypoint does so on a node. Dask calls it
for every address that is a string and for which no `security=` was given, also from inside an event loop, and tells
it nothing but the address. It never asks at a terminal. The first rule that fits decides:

1. Anything but a `tls://` address: None, so that Dask goes on as if daskpki were not there.
2. A credential that was handed down, or a directory or a store as the source: that credential.
3. A login that lists the address (`localhost`, `127.0.0.1` and `::1` are one host): that login.
4. Dask's own TLS files are configured (`distributed.comm.tls`): None.
5. Exactly one login without addresses, or one that `context use` chose: that login.
6. Else an error that names the address, those that are known and the way out; without a certificate, Dask could only
   fail. Only the public files of logins are read for this; the keyring is opened for the login that was chosen.
"""

from __future__ import annotations

import logging
import os
from contextlib import closing
from typing import TYPE_CHECKING, Any

from daskpki.credentials.addresses import SCHEME

if TYPE_CHECKING:
    from daskpki.cluster.contexts import KeyPair
    from daskpki.cluster.news import SignedTrust
    from daskpki.cluster.security import PkiSecurity
    from daskpki.credentials.choice import Wanted
    from daskpki.credentials.held import Held
    from daskpki.credentials.sources import Obtained, Surroundings

logger = logging.getLogger("daskpki")


def security_loader(info: dict[str, Any]) -> PkiSecurity | None:
    """The Security for `info["address"]`, or None; the module's first lines have the rules.

    NotFoundError when no rule fits, UsageError that names the candidates when several logins do; AccessDeniedError
    without the keyring; NotTrustedError when the credential does not hold.
    """
    address = info.get("address")
    if not isinstance(address, str) or not address.lower().startswith(SCHEME):
        return None
    from daskpki.credentials.choice import Wanted
    from daskpki.credentials.sources import leaves_to_dask, obtain, this_process

    wanted, here = Wanted(address=address), this_process()
    if _has_tls_files() and leaves_to_dask(wanted, here):
        return None
    return dial_security(obtain(wanted, here), wanted, here)


def _has_tls_files() -> bool:
    """Whether Dask's configuration names certificates of another kind, with which it can dial by itself."""
    from dask import config

    return any(config.get(f"distributed.comm.tls.{name}", None) for name in ("ca-file", "client.cert", "client.key"))


def dial_security(obtained: Obtained, wanted: Wanted, here: Surroundings) -> PkiSecurity:
    """The Security under which a client dials with this credential, and with what is renewed where it came from."""
    from daskpki.cluster.security import client_security, node_security
    from daskpki.credentials.choice import Source
    from daskpki.handover import VARIABLE, load_handover

    held = obtained.held
    if obtained.choice.source is Source.HANDOVER:  # the worker's own, which tasks use as well
        return node_security(load_handover(here.environ[VARIABLE]))
    _announce_end(obtained, wanted, here)
    same = wanted._replace(name=held.credential.identity.name, cluster=held.credential.cluster)
    return client_security(held.credential, held.trust, fetch_piece=held.fetch_piece, source=RenewedCredential(same))


_announced: set[bytes] = set()
"""Certificates whose end was announced in this process."""


def _announce_end(obtained: Obtained, wanted: Wanted, here: Surroundings) -> None:
    """Warn of a near end, once a process; by the logger, since `-W error` would make a failure of a warning."""
    from daskpki.credentials.expiry import ending, remaining_seconds
    from daskpki.credentials.sources import renewal

    credential = obtained.held.credential
    end = ending(credential.leaf, obtained.held.trust, here.now)
    if not end.is_near or credential.leaf in _announced:
        return
    _announced.add(credential.leaf)
    left = remaining_seconds(int((end.at - here.now).total_seconds()))
    logger.warning(
        "the credential of %s ends %s (%s), with %s: %s renews it",
        credential.identity.uri,
        left,
        f"{end.at:%Y-%m-%d %H:%M UTC}",
        end.what,
        renewal(obtained, wanted, here),
    )


class StoreTrust:
    """`daskpki.cluster.watch.Source` over a store's trust documents; `store` is its URL, or None for the usual one.

    Raises what `daskpki.credentials.fetching` raises.
    """

    def __init__(self, cluster: str, store: str | None) -> None:
        self._cluster = cluster
        self._store = store

    def trust_after(self, epoch: int) -> SignedTrust | None:
        """See daskpki.cluster.watch.Source."""
        from daskpki.cluster.news import SignedTrust
        from daskpki.credentials.fetching import fetch_pieces, fetch_trust
        from daskpki.credentials.sources import open_without_asking
        from daskpki.settings import store_url

        with closing(open_without_asking(store_url(os.environ, self._store))) as opened:
            found = fetch_trust(opened.secrets, self._cluster)
            document = found.signed.document
            if document.epoch <= epoch:
                return None
            return SignedTrust(found.data, fetch_pieces(opened.secrets, self._cluster, document))

    def credential(self) -> None:
        """See daskpki.cluster.watch.Source."""


class RenewedCredential:
    """`daskpki.cluster.watch.Source` over where a credential came from: what `daskpki login` wrote since, for example.

    Both raise what `daskpki.credentials.sources.obtain` raises.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted

    def trust_after(self, epoch: int) -> SignedTrust | None:
        """See daskpki.cluster.watch.Source."""
        from daskpki.cluster.news import SignedTrust

        held = self._obtain()
        return SignedTrust(held.signed, held.pieces) if held.trust.epoch > epoch else None

    def credential(self) -> KeyPair:
        """See daskpki.cluster.watch.Source."""
        from daskpki.cluster.contexts import KeyPair
        from daskpki.pki.credential import certificate_pem, key_pem

        credential = self._obtain().credential
        return KeyPair(certificate_pem(credential), key_pem(credential))

    def _obtain(self) -> Held:
        from daskpki.credentials.sources import obtain, this_process

        return obtain(self._wanted, this_process()).held

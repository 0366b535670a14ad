"""The `distributed.Security` objects of daskpki: for a person or service, and for a node that was booted.

They hold no path and no PEM text that Dask could write to a disk; what Dask asks them for is an Enforcement.

Opening a client, for the Python API, which does not import distributed itself.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from distributed import Client, Security

from daskpki.cluster.audit import Audit
from daskpki.cluster.backend import install
from daskpki.cluster.child_processes import HandedOn
from daskpki.cluster.enforcement import CONNECTION_ARGUMENT, Enforcement
from daskpki.cluster.policy import WorkerClients
from daskpki.cluster.refresh import OnDial, Source
from daskpki.cluster.tls import KeyPair
from daskpki.cluster.trust_state import trust_of
from daskpki.cluster.trust_updates import TrustManager
from daskpki.cluster.web.access import Dashboard
from daskpki.confidential import Confidential
from daskpki.errors import NotTrustedError
from daskpki.handover import Handover
from daskpki.identity import Identity, Role, parse_role
from daskpki.pki.credential import Credential, certificate_pem, key_pem
from daskpki.pki.pem import CERTIFICATE, parse_pem
from daskpki.pki.trust_document import TrustDocument

__all__ = ["Client", "open_client"]

_NO_FILES: Final = dict.fromkeys(name for name in Security.__slots__ if name.startswith("tls_"))
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class PkiSecurity(Security):
    """A Security whose arguments for connections carry an Enforcement. It is never pickled: it would carry a key."""

    def __init__(self, enforcements: Mapping[Role, Enforcement]) -> None:
        super().__init__(require_encryption=True, **_NO_FILES)
        self.enforcements = dict(enforcements)

    def get_connection_args(self, role: str) -> dict[str, Any]:
        """See distributed.Security. `role` is whom Dask wants to dial as; NotTrustedError without its credential."""
        return self._arguments(role) | {"extra_conn_args": self.extra_conn_args}

    def get_listen_args(self, role: str) -> dict[str, Any]:
        """See distributed.Security."""
        return self._arguments(role)

    def get_tls_config_for_role(self, role: str) -> dict[str, Any]:  # noqa: ARG002 - Dask's signature
        """Nothing: there are no files. dask-jobqueue makes options of `dask worker` of what is in it."""
        return {}

    def _arguments(self, role: str) -> dict[str, Any]:
        install()
        return {CONNECTION_ARGUMENT: self.enforcement(Role(role)), "require_encryption": True}

    def enforcement(self, role: Role) -> Enforcement:
        """The credential for that role; NotTrustedError when there is none."""
        try:
            return self.enforcements[role]
        except KeyError:
            owned = " and ".join(each.identity.uri for each in self.enforcements.values())
            raise NotTrustedError(f"the credential of {owned} does not make a {role.value}") from None

    def _attr_to_dict(self) -> dict[str, Any]:
        """What `repr` and notebooks show."""
        return {
            f"{role.value}": f"{each.identity.uri} (trust epoch {each.trust.epoch})"
            for role, each in self.enforcements.items()
        }

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Security of daskpki holds a private key, and is never pickled or copied")


def client_security(
    credential: Credential,
    trust: TrustDocument,
    *,
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    source: Source | None = None,
) -> PkiSecurity:
    """A Security for a client (a person or a service) that holds `credential` and trusts by the verified `trust`.

    It speaks to the scheduler and, for direct transfers, to workers of its own trust domain, and to nobody else.
    NotTrustedError when the credential has no key, or another role than client;
    `source` is where a renewed credential is looked for before dialling.
    """
    if credential.identity.role is not Role.CLIENT:
        raise NotTrustedError(f"{credential.identity.uri} is no client", hint="people and services hold client leaves")
    pair = KeyPair(certificate_pem(credential), key_pem(credential))
    quiet = Audit(usual=logging.DEBUG)  # whoever connects sees results on the terminal, and no log
    enforcement = Enforcement(credential.identity, pair, trust_of(trust), minimum=minimum, audit=quiet)
    enforcement.keeper = TrustManager(enforcement, trust)
    if source is not None:
        enforcement.before_dialling = OnDial(enforcement, enforcement.keeper, source)
    return PkiSecurity({Role.CLIENT: enforcement})


class NodeSecurity(PkiSecurity):
    """The Security of a booted node.

    Pickled, it is its handover, whose paths say where the key is: so a nanny's worker process gets the same. Once it
    hands on, that is the handover of what holds by then.
    """

    def __init__(self, handover: Handover) -> None:
        role = parse_role(handover.role)
        identity = Identity(handover.trust_domain, role, handover.name)
        pair = KeyPair(Path(handover.cert).read_text(), Confidential(Path(handover.key).read_bytes()))
        document, signed = _handed_trust(handover)
        enforcement = Enforcement(
            identity,
            pair,
            trust_of(document),
            mode=WorkerClients(handover.worker_clients),
            minimum=_VERSIONS[handover.tls_min],
            allow_stale=handover.freshness.stale_trust == "allow",
            dashboard=Dashboard(handover.dashboard),
        )
        roles = [role, Role.CLIENT] if role is Role.WORKER else [role]  # tasks are clients under their worker's leaf
        super().__init__(dict.fromkeys(roles, enforcement))
        self.handover = handover
        self.keeper = enforcement.keeper = TrustManager(enforcement, document, signed)
        self._handed_on: HandedOn | None = None

    def hand_on(self) -> str:
        """From now on keep what this process goes by where those that it starts can read it; the handover's path."""
        if self._handed_on is None:
            self._handed_on = HandedOn(self.handover)
            self.keeper.on_news.append(self._handed_on.take_trust)
            self.keeper.on_credential.append(self._handed_on.take_credential)
        return self._handed_on.path

    def __reduce_ex__(self, protocol: object) -> Any:
        return node_security, (self._handed_on.handover if self._handed_on else self.handover,)


def node_security(handover: Handover) -> NodeSecurity:
    """The Security of the process to which daskpki-entrypoint handed over; NotTrustedError, CorruptError."""
    return NodeSecurity(handover)


def _handed_trust(handover: Handover) -> tuple[TrustDocument, Confidential]:
    """The document, verified once more against the handed CAs, and as it was signed."""
    from daskpki.pki.trust import parse_trust, verify_trust

    blocks = parse_pem(Path(handover.ca).read_bytes(), "the handed CA certificates")
    anchors = [der for label, der in blocks if label == CERTIFICATE]
    signed = Confidential(Path(handover.trust).read_bytes())
    document = verify_trust(parse_trust(signed), now=datetime.now(UTC), cluster=handover.cluster, anchors=anchors)
    return document, signed


def open_client(address: str, *, security: PkiSecurity, **client_kwargs: Any) -> Client:
    """A Client of that scheduler; `asynchronous=True` among the others gives one to be awaited."""
    return Client(address, security=security, **client_kwargs)

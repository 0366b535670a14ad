"""The `distributed.Security` objects of daskpki: for a person or service, and for a booted node.

They have no path and no PEM text that Dask could write to a disk. Dask gets an Enforcement instead of TLS arguments.
The functions below them open a Client and find a dashboard; they are here because neither the Python API nor the
command line imports distributed.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from distributed import Client, Security
from distributed.core import rpc
from tornado.iostream import IOStream
from tornado.tcpclient import TCPClient

from daskpki.cluster.audit import Audit
from daskpki.cluster.backend import install
from daskpki.cluster.child_processes import ChildHandover
from daskpki.cluster.enforcement import CONNECTION_ARGUMENT, Enforcement
from daskpki.cluster.peer import shown_certificate, trust_of
from daskpki.cluster.policy import ARGUMENT, Dashboard, Destinations, WorkerClients
from daskpki.cluster.refresh import DialRefresh, SharedLookup, Source
from daskpki.cluster.tls import KeyPair, key_pair
from daskpki.cluster.trust_updates import TrustManager
from daskpki.confidential import Confidential
from daskpki.errors import NotTrustedError
from daskpki.handover import SEALED, Handover
from daskpki.identity import Identity, Role, parse_role
from daskpki.pki.credential import Credential
from daskpki.pki.pem import parse_certificates
from daskpki.pki.trust_document import TrustDocument, parse_trust

_NO_FILES: Final = dict.fromkeys(name for name in Security.__slots__ if name.startswith("tls_"))
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class PkiSecurity(Security):
    """A Security whose arguments for connections carry an Enforcement. It is never pickled: it would carry a key."""

    def __init__(self, enforcements: Mapping[Role, Enforcement]) -> None:
        super().__init__(require_encryption=True, **_NO_FILES)
        self.enforcements = dict(enforcements)

    def get_connection_args(self, role: str) -> dict[str, Any]:
        """Return the arguments to dial as `role`; NotTrustedError without its credential.

        The first address that is dialled with them has to be a scheduler's (`daskpki.cluster.policy`).
        """
        return self.get_listen_args(role) | {"extra_conn_args": self.extra_conn_args, ARGUMENT: Destinations()}

    def get_listen_args(self, role: str) -> dict[str, Any]:
        """Return the arguments to listen as `role`; NotTrustedError without its credential."""
        install()
        return {CONNECTION_ARGUMENT: self.enforcement(Role(role)), "require_encryption": True}

    def get_tls_config_for_role(self, role: str) -> dict[str, Any]:  # noqa: ARG002 - Dask's signature
        """Return an empty dict, since there are no files; dask-jobqueue makes options of `dask worker` from them."""
        return {}

    def enforcement(self, role: Role) -> Enforcement:
        """Return the Enforcement of that role; NotTrustedError if there is none."""
        try:
            return self.enforcements[role]
        except KeyError:
            owned = " and ".join(each.identity.uri for each in self.enforcements.values())
            raise NotTrustedError(f"the credential of {owned} does not make a {role.value}") from None

    def _attr_to_dict(self) -> dict[str, Any]:
        """Describe the credentials for `repr` and notebooks."""
        return {
            f"{role.value}": f"{each.identity.uri} (trust epoch {each.trust.epoch})"
            for role, each in self.enforcements.items()
        }

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Security of daskpki has a private key, and is never pickled or copied")


def client_security(
    credential: Credential,
    trust: TrustDocument,
    *,
    source: Source | None = None,
    shared: SharedLookup | None = None,
) -> PkiSecurity:
    """Make the Security of a client (a person or a service) from `credential` and the verified `trust`.

    The client speaks to the scheduler and, for direct transfers, to workers of its trust domain only. NotTrustedError
    if the credential has no key, or another role. Before dialling, `source` is asked for a renewed credential, and
    `shared` for a newer trust document.
    """
    if credential.identity.role is not Role.CLIENT:
        raise NotTrustedError(f"{credential.identity.uri} is not a client", hint="use a client's leaf")
    quiet = Audit(usual=logging.DEBUG)  # a person's terminal shows results, not a log
    enforcement = Enforcement(credential.identity, key_pair(credential), trust_of(trust), audit=quiet)
    enforcement.manager = manager = TrustManager(enforcement, trust)
    if source is not None:
        enforcement.on_dial = DialRefresh(manager, source, shared)
    return PkiSecurity({Role.CLIENT: enforcement})


class NodeSecurity(PkiSecurity):
    """The Security of a booted node; NotTrustedError, CorruptError.

    It is pickled as its handover, whose paths lead to the key, so that a nanny's worker process gets the same. After
    `hand_to_children`, that is the newest handover.
    """

    def __init__(self, handover: Handover) -> None:
        role = parse_role(handover.role)
        identity = Identity(handover.trust_domain, role, handover.name)
        pair = KeyPair(Path(handover.cert).read_text(), Confidential(Path(handover.key).read_bytes()))
        # Verified once more, against the CAs of the handover.
        from daskpki.pki.trust import verify_trust

        anchors = parse_certificates(Path(handover.ca).read_bytes(), "the CA certificates of the handover")
        signed = Confidential(Path(handover.trust).read_bytes())
        document = verify_trust(parse_trust(signed), now=datetime.now(UTC), cluster=handover.cluster, anchors=anchors)
        enforcement = Enforcement(
            identity,
            pair,
            trust_of(document),
            mode=WorkerClients(handover.worker_clients),
            sealed=role is Role.SCHEDULER and handover.scheduler_code == SEALED,
            minimum=_VERSIONS[handover.tls_min],
            allow_stale=handover.freshness.stale_trust == "allow",
            dashboard=Dashboard(handover.dashboard),
        )
        roles = [role, Role.CLIENT] if role is Role.WORKER else [role]  # tasks are clients under their worker's leaf
        super().__init__(dict.fromkeys(roles, enforcement))
        self.handover = handover
        self.manager = enforcement.manager = TrustManager(enforcement, document, signed)
        self._for_children: ChildHandover | None = None

    def hand_to_children(self) -> str:
        """From now on, keep the newest material readable for child processes; return the path of the handover."""
        if self._for_children is None:
            self._for_children = ChildHandover(self.handover)
            self.manager.on_trust.append(self._for_children.keep_trust)
            self.manager.on_credential.append(self._for_children.keep_credential)
        return self._for_children.path

    def __reduce_ex__(self, protocol: object) -> Any:
        return NodeSecurity, (self._for_children.handover if self._for_children else self.handover,)


_PATIENCE: Final = 5.0
"""Seconds for a connection and its handshake."""


class LinkedClient(Client):
    """A Client whose dashboard link leads through daskpki's proxy, if `find_link` finds one."""

    def __init__(self, address: str, *, find_link: Callable[[], str | None], **arguments: Any) -> None:
        self._find_link = find_link
        super().__init__(address, **arguments)

    @property
    def dashboard_link(self) -> str | None:
        """Return the link to the proxy's page; without a proxy, Dask's own link."""
        link: str | None = self._find_link() or super().dashboard_link
        return link


async def scheduler_services(address: str, security: PkiSecurity) -> object:
    """Ask a scheduler for the ports of its HTTP services, by name; OSError, NotTrustedError."""
    async with rpc(address, timeout=_PATIENCE, connection_args=security.get_connection_args("client")) as scheduler:
        identity = await scheduler.identity(n_workers=0)
    return identity.get("services")


async def open_stream(security: PkiSecurity, host: str, port: int) -> IOStream:
    """Connect by TLS to a scheduler's HTTP server; OSError, or NotTrustedError if another role answers."""
    enforcement = security.enforcement(Role.CLIENT)
    refresh = enforcement.on_dial
    if refresh is not None:
        await refresh.begin()
    stream = await TCPClient().connect(host, port, ssl_options=enforcement.client_context(), timeout=_PATIENCE)
    try:
        if refresh is not None:
            await refresh.finish()
        enforcement.admit(shown_certificate(stream), frozenset({Role.SCHEDULER}))
    except BaseException:
        stream.close()
        raise
    return stream

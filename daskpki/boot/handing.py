"""Putting what was checked where Dask will read it: PEM files, the trust document, the handover that names them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from daskpki.boot.materialise import Place
from daskpki.boot.settings import Settings
from daskpki.confidential import Confidential
from daskpki.handover import NO_SECRETS, Handover, encode_handover
from daskpki.identity import Role
from daskpki.pki import pem
from daskpki.pki.credential import Credential, certificate_pem, key_pem
from daskpki.pki.trust_document import TrustDocument


def hand_over(
    place: Place,
    settings: Settings,
    credential: Credential,
    *,
    trust: TrustDocument,
    signed: Confidential,
    secrets: Mapping[str, str] = NO_SECRETS,
) -> tuple[Handover, str]:
    """Put everything for one program there; the handover, and the path at which it can be read.

    `secrets` are mounted already: paths by name.
    """
    version = settings.versions.get(credential.identity.role)
    anchors = "".join(pem.encode_pem(anchor, pem.CERTIFICATE) for anchor in trust.roots)
    handover = Handover(
        cluster=trust.cluster,
        trust_domain=trust.trust_domain,
        role=credential.identity.role.value,
        name=credential.identity.name,
        cert=place.put("cert.pem", certificate_pem(credential).encode()),
        key=place.put("key.pem", key_pem(credential).reveal()),
        ca=place.put("ca.pem", anchors.encode()),
        trust=place.put("trust.json", signed.reveal()),
        worker_clients=settings.worker_clients,
        dashboard=settings.dashboard,
        tls_min=settings.tls_min,
        store=str(settings.store) if settings.store else None,
        directory=_absolute(settings.directory_for(credential.identity.role)),
        endpoint=settings.endpoint,
        scheduler=settings.scheduler,
        secrets=secrets,
        pinned=str(version) if version else None,
        freshness=settings.freshness,
        health=_health(settings, credential.identity.role),
        metrics=settings.metrics,
    )
    return handover, place.put("handover.json", encode_handover(handover))


def _absolute(directory: str | None) -> str | None:
    return None if directory is None else os.path.abspath(directory)  # noqa: PTH100 - pathlib costs 9 ms at boot


def _health(settings: Settings, role: Role) -> str | None:
    """On a node the scheduler takes the address as it was given, and its workers the next port."""
    if settings.health is None or settings.command != "node" or role is Role.SCHEDULER:
        return settings.health
    host, _, port = settings.health.rpartition(":")
    return f"{host}:{int(port) + 1}"

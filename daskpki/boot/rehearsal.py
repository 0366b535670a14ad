"""A TLS handshake with oneself, in memory: OpenSSL judges key, chain, purpose, dates and revocation, as for Dask.

Nothing has to be imported for that but `ssl`. A scheduler's or worker's leaf has to pass on both sides, a client's on
the client's side only, since it is not made for servers (RFC 5280, 4.2.1.12).
"""

from __future__ import annotations

import ssl
from typing import Any

from daskpki.boot.materialise import Place
from daskpki.identity import Role
from daskpki.pki import pem
from daskpki.pki.credential import Credential, certificate_pem, key_pem

_CRL = "X509 CRL"
_ROUNDS = 8


def rehearse(
    place: Place, credential: Credential, anchors: tuple[bytes, ...], crls: tuple[bytes, ...]
) -> dict[str, Any]:
    """The credential's leaf as `getpeercert` shows it, once both sides have verified it; raises ssl.SSLError.

    `anchors` and `crls` are DER; every issuer of a leaf needs its CRL here.
    """
    trusted = [pem.encode_pem(anchor, pem.CERTIFICATE) for anchor in anchors]
    trusted += [pem.encode_pem(crl, _CRL) for crl in crls]
    paths = (
        place.put("cert.pem", certificate_pem(credential).encode()),
        place.put("key.pem", key_pem(credential).reveal()),
        place.put("ca.pem", "".join(trusted).encode()),
    )
    server = _context(ssl.PROTOCOL_TLS_SERVER, paths, verify=True)
    client = _context(ssl.PROTOCOL_TLS_CLIENT, paths, verify=credential.identity.role is not Role.CLIENT)
    return _shake_hands(server, client)


def _context(protocol: int, paths: tuple[str, str, str], *, verify: bool) -> ssl.SSLContext:
    certificate, key, anchors = paths
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_CRL_CHECK_LEAF
    context.load_verify_locations(cafile=anchors)
    context.load_cert_chain(certificate, key)
    return context


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server)
    for _ in range(_ROUNDS):
        done = [_step(side) for side in (theirs, ours)]
        if all(done):
            return dict(ours.getpeercert() or {})
    raise ssl.SSLError("the handshake does not end")


def _step(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True

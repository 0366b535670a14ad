"""The trust document as an append chain: its epoch is the sequence number, so the newest one is found by number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.errors import DisabledError, NotFoundError, NotTrustedError
from daskpki.pki.pem import fingerprint
from daskpki.pki.trust import follows
from daskpki.pki.trust_document import TrustPayload, parse_trust
from daskpki.store.append_chain import AppendChain, ChainHead, Link
from daskpki.store.port import SecretStore


class TrustCodec:
    """Codec of trust documents, whose epoch is the sequence number."""

    def encode(self, payload: TrustPayload) -> Confidential:
        """The bytes as they were signed."""
        return payload.data

    def decode(self, data: Confidential) -> TrustPayload:
        """Parse, without verifying; CorruptError, NotTrustedError for a newer format."""
        return TrustPayload(data, parse_trust(data))

    def link(self, payload: TrustPayload) -> Link:
        """Epoch, predecessor and operation stand in the document itself, under its signature."""
        document = payload.signed.document
        return Link(document.epoch, document.prev, document.operation)


def trust_chain(
    secrets: SecretStore, cluster: str, counts: Callable[[ChainHead[TrustPayload]], bool] = lambda _head: True
) -> AppendChain[TrustPayload]:
    """The cluster's chain of trust documents; `counts` raises for documents that do not count."""
    return AppendChain(secrets, secret_names.trust_id(cluster), TrustCodec(), counts=counts)


_RIVALS: Final = 64
"""Documents below the newest that are compared with it, down to the first that was destroyed."""


def verify_no_rival(chain: AppendChain[TrustPayload], newest: ChainHead[TrustPayload]) -> None:
    """Raise NotTrustedError if an older document counts as well and the newest one does not follow from it."""
    signed = newest.payload.signed
    for number in range(newest.number - 1, max(0, newest.number - _RIVALS), -1):
        try:
            rival = chain.read(number)
        except (NotFoundError, DisabledError):
            return
        if rival is None:
            continue
        other = rival.signed.document
        if other.epoch <= signed.document.epoch and not follows(signed, other):
            raise NotTrustedError(
                f"two CAs claim cluster {other.cluster!r}: version {newest.number} of its trust document is of CA "
                f"{fingerprint(signed.document.active.certificate)}, version {number} of CA "
                f"{fingerprint(other.active.certificate)}",
                hint="say which one is right: --ca-sha256 HEX, as init-ca or rotate-ca --emergency printed it",
            )

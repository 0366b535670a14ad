"""Cloud KMS as a place for CA keys (`daskpki.authority.custody.CaKeys`): its owner makes and destroys them, not we."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from daskpki.kms.client import KmsClient
from daskpki.kms.private_key import KmsPrivateKey
from daskpki.kms.uri import parse_kms_uri
from daskpki.pki.keys import KeyType


class KmsCaKeys(NamedTuple):
    """One key version, which is one generation's key."""

    client: KmsClient
    uri: str

    @property
    def sealing(self) -> str:
        """See CaKeys."""
        return "kms"

    def check(self) -> None:
        """Raise unless the key version is there for us, and of a kind that a CA can have."""
        KmsPrivateKey(self.client, parse_kms_uri(self.uri))

    def make(self, generation: int, kind: KeyType) -> KmsPrivateKey:  # noqa: ARG002 - the key version decides its kind
        """The key version that the URI names, which its owner made beforehand; UsageError when it is of no use."""
        return self.open(generation)

    def open(self, generation: int) -> KmsPrivateKey:  # noqa: ARG002 - the URI names the generation's own key
        """The key version; NotFoundError, AccessDeniedError, DisabledError."""
        return KmsPrivateKey(self.client, parse_kms_uri(self.uri))

    def discard(self, generation: int) -> None:
        """Nothing: whoever owns the key ring disables and destroys its versions."""


def kms_ca_keys(uri: str, environ: Mapping[str, str]) -> KmsCaKeys:
    """The place that a `gcpkms://` URI names; UsageError for a malformed one. Nothing is called yet."""
    parse_kms_uri(uri)
    return KmsCaKeys(KmsClient(environ), uri)

"""What every `SecretStore` does, as tests."""

from __future__ import annotations

from daskpki.store.conformance.metadata import MetadataSuite
from daskpki.store.conformance.payloads import PayloadSuite


class SecretStoreSuite(MetadataSuite, PayloadSuite):
    """Subclass it, and provide the fixture `backing`."""

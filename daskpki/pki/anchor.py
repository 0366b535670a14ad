"""A CA that a cluster trusts, as its trust document has it. Standard library only, since nodes read one at boot."""

from __future__ import annotations

from typing import Final, NamedTuple

NEXT: Final = "next"
ACTIVE: Final = "active"
RETIRING: Final = "retiring"
STATES: Final = (NEXT, ACTIVE, RETIRING)


class Anchor(NamedTuple):
    """One CA generation: its state, its trust anchor, and the intermediates below that, issuer first (DER)."""

    generation: int
    state: str
    certificate: bytes
    chain: tuple[bytes, ...] = ()

    @property
    def issuing(self) -> bytes:
        """The certificate (DER) whose key signs leaves, the CRL and this document."""
        return self.chain[0] if self.chain else self.certificate

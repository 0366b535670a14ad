"""Drafts of leaves for tests of logs."""

from __future__ import annotations

import random
from typing import NamedTuple

from daskpki.records import (
    ABANDONED,
    CA_ACTIVATED,
    CA_CREATED,
    CA_RESERVED,
    ISSUED,
    PUBLISHED,
    RESERVED,
    REVOKED,
    REVOKING,
    Draft,
    Stamp,
)

STAMP = Stamp(1_790_000_000, "op", "alice@example.com", "issue")


class Leaf(NamedTuple):
    """A leaf to be, by its serial."""

    serial: str
    name: str
    fingerprint: str

    def reserved(self) -> Draft:
        body = {"serial": self.serial, "role": "worker", "name": self.name, "issuer": 1, "key_type": "p256"}
        return Draft(RESERVED, body | {"not_before": 1_790_000_000, "not_after": 1_792_592_000})

    def issued(self) -> Draft:
        return Draft(ISSUED, {"serial": self.serial, "fingerprint": self.fingerprint, "version": 1})

    def abandoned(self) -> Draft:
        return Draft(ABANDONED, {"serial": self.serial})

    def revoking(self) -> Draft:
        return Draft(REVOKING, {"serial": self.serial, "reason": "keyCompromise", "at": 1_790_000_500})

    def revoked(self) -> Draft:
        return Draft(REVOKED, {"serial": self.serial})


def random_leaf(chance: random.Random, names: int = 1_000_000) -> Leaf:
    return Leaf(
        f"{chance.getrandbits(158) | 1 << 158:x}",
        f"pool-{chance.randrange(names)}",
        f"{chance.getrandbits(256):064x}",
    )


def new_ca(generation: int) -> list[Draft]:
    body = {"generation": generation, "key_uri": "store:", "trust_domain": "t.daskpki.internal"}
    certificate = {"generation": generation, "certificate": "MIIB" * 200}
    return [
        Draft(CA_RESERVED, body),
        Draft(CA_CREATED, certificate),
        Draft(CA_ACTIVATED, {"generation": generation}),
        Draft(PUBLISHED, {"epoch": generation, "version": generation, "next_update": 1_793_000_000}),
    ]

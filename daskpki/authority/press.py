"""What a run of leaves has in common: who signs them, under which policy, and where their keys come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from daskpki.confidential import Confidential
from daskpki.inventory import FROM_REQUEST, Inventory
from daskpki.pki.issuer import Issuer
from daskpki.pki.keys import KeyType, PublicKey, generate_key, serialize_key
from daskpki.pki.profile import LeafRequest, Policy

Wanted = Callable[[Inventory, LeafRequest], bool]
"""Whether a leaf is still to be issued, judged on the very state of the log that its reservation is appended to."""


def always(_inventory: Inventory, _request: LeafRequest) -> bool:
    """Whatever was asked for is wanted."""
    return True


class Press(NamedTuple):
    """With `public_key`, that of somebody's request, there is one leaf, and no private key is made or kept."""

    issuer: Issuer
    policy: Policy
    key_type: KeyType = KeyType.P256
    wanted: Wanted = always
    public_key: PublicKey | None = None

    @property
    def renews(self) -> bool:
        """Whether each leaf takes the place of one that was stored before."""
        return self.wanted is not always

    @property
    def recorded_key_type(self) -> str:
        """How the log names it."""
        return self.key_type.value if self.public_key is None else FROM_REQUEST

    def key_pair(self) -> tuple[Confidential | None, PublicKey]:
        """A private key as it is kept (PKCS#8 DER), if we make one, and the public key to be certified."""
        if self.public_key is not None:
            return None, self.public_key
        key = generate_key(self.key_type)
        return serialize_key(key), key.public_key()

"""Which kinds of key may be asked for: for a leaf, for its renewal, for a CA."""

from __future__ import annotations

from daskpki.errors import PolicyError, UsageError
from daskpki.inventory import FROM_REQUEST
from daskpki.pki.keys import KeyType


def parse_key_type(text: str) -> KeyType:
    """The key type of that name; UsageError that lists them."""
    try:
        return KeyType(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a key type", hint=f"key types are {', '.join(KeyType)}") from None


def parse_renewable_key_type(text: str) -> KeyType:
    """The kind of key that a renewal makes; PolicyError where the key never travelled."""
    if text == FROM_REQUEST:
        raise PolicyError(
            "a certificate whose key stayed with its holder cannot be renewed here",
            hint="its holder runs daskpki request, and you daskpki sign",
        )
    return parse_key_type(text)


def parse_ca_key_type(text: str) -> KeyType:
    """A key type that a CA may have: Ed25519 is not one, since NSS and browsers refuse its signatures."""
    kind = parse_key_type(text)
    if kind is KeyType.ED25519:
        raise PolicyError("an Ed25519 CA is refused by several validators", hint="p256, p384 or rsa3072 work")
    return kind

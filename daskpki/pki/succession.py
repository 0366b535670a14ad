"""Successor statements: a retired CA signs which CA replaces it.

A trust document is trusted by those who trusted the previous one. Nodes look once a minute, people much less often, so
they miss documents; if they miss the one that drops a CA, they miss the only one that both the old and the new CA
signed. So each document carries the statements of recently dropped CAs, which lead from any of those to a CA that is
trusted now. A statement says no more than the dropped CA's key could have said all along.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from daskpki.errors import CorruptError, NotTrustedError, UsageError
from daskpki.pki.json_fields import as_object, base64_text, compact_json, integer, octets

if TYPE_CHECKING:
    from daskpki.pki.issuer import Issuer
    from daskpki.pki.trust_document import Anchor

_TYPE: Final = b"application/vnd.daskpki.succession.v1+json"
_WHAT: Final = "a succession in the trust document"
_KEPT: Final = 4096
"""Bytes of certificates and signatures that a document carries along for this; the newest word always."""


class Succession(NamedTuple):
    """The word of CA `generation`: CA `successor` comes after me.

    `certificate` is the successor's trust anchor and `issuing` the certificate whose key signs documents (DER).
    """

    generation: int
    successor: int
    certificate: bytes
    issuing: bytes
    signature: bytes


def sign_succession(cluster: str, issuer: Issuer, successor: Anchor) -> Succession:
    """The word of `issuer`, which is dropped, on the CA that is active from now on."""
    from daskpki.pki import keys

    word = Succession(issuer.generation, successor.generation, successor.certificate, successor.issuing, b"")
    return word._replace(signature=keys.sign(issuer.key, _signed_bytes(cluster, word)))


def carried(words: Sequence[Succession]) -> tuple[Succession, ...]:
    """Keep the newest statements that fit into a document."""
    kept: list[Succession] = []
    room = _KEPT
    for word in reversed(words):
        room -= len(word.certificate) + len(word.issuing) + len(word.signature)
        if kept and room < 0:
            break
        kept.insert(0, word)
    return tuple(kept)


def heirs(cluster: str, trusted: Iterable[Anchor], words: Iterable[Succession]) -> set[bytes]:
    """The trust anchors (DER) of `trusted`, and those to which their words lead; a false word leads nowhere."""
    issuing: Mapping[int, bytes] = {anchor.generation: anchor.issuing for anchor in trusted}
    found = {anchor.certificate for anchor in trusted}
    for word in words:
        if word.generation in issuing and _is_true(cluster, word, issuing[word.generation]):
            issuing = {word.successor: word.issuing, **issuing}  # a generation that is known stays who it is
            found.add(word.certificate)
    return found


def _is_true(cluster: str, word: Succession, issuing: bytes) -> bool:
    from daskpki.pki import keys
    from daskpki.pki.certificates import load_certificate

    key = load_certificate(issuing).public_key()
    try:
        keys.key_type(key)
        assert isinstance(key, keys.PublicKey)
        keys.verify(key, word.signature, _signed_bytes(cluster, word))
    except (NotTrustedError, UsageError):
        return False
    return True


def _signed_bytes(cluster: str, word: Succession) -> bytes:
    body = compact_json({"cluster": cluster} | succession_json(word._replace(signature=b""))).reveal()
    return b"DSSEv1 %d %b %d %b" % (len(_TYPE), _TYPE, len(body), body)


def succession_json(word: Succession) -> dict[str, Any]:
    """As it stands in a document."""
    return {
        "generation": word.generation,
        "successor": word.successor,
        "certificate": base64_text(word.certificate),
        "issuing": base64_text(word.issuing),
        "signature": base64_text(word.signature),
    }


def parse_successions(value: object) -> tuple[Succession, ...]:
    """The words in a document, not verified; CorruptError. A document of an earlier daskpki has none."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise CorruptError("the trust document's successions are not a list")
    return tuple(_succession(as_object(entry, _WHAT)) for entry in value)


def _succession(value: dict[str, Any]) -> Succession:
    return Succession(
        integer(value, "generation", _WHAT, least=1),
        integer(value, "successor", _WHAT, least=1),
        *(octets(value.get(name), _WHAT) for name in ("certificate", "issuing", "signature")),
    )

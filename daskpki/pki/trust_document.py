"""The trust document: the CAs that a cluster trusts and their revocations, as values and as JSON of format 1.

Standard library only, since nodes read one at boot. `daskpki.pki.trust` decides whether a document is trusted.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from daskpki.confidential import Confidential
from daskpki.errors import CorruptError, DaskpkiError, UsageError
from daskpki.identity import parse_label, parse_trust_domain
from daskpki.pki import json_fields
from daskpki.pki.json_fields import array, as_object, base64_text, integer, moment, octets, string
from daskpki.pki.pem import is_der
from daskpki.secret_names import MAX_PAYLOAD

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
        """The certificate (DER) whose key signs leaves, the CRL and trust documents."""
        return self.chain[0] if self.chain else self.certificate


FORMAT: Final = 1
READER: Final = 1
"""The newest `min_reader` that this version can satisfy."""

PAYLOAD_TYPE: Final = "application/vnd.daskpki.trust.v1+json"

_WHAT: Final = "the trust document"
_SHA256_DIGITS: Final = 64
_SERIAL_OCTETS: Final = 16  # no serial of ours is longer (daskpki.pki.profile.MAX_SERIAL)


class CrlPart(NamedTuple):
    """The complete CRL of one generation: its DER as a zlib stream, its number and its dates.

    Times are in seconds since the epoch.
    """

    generation: int
    number: int
    this_update: int
    next_update: int
    compressed: bytes


class DroppedCa(NamedTuple):
    """A CA that was removed from the trust document, and the revoked serials among those that it had issued.

    The serials decide which of the live connections accepted under that CA may go on. If `serials` is None, there were
    too many to list, and none of these connections may. `issuer` is the issuing certificate's name
    (`daskpki.pki.certificates.name_text`).
    """

    generation: int
    issuer: str
    serials: tuple[int, ...] | None


class Succession(NamedTuple):
    """Signed statement of CA `generation`, which was dropped: CA `successor` replaces it.

    `certificate` is the successor's trust anchor and `issuing` the certificate whose key signs documents (DER).
    """

    generation: int
    successor: int
    certificate: bytes
    issuing: bytes
    signature: bytes


class TrustDocument(NamedTuple):
    """The CAs and revocations that nodes and people rely on.

    `epoch` counts documents; `prev` is the version number of the one before, or 0. `log` is number and hash of the head
    of the cluster's log; `issued_at` in seconds since the epoch. `successions` are the statements of dropped CAs,
    oldest first; `root_crls` (DER) the CRLs of offline roots about the intermediates below them; `revoked_dropped` the
    revoked serials of dropped CAs.
    """

    format: int
    min_reader: int
    cluster: str
    trust_domain: str
    epoch: int
    prev: int
    operation: str
    issued_at: int
    authorities: tuple[Anchor, ...]
    crls: tuple[CrlPart, ...]
    log: tuple[int, str]
    schedulers: tuple[str, ...] = ()
    successions: tuple[Succession, ...] = ()
    root_crls: tuple[bytes, ...] = ()
    revoked_dropped: tuple[DroppedCa, ...] = ()

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The trust anchors (DER) for `ca_file`: all of them, also during a rollover."""
        return tuple(anchor.certificate for anchor in self.authorities)

    @property
    def active(self) -> Anchor:
        """The CA that issues; CorruptError unless there is exactly one."""
        active = [anchor for anchor in self.authorities if anchor.state == ACTIVE]
        if len(active) != 1:
            raise CorruptError(f"{_WHAT} names {len(active)} active CAs instead of one")
        return active[0]


class Signature(NamedTuple):
    """A signature by the issuing key of a CA generation."""

    generation: int
    value: bytes


class SignedTrustDocument(NamedTuple):
    """A parsed document with its signatures, **not verified**."""

    payload: str
    signatures: tuple[Signature, ...]
    document: TrustDocument


class TrustPayload(NamedTuple):
    """A stored trust document: its bytes and its content, unverified."""

    data: Confidential
    signed: SignedTrustDocument


def encode_document(document: TrustDocument) -> str:
    """Encode a document as the JSON text that is signed."""
    value = as_json(document._replace(revoked_dropped=())) | {
        "log": {"seq": document.log[0], "hash": document.log[1]},
        "revoked_dropped": [_dropped_json(entry) for entry in document.revoked_dropped],
    }
    return json.dumps(value, separators=(",", ":"))


def as_json(part: object) -> Any:
    """Encode a part of a document: named fields as an object, other tuples as an array, bytes as base64."""
    if isinstance(part, bytes):
        return base64_text(part)
    if isinstance(part, tuple):
        fields: dict[str, object] | None = part._asdict() if hasattr(part, "_asdict") else None
        return {name: as_json(each) for name, each in fields.items()} if fields else [as_json(each) for each in part]
    return part


def _dropped_json(entry: DroppedCa) -> dict[str, Any]:
    serials = entry.serials
    packed = None if serials is None else b"".join(serial.to_bytes(_SERIAL_OCTETS) for serial in serials)
    return entry._asdict() | {"serials": None if packed is None else base64_text(packed)}


def signed_bytes(payload: str) -> bytes:
    """Return the bytes that are signed for this payload."""
    return json_fields.signing_input(PAYLOAD_TYPE.encode(), payload.encode())


def encode_envelope(payload: str, signatures: tuple[Signature, ...]) -> Confidential:
    """Encode the payload to store; DaskpkiError if it is longer than a payload may be."""
    entries = [{"generation": entry.generation, "signature": base64_text(entry.value)} for entry in signatures]
    data = json_fields.compact_json({"format": FORMAT, "payload": payload, "signatures": entries})
    if len(data) > MAX_PAYLOAD:
        raise DaskpkiError(
            f"too many are revoked: {_WHAT} would have {len(data)} bytes, and {MAX_PAYLOAD} fit",
            hint="daskpki rotate-ca --emergency: the next CA begins with an empty revocation list",
        )
    return data


HALF_FULL: Final = 0.5
"""The share from which commands and doctor warn."""


def fill(document: TrustDocument) -> float:
    """Return the share of a payload that the document takes, without its signatures."""
    return len(encode_document(document)) / MAX_PAYLOAD


def parse_trust(data: Confidential) -> SignedTrustDocument:
    """Parse a payload, **not verified**; CorruptError, or NotTrustedError for a newer format."""
    envelope = json_fields.parse_json(data.reveal(), _WHAT)
    json_fields.check_format(envelope, _WHAT, reader=FORMAT)
    payload = string(envelope, "payload", _WHAT)
    signatures = tuple(
        Signature(integer(entry, "generation", _WHAT, least=1), octets(entry.get("signature"), "a signature"))
        for entry in _objects(envelope, "signatures")
    )
    return SignedTrustDocument(payload, signatures, parse_document(payload))


def _objects(value: dict[str, Any], field: str) -> list[dict[str, Any]]:
    return [as_object(entry, _WHAT) for entry in array(value, field, _WHAT)]


def parse_document(payload: str) -> TrustDocument:
    """Parse the text that is signed; CorruptError, or NotTrustedError if it is for newer readers only."""
    value = json_fields.parse_json(payload.encode(), _WHAT)
    json_fields.check_format(value, _WHAT, reader=FORMAT)
    log = as_object(value.get("log"), f"{_WHAT}'s log")
    try:
        return TrustDocument(
            format=FORMAT,
            min_reader=json_fields.check_format(value, _WHAT, reader=READER, field="min_reader"),
            cluster=parse_label(string(value, "cluster", _WHAT), "cluster"),
            trust_domain=parse_trust_domain(string(value, "trust_domain", _WHAT)),
            epoch=integer(value, "epoch", _WHAT, least=1),
            prev=integer(value, "prev", _WHAT),
            operation=string(value, "operation", _WHAT),
            issued_at=moment(value, "issued_at", _WHAT),
            authorities=tuple(map(_anchor, _objects(value, "authorities"))),
            crls=tuple(map(_crl_part, _objects(value, "crls"))),
            log=(integer(log, "seq", _WHAT), _digest(log.get("hash"))),
            schedulers=tuple(json_fields.as_text(entry, "an address") for entry in array(value, "schedulers", _WHAT)),
            successions=tuple(map(_succession, _objects(value, "successions"))),
            root_crls=tuple(map(_root_crl, array(value, "root_crls", _WHAT))),
            revoked_dropped=tuple(map(_dropped, _objects(value, "revoked_dropped"))),
        )
    except UsageError as error:  # a malformed name: nobody typed it here
        raise CorruptError(f"{_WHAT}: {error}") from None


def _anchor(value: dict[str, Any]) -> Anchor:
    state = string(value, "state", _WHAT)
    if state not in STATES:
        raise CorruptError(f"{_WHAT}: a CA is {state!r}, which is none of {', '.join(STATES)}")
    return Anchor(
        generation=integer(value, "generation", _WHAT, least=1),
        state=state,
        certificate=octets(value.get("certificate"), f"{_WHAT}'s CA certificate"),
        chain=tuple(octets(entry, f"{_WHAT}'s chain") for entry in array(value, "chain", _WHAT)),
    )


def _crl_part(value: dict[str, Any]) -> CrlPart:
    return CrlPart(
        generation=integer(value, "generation", _WHAT, least=1),
        number=integer(value, "number", _WHAT, least=1),
        this_update=moment(value, "this_update", _WHAT),
        next_update=moment(value, "next_update", _WHAT),
        compressed=octets(value.get("compressed"), f"{_WHAT}'s CRL"),
    )


def _succession(value: dict[str, Any]) -> Succession:
    return Succession(
        integer(value, "generation", _WHAT, least=1),
        integer(value, "successor", _WHAT, least=1),
        *(octets(value.get(name), f"{_WHAT}'s succession") for name in ("certificate", "issuing", "signature")),
    )


def _dropped(value: dict[str, Any]) -> DroppedCa:
    serials = None
    if value.get("serials") is not None:
        packed = octets(value["serials"], f"{_WHAT}'s serials")
        if len(packed) % _SERIAL_OCTETS:
            raise CorruptError(f"{_WHAT}: a serial of a dropped CA has not {_SERIAL_OCTETS} octets")
        serials = tuple(
            int.from_bytes(packed[start : start + _SERIAL_OCTETS]) for start in range(0, len(packed), _SERIAL_OCTETS)
        )
    return DroppedCa(integer(value, "generation", _WHAT, least=1), string(value, "issuer", _WHAT), serials)


def _root_crl(value: object) -> bytes:
    """Parse DER only: readers of files would also accept PEM, so one CRL would have many forms."""
    data = octets(value, f"{_WHAT}'s CRL")
    if not is_der(data):
        raise CorruptError(f"{_WHAT}: a CRL is not DER")
    return data


def _digest(value: object) -> str:
    if not isinstance(value, str) or len(value) != _SHA256_DIGITS or not set(value) <= set("0123456789abcdef"):
        raise CorruptError(f"{_WHAT}: a digest is not 64 hexadecimal digits")
    return value

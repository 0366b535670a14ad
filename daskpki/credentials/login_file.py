"""A login file (`dora.login`): certificate, trust document and addresses, without a key.

`daskpki sign --out` writes it for a person who cannot read the store; it may be sent by mail. It proves nothing by
itself: it is accepted once the CA's fingerprint was compared by another way, and if its certificate belongs to the
waiting key.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

from daskpki.confidential import Confidential
from daskpki.credentials.contexts import parse_scheduler
from daskpki.errors import CorruptError, UsageError
from daskpki.files import os_error
from daskpki.identity import Identity, parse_label
from daskpki.pki import json_fields
from daskpki.pki.certificates import certificate_identity, load_certificate
from daskpki.pki.pem import fingerprint
from daskpki.pki.trust import TrustDocument, parse_trust

FORMAT: Final = 1
SUFFIX: Final = ".login"
_WHAT: Final = "the login file"
_PATHS: Final = ("/", "./", "../")
_MAX_SIZE: Final = 1 << 20
_MAX_CHAIN: Final = 8
_MAX_SCHEDULERS: Final = 64


class LoginFile(NamedTuple):
    """Certificates are DER, the leaf's issuer first in `chain`; `trust` is the signed document as a store keeps it."""

    cluster: str
    leaf: bytes
    chain: tuple[bytes, ...]
    trust: bytes
    schedulers: tuple[str, ...]

    @property
    def identity(self) -> Identity:
        """Identity that the certificate claims."""
        return certificate_identity(load_certificate(self.leaf))

    @property
    def document(self) -> TrustDocument:
        """The trust document, not yet verified."""
        return parse_trust(Confidential(self.trust)).document

    @property
    def ca_sha256(self) -> str:
        """The fingerprint of the CA that issues now: what its receiver compares."""
        return fingerprint(self.document.active.certificate)


def is_login_file(text: str) -> bool:
    """True if the argument of `login` is a file: a name ends in no `.login` and begins with no dot or slash."""
    return text.endswith(SUFFIX) or text.startswith(_PATHS)


def encode_login_file(file: LoginFile) -> bytes:
    """The file's bytes: JSON, certificates in base64."""
    document = {
        "format": FORMAT,
        "cluster": file.cluster,
        "leaf": json_fields.base64_text(file.leaf),
        "chain": [json_fields.base64_text(certificate) for certificate in file.chain],
        "trust": json_fields.base64_text(file.trust),
        "schedulers": list(file.schedulers),
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def load_login_file(path: Path) -> LoginFile:
    """The file that `encode_login_file` wrote; CorruptError, NotTrustedError for a newer format, NotFoundError."""
    try:
        with path.open("rb") as opened:
            data = opened.read(_MAX_SIZE + 1)
    except OSError as error:
        raise os_error(error, path) from error
    if len(data) > _MAX_SIZE:
        raise CorruptError(f"{path} is larger than {_MAX_SIZE} bytes, so it is not a login file")
    try:
        return parse_login_file(data)
    except CorruptError as error:
        hint = error.hint or f"`daskpki sign REQUEST --out NAME{SUFFIX}` writes one"
        raise type(error)(f"{path}: {error}", hint=hint) from None


def parse_login_file(data: bytes) -> LoginFile:
    """The same for bytes."""
    try:
        document = json_fields.as_object(json.loads(data), _WHAT)
    except (ValueError, RecursionError):
        raise CorruptError(f"{_WHAT} is not JSON, so it was cut off or is something else") from None
    json_fields.check_format(document, _WHAT, reader=FORMAT)
    try:
        return _login_file(document)
    except UsageError as error:  # a malformed name or address: nobody typed it here
        raise CorruptError(f"{_WHAT}: {error}") from None


def _login_file(document: dict[str, Any]) -> LoginFile:
    chain, schedulers = json_fields.array(document, "chain", _WHAT), json_fields.array(document, "schedulers", _WHAT)
    if len(chain) > _MAX_CHAIN or len(schedulers) > _MAX_SCHEDULERS:
        raise CorruptError(f"{_WHAT} has more than {_MAX_CHAIN} certificates or {_MAX_SCHEDULERS} addresses")
    return LoginFile(
        cluster=parse_label(json_fields.string(document, "cluster", _WHAT), "cluster"),
        leaf=json_fields.octets(document.get("leaf"), f"{_WHAT}'s leaf"),
        chain=tuple(json_fields.octets(entry, f"{_WHAT}'s chain") for entry in chain),
        trust=json_fields.octets(document.get("trust"), f"{_WHAT}'s trust document"),
        schedulers=tuple(parse_scheduler(str(address)) for address in schedulers),
    )

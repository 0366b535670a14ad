"""A login file (`dora.login`): certificate, trust document and addresses, without a key.

`daskpki sign --out` writes it for a person who cannot read the store; it may be sent by mail. It proves nothing by
itself: it is accepted once the CA's fingerprint was compared by another way, and if its certificate belongs to the
waiting key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from daskpki.confidential import Confidential
from daskpki.credentials.contexts import MAX_FILE, encode_login, parse_login
from daskpki.errors import CorruptError
from daskpki.files import read_file
from daskpki.identity import Identity
from daskpki.pki.certificates import certificate_identity, load_certificate
from daskpki.pki.pem import fingerprint
from daskpki.pki.trust_document import TrustDocument, parse_trust

LOGIN_SUFFIX: Final = ".login"
_LOGIN_FILE: Final = "the login file"
_PATHS: Final = ("/", "./", "../")


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
        """The fingerprint of the issuing CA, which the receiver compares."""
        return fingerprint(self.document.active.certificate)


def is_login_file(text: str) -> bool:
    """True if the argument of `login` is a file: no name ends in `.login` or begins with a dot or slash."""
    return text.endswith(LOGIN_SUFFIX) or text.startswith(_PATHS)


def encode_login_file(file: LoginFile) -> bytes:
    """The file's bytes: JSON, certificates in base64."""
    return encode_login(file._asdict())


def load_login_file(path: Path) -> LoginFile:
    """The file that `encode_login_file` wrote; CorruptError, NotTrustedError for a newer format, NotFoundError."""
    try:
        return parse_login_file(read_file(path, limit=MAX_FILE))
    except CorruptError as error:
        hint = error.hint or f"`daskpki sign REQUEST --out NAME{LOGIN_SUFFIX}` writes one"
        raise type(error)(f"{path}: {error}", hint=hint) from None


def parse_login_file(data: bytes) -> LoginFile:
    """Parse a login file's bytes; the same errors."""
    return LoginFile(**parse_login(data, _LOGIN_FILE)[1])

"""Reads and writes a credential directory: ca.pem, cert.pem, key.pem, trust.json, with checked permissions.

It may be written by hand, or mounted by Kubernetes, whose secret volumes belong to root and are read through the group
(`defaultMode: 0440` with `fsGroup`). So, as in ssh, our key must be closed to everybody else, root's key may be
readable by our group, and public files may be readable, but not writable, by others.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from daskpki.confidential import Confidential
from daskpki.credentials.verified import VerifiedCredential, issuing_generation
from daskpki.errors import AccessDeniedError, AlreadyExistsError, CorruptError, NotFoundError, NotTrustedError
from daskpki.files import PRIVATE_DIR, is_there, os_error, write_private
from daskpki.identity import Identity
from daskpki.pki.certificates import certificate_identity, load_certificate
from daskpki.pki.credential import Credential, certificate_pem, key_pem
from daskpki.pki.keys import parse_key, serialize_key
from daskpki.pki.pem import CERTIFICATE, encode_pem, parse_certificates
from daskpki.pki.trust_document import TrustDocument

CA_FILE: Final = "ca.pem"
CERTIFICATE_FILE: Final = "cert.pem"
KEY_FILE: Final = "key.pem"
TRUST_FILE: Final = "trust.json"
SETTING: Final = "the credential directory (--credential-dir, DASKPKI_CREDENTIAL_DIR)"

_MAX_SIZE: Final = 1 << 20
_OPEN_TO_OTHERS: Final = 0o077
_OPEN_BEYOND_GROUP: Final = 0o037
_CHANGED_BY_OTHERS: Final = 0o022


class CredentialFiles(NamedTuple):
    """Contents of the directory: certificates (DER), the key as its file has it (PEM), the signed trust document."""

    leaf: bytes
    chain: tuple[bytes, ...]
    anchors: tuple[bytes, ...]
    key: Confidential
    trust: Confidential

    def credential(self, trust: TrustDocument, now: datetime, called: Callable[[str], str]) -> Credential:
        """Make the credential, of the cluster of `trust`; NotTrustedError if none of its CAs issued the leaf.

        `called` returns the name of a file in messages, such as `in_directory`.
        """
        return Credential(
            cluster=trust.cluster,
            identity=parse_leaf(self.leaf, called(CERTIFICATE_FILE)),
            generation=issuing_generation(self.leaf, self.chain, trust, now),
            key=serialize_key(parse_key(self.key, called(KEY_FILE))),
            leaf=self.leaf,
            chain=self.chain,
        )


def load_directory(directory: Path) -> CredentialFiles:
    """Read the four files; NotFoundError, AccessDeniedError for loose permissions, CorruptError for what is no PEM.

    Messages name the file, and for the directory its setting, which may have been given what lies there.
    """
    if not _is_directory(directory):
        raise NotFoundError(f"{SETTING} is not there", hint="`daskpki export ROLE/NAME --out DIR` writes one")
    check_directory(directory, SETTING)
    leaf, *chain = parse_certificates(_read(directory / CERTIFICATE_FILE), in_directory(CERTIFICATE_FILE))
    anchors = parse_certificates(_read(directory / CA_FILE), in_directory(CA_FILE))
    for anchor in anchors:
        load_certificate(anchor, in_directory(CA_FILE))  # else what is none would be told as an unknown signer
    return CredentialFiles(
        leaf=leaf,
        chain=tuple(chain),
        anchors=tuple(anchors),
        key=Confidential(_read(directory / KEY_FILE, secret=True)),
        trust=Confidential(_read(directory / TRUST_FILE)),
    )


def _is_directory(path: Path) -> bool:
    """AccessDeniedError where we may not look; what cannot be a path at all is no directory."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)  # noqa: PTH116 - pathlib raises for more
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        raise os_error(error, SETTING) from None


def in_directory(name: str) -> str:
    """The name of one of the files in messages."""
    return f"{name} in {SETTING}"


def parse_leaf(leaf: bytes, what: str) -> Identity:
    """Identity of the first certificate of `what`; NotTrustedError for a CA's, which belongs behind the leaf."""
    try:
        return certificate_identity(load_certificate(leaf, what))
    except NotTrustedError as error:
        raise NotTrustedError(
            f"{what}: {error}", hint="the leaf stands first in the file, and the CAs that signed it below"
        ) from None


def _read(path: Path, *, secret: bool = False) -> bytes:
    return read_checked(path, in_directory(path.name), secret=secret)


def read_checked(path: Path, name: str, *, secret: bool = False, mounted: bool = False) -> bytes:
    """The bytes of the file, if its permissions are right; messages say `name`. AccessDeniedError, CorruptError.

    `mounted` lets everybody read a secret of root's on a read-only mount below this container's root file system: CSI
    drivers mount so (0644, without fsGroup; secrets-store-csi-driver#858), and nobody else is in there.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            read_only = mounted and os.fstatvfs(file.fileno()).f_flag & os.ST_RDONLY
            alone = read_only and status.st_uid == 0 and status.st_dev != os.stat("/").st_dev  # noqa: PTH116 - pathlib is not loaded
            check_file(name, status, own_uid=_own_uid(), secret=secret and not alone)
            data = file.read(_MAX_SIZE + 1)
    except OSError as error:
        raise os_error(error, name) from None
    if len(data) > _MAX_SIZE:
        raise CorruptError(f"{name} is larger than {_MAX_SIZE} bytes, so it is not what was asked for")
    return data


def check_directory(directory: Path, called: str | None = None) -> None:
    """AccessDeniedError when others could put files of theirs in its place; messages say `called`."""
    status = directory.stat()
    # Kubernetes mounts secret volumes 1777: with the sticky bit and root as the owner nobody can replace an entry.
    if status.st_uid == 0 and status.st_mode & stat.S_ISVTX:
        return
    _refuse_if(called or directory, status, _CHANGED_BY_OTHERS, _own_uid())


def check_file(path: Path | str, status: os.stat_result, *, own_uid: int, secret: bool) -> None:
    """AccessDeniedError unless the file's owner and mode are as the module's first lines say."""
    if not secret:
        forbidden = _CHANGED_BY_OTHERS
    elif status.st_uid == own_uid:
        forbidden = _OPEN_TO_OTHERS
    else:
        forbidden = _OPEN_BEYOND_GROUP
    _refuse_if(path, status, forbidden, own_uid)


def _refuse_if(path: Path | str, status: os.stat_result, forbidden: int, own_uid: int) -> None:
    if os.name == "nt":  # modes say nothing there
        return
    if status.st_uid not in (own_uid, 0):
        raise AccessDeniedError(f"{path} belongs to another user (uid {status.st_uid})")
    mode = stat.S_IMODE(status.st_mode)
    if mode & forbidden:
        raise AccessDeniedError(
            f"{path} is open to others (mode {mode:04o})",
            hint=f"chmod {mode & ~forbidden:o} there; in Kubernetes, set the volume's defaultMode to 0440",
        )


def _own_uid() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0


_PUBLIC = 0o644


def export_directory(held: VerifiedCredential, directory: Path, *, force: bool = False) -> list[Path]:
    """Write ca.pem, cert.pem, key.pem (0600) and trust.json; returns their paths, the key's last.

    AlreadyExistsError when one of them exists and `force` is not given: then nothing is written. UsageError when the
    credential has no key.
    """
    anchors = "".join(encode_pem(anchor.certificate, CERTIFICATE) for anchor in held.trust.authorities)
    public = {
        CA_FILE: anchors.encode(),
        CERTIFICATE_FILE: certificate_pem(held.credential).encode(),
        TRUST_FILE: held.signed.reveal(),
    }
    key = key_pem(held.credential)
    _prepare(directory, [*public, KEY_FILE], force=force)
    for name, data in public.items():
        write_private(directory / name, data, force=force, mode=_PUBLIC)
    write_private(directory / KEY_FILE, key.reveal(), force=force)
    return [directory / name for name in (*public, KEY_FILE)]


def _prepare(directory: Path, names: list[str], *, force: bool) -> None:
    taken = [str(directory / name) for name in names if is_there(directory / name)]
    if taken and not force:
        raise AlreadyExistsError(f"{', '.join(taken)} would be overwritten", hint="--force, or another directory")
    try:
        directory.mkdir(mode=PRIVATE_DIR, parents=True, exist_ok=True)
    except OSError as error:
        raise os_error(error, directory) from error
    check_directory(directory)

"""Reads a credential from a directory or one file, with checked permissions, and writes a directory.

A directory has ca.pem, cert.pem, key.pem and trust.json. It may be written by hand, or mounted by Kubernetes, whose
secret volumes belong to root and are read through the group (`defaultMode: 0440` with `fsGroup`). So, as in ssh, our
key must be closed to everybody else, root's key may be readable by our group, and public files may be readable, but not
writable, by others.

One file is a secret's payload as Secret Manager has it, or a PEM bundle of key, leaf and chain. The Secrets Store CSI
driver and GKE's add-on mount one file for each secret, and replace all of them in one step. It is read in one go, so
key and certificate always belong together. Its trust document lies beside it as trust.json, or comes from the store.
Unlike in a directory with ca.pem, no file says which CA must have signed that document; DASKPKI_CA_SHA256 may say it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from daskpki.confidential import Confidential
from daskpki.credentials.verified import VerifiedCredential
from daskpki.errors import AlreadyExistsError, CorruptError, NotFoundError, NotTrustedError
from daskpki.files import PRIVATE_DIR, PUBLIC_FILE, check_status, is_there, make_directory, os_error, write_private
from daskpki.identity import Identity
from daskpki.pki import pem
from daskpki.pki.certificates import certificate_identity, load_certificate
from daskpki.pki.credential import Credential, certificate_pem, key_pem, parse_credential
from daskpki.pki.keys import parse_key, serialize_key
from daskpki.pki.trust_document import TrustPayload, parse_trust

CA_FILE: Final = "ca.pem"
CERTIFICATE_FILE: Final = "cert.pem"
KEY_FILE: Final = "key.pem"
TRUST_FILE: Final = "trust.json"
SETTING: Final = "the credential directory (--credential-dir, DASKPKI_CREDENTIAL_DIR)"
FILE_SETTING: Final = "the credential file (--credential-file, DASKPKI_CREDENTIAL_FILE)"

_MAX_SIZE: Final = 1 << 20
_OPEN_TO_OTHERS: Final = 0o077
_OPEN_BEYOND_GROUP: Final = 0o037
_CHANGED_BY_OTHERS: Final = 0o022
_IN_KUBERNETES: Final = "; in Kubernetes, set the volume's defaultMode to 0440"


def load_directory(directory: Path) -> tuple[Credential, tuple[bytes, ...], TrustPayload]:
    """Read the four files: the credential, the trust document, and the CAs (DER), one of which must have signed that.

    NotFoundError, AccessDeniedError for loose permissions, CorruptError for a file that is not PEM, NotTrustedError for
    a CA's certificate as the leaf. Messages name the file, but of the directory only its setting: the setting's value
    may be a key that was given by mistake.
    """
    if not _is_directory(directory):
        raise NotFoundError(f"{SETTING} is not there", hint="`daskpki export ROLE/NAME --out DIR` writes one")
    check_directory(directory, SETTING)
    certificate_file, ca_file, key_file = (f"{name} in {SETTING}" for name in (CERTIFICATE_FILE, CA_FILE, KEY_FILE))
    leaf, *chain = pem.parse_certificates(_read(directory / CERTIFICATE_FILE, certificate_file), certificate_file)
    anchors = pem.parse_certificates(_read(directory / CA_FILE, ca_file), ca_file)
    for anchor in anchors:
        load_certificate(anchor, ca_file)  # else a file without a certificate would be reported as an unknown signer
    key = serialize_key(parse_key(Confidential(_read(directory / KEY_FILE, key_file, secret=True)), key_file))
    trust = _parse_trust(_read(directory / TRUST_FILE, f"{TRUST_FILE} in {SETTING}"))
    identity = _leaf_identity(leaf, certificate_file)
    credential = Credential(trust.signed.document.cluster, identity, key, leaf, tuple(chain))
    return credential, tuple(anchors), trust


def load_file(path: Path, cluster: str) -> tuple[Credential, TrustPayload | None]:
    """Read one file, and trust.json if it lies beside it; raises what `load_directory` does.

    `cluster` is that of a PEM bundle, unless the trust document beside it names another.
    """
    if not is_there(path):
        hint = "mount the secret's payload, or a PEM bundle, at that path"
        raise NotFoundError(f"{FILE_SETTING} is not there", hint=hint)
    check_directory(path.parent, f"the directory of {FILE_SETTING}")
    data = Confidential(_read(path, FILE_SETTING, secret=True, mounted=True))
    beside = path.with_name(TRUST_FILE)
    trust = _parse_trust(_read(beside, f"{TRUST_FILE} beside {FILE_SETTING}")) if is_there(beside) else None
    if pem.is_pem(data.reveal()):
        return _parse_bundle(data.reveal(), trust.signed.document.cluster if trust else cluster), trust
    return parse_credential(data), trust


def _parse_trust(data: bytes) -> TrustPayload:
    return TrustPayload(Confidential(data), parse_trust(Confidential(data)))


def _parse_bundle(data: bytes, cluster: str) -> Credential:
    """Parse one private key and its certificates; the key may stand before or after them."""
    blocks = pem.parse_pem(data, FILE_SETTING)
    keys = [(label, der) for label, der in blocks if label.endswith(pem.PRIVATE_KEY)]
    certificates = [der for label, der in blocks if label == pem.CERTIFICATE]
    if len(keys) != 1 or not certificates or len(keys) + len(certificates) != len(blocks):
        raise CorruptError(
            f"{FILE_SETTING} contains {', '.join(label for label, _ in blocks)}",
            hint="one private key, the leaf, and the CAs that signed it below",
        )
    ((label, der),) = keys
    key = serialize_key(parse_key(Confidential(pem.encode_pem(der, label)), f"the key in {FILE_SETTING}"))
    leaf, *chain = certificates
    return Credential(cluster, _leaf_identity(leaf, FILE_SETTING), key, leaf, tuple(chain))


def _is_directory(path: Path) -> bool:
    """True for a directory, False for text that cannot be a path; AccessDeniedError where we may not look."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)  # noqa: PTH116 - pathlib raises for more
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        raise os_error(error, SETTING) from None


def _leaf_identity(leaf: bytes, called: str) -> Identity:
    """Identity of the first certificate; NotTrustedError for a CA's, which belongs behind the leaf."""
    try:
        return certificate_identity(load_certificate(leaf, called))
    except NotTrustedError as error:
        raise NotTrustedError(
            f"{called}: {error}", hint="the leaf stands first in the file, and the CAs that signed it below"
        ) from None


def _read(path: Path, called: str, *, secret: bool = False, mounted: bool = False) -> bytes:
    """The bytes of the file, if its permissions are right; AccessDeniedError, CorruptError.

    `mounted` lets everybody read a secret of root's on a read-only mount below this container's root file system: CSI
    drivers mount so (0644, without fsGroup; secrets-store-csi-driver#858), and nobody else is in there.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            read_only = mounted and os.fstatvfs(file.fileno()).f_flag & os.ST_RDONLY
            alone = read_only and status.st_uid == 0 and status.st_dev != Path("/").stat().st_dev
            own_uid = os.geteuid() if hasattr(os, "geteuid") else 0
            check_file(called, status, own_uid=own_uid, secret=secret and not alone)
            data = file.read(_MAX_SIZE + 1)
    except OSError as error:
        raise os_error(error, called) from None
    if len(data) > _MAX_SIZE:
        raise CorruptError(f"{called} is larger than {_MAX_SIZE} bytes, so it is not what was asked for")
    return data


def check_directory(directory: Path, called: str | None = None) -> None:
    """Raise AccessDeniedError if others could replace its files; messages call the directory `called`."""
    status = directory.stat()
    # Kubernetes mounts secret volumes 1777: with the sticky bit and root as the owner nobody can replace an entry.
    if status.st_uid == 0 and status.st_mode & stat.S_ISVTX:
        return
    check_status(called or directory, status, forbidden=_CHANGED_BY_OTHERS, more=_IN_KUBERNETES)


def check_file(path: Path | str, status: os.stat_result, *, own_uid: int, secret: bool) -> None:
    """Raise AccessDeniedError unless the file's owner and mode are as the docstring of this module says."""
    if not secret:
        forbidden = _CHANGED_BY_OTHERS
    elif status.st_uid == own_uid:
        forbidden = _OPEN_TO_OTHERS
    else:
        forbidden = _OPEN_BEYOND_GROUP
    check_status(path, status, forbidden=forbidden, own_uid=own_uid, more=_IN_KUBERNETES)


def export_directory(verified: VerifiedCredential, directory: Path, *, force: bool = False) -> list[Path]:
    """Write ca.pem, cert.pem, key.pem (0600) and trust.json; returns their paths, the key's last.

    AlreadyExistsError when one of them exists and `force` is not given: then nothing is written. UsageError when the
    credential has no key.
    """
    anchors = "".join(pem.encode_pem(anchor.certificate, pem.CERTIFICATE) for anchor in verified.trust.authorities)
    public = {
        CA_FILE: anchors.encode(),
        CERTIFICATE_FILE: certificate_pem(verified.credential).encode(),
        TRUST_FILE: verified.signed.reveal(),
    }
    key = key_pem(verified.credential)
    paths = [directory / name for name in (*public, KEY_FILE)]
    taken = [str(path) for path in paths if is_there(path)]
    if taken and not force:
        raise AlreadyExistsError(f"{', '.join(taken)} would be overwritten", hint="--force, or another directory")
    make_directory(directory, PRIVATE_DIR)
    check_directory(directory)
    for name, data in public.items():
        write_private(directory / name, data, force=force, mode=PUBLIC_FILE)
    write_private(directory / KEY_FILE, key.reveal(), force=force)
    return paths

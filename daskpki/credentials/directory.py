"""A credential directory as `daskpki export` writes it: ca.pem, cert.pem, key.pem, trust.json, permissions checked.

It may be written by hand, or mounted by Kubernetes, whose secret volumes belong to root and are read through the
group (`defaultMode: 0440` with `fsGroup`). So, as ssh does: a key of ours is closed to everybody else, a key of
root's may be read by our group, and what is public may be read, but not written, by others.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final, NamedTuple

from daskpki.confidential import Confidential
from daskpki.errors import AccessDeniedError, CorruptError, NotFoundError
from daskpki.files import is_there, os_error
from daskpki.pki.pem import parse_certificates

CA_FILE: Final = "ca.pem"
CERTIFICATE_FILE: Final = "cert.pem"
KEY_FILE: Final = "key.pem"
TRUST_FILE: Final = "trust.json"

_MAX_SIZE: Final = 1 << 20
_OPEN_TO_OTHERS: Final = 0o077
_OPEN_BEYOND_GROUP: Final = 0o037
_CHANGED_BY_OTHERS: Final = 0o022


class Material(NamedTuple):
    """What lies in the directory: certificates (DER), the key as its file has it (PEM), the signed trust document."""

    leaf: bytes
    chain: tuple[bytes, ...]
    anchors: tuple[bytes, ...]
    key: Confidential
    trust: Confidential


def load_directory(directory: Path) -> Material:
    """Read the four files; NotFoundError, AccessDeniedError for loose permissions, CorruptError for what is no PEM."""
    if not is_there(directory) or not directory.is_dir():
        raise NotFoundError(f"{directory} is not a directory", hint="`daskpki export ROLE/NAME --out DIR` writes one")
    check_directory(directory)
    leaf, *chain = parse_certificates(_read(directory / CERTIFICATE_FILE), str(directory / CERTIFICATE_FILE))
    return Material(
        leaf=leaf,
        chain=tuple(chain),
        anchors=tuple(parse_certificates(_read(directory / CA_FILE), str(directory / CA_FILE))),
        key=Confidential(_read(directory / KEY_FILE, secret=True)),
        trust=Confidential(_read(directory / TRUST_FILE)),
    )


def _read(path: Path, *, secret: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            check_file(path, os.fstat(file.fileno()), own_uid=_own_uid(), secret=secret)
            data = file.read(_MAX_SIZE + 1)
    except OSError as error:
        raise os_error(error, path) from error
    if len(data) > _MAX_SIZE:
        raise CorruptError(f"{path} is larger than {_MAX_SIZE} bytes, so it is not what was asked for")
    return data


def check_directory(directory: Path) -> None:
    """AccessDeniedError when others could put files of theirs in its place."""
    status = directory.stat()
    # Kubernetes mounts secret volumes 1777: with the sticky bit and root as the owner nobody can replace an entry.
    if status.st_uid == 0 and status.st_mode & stat.S_ISVTX:
        return
    _refuse_if(directory, status, _CHANGED_BY_OTHERS, _own_uid())


def check_file(path: Path, status: os.stat_result, *, own_uid: int, secret: bool) -> None:
    """AccessDeniedError unless the file's owner and mode are as the module's first lines say."""
    if not secret:
        forbidden = _CHANGED_BY_OTHERS
    elif status.st_uid == own_uid:
        forbidden = _OPEN_TO_OTHERS
    else:
        forbidden = _OPEN_BEYOND_GROUP
    _refuse_if(path, status, forbidden, own_uid)


def _refuse_if(path: Path, status: os.stat_result, forbidden: int, own_uid: int) -> None:
    if os.name == "nt":  # modes say nothing there
        return
    if status.st_uid not in (own_uid, 0):
        raise AccessDeniedError(f"{path} belongs to another user (uid {status.st_uid})")
    mode = stat.S_IMODE(status.st_mode)
    if mode & forbidden:
        raise AccessDeniedError(
            f"{path} is open to others (mode {mode:04o})",
            hint=f"chmod {mode & ~forbidden:o} {path}; in Kubernetes, set the volume's defaultMode to 0440",
        )


def _own_uid() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0

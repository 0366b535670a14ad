"""Write a credential where someone asked for it: a directory of PEM files, or one PKCS#12 file for a browser."""

from __future__ import annotations

from pathlib import Path

from daskpki.credentials.directory import (
    CA_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    TRUST_FILE,
    check_directory,
)
from daskpki.credentials.held import Held
from daskpki.errors import AlreadyExistsError
from daskpki.files import PRIVATE_DIR, is_there, os_error, write_private
from daskpki.pki.credential import certificate_pem, key_pem
from daskpki.pki.pem import CERTIFICATE, encode_pem

_PUBLIC = 0o644


def export_directory(held: Held, directory: Path, *, force: bool = False) -> list[Path]:
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

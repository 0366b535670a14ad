"""The keyring entry of a login, and the login that it makes together with the public file.

The entry has the private key, the digest of the public file and the newest trust epoch seen, as one line of ASCII,
`1.EPOCH.DIGEST.KIND.BASE64`, that fits the smallest keyring (Windows: 1,280 characters). A P-256 key is 184 characters
of PKCS#8; an RSA key does not fit and is kept as its two primes (512 characters for RSA-3072), from which the rest
follows. Entry and file are accepted only if they match.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime
from typing import Final, NamedTuple

from daskpki.confidential import Confidential, KeyringPort
from daskpki.credentials.contexts import Contexts, Saved, parse_scheduler, service_name
from daskpki.credentials.os_keyring import MAX_CHARACTERS
from daskpki.credentials.source_selection import Wanted
from daskpki.credentials.verified import Pins, VerifiedCredential, verify_credential
from daskpki.errors import CorruptError, NotFoundError, NotTrustedError, UsageError
from daskpki.pki.crl import check_fresh
from daskpki.settings import SCHEME

FORMAT: Final = "1"
_PKCS8: Final = "pkcs8"
_PRIMES: Final = "primes"
_RSA_EXPONENT: Final = 65_537
# RSA keys have at least 3072 bits (daskpki.pki.keys), and each prime half of them.
_LEAST_PRIME: Final = 3072 // 2 // 8
_LINE: Final = re.compile(r"1\.(\d{1,18})\.([0-9a-f]{64})\.(pkcs8|primes)\.([A-Za-z0-9+/]+=*)\Z")


class Entry(NamedTuple):
    """`epoch` never goes back; `digest` is the SHA-256, in hex, of the context file; `key` is PKCS#8 in DER."""

    epoch: int
    digest: str
    key: Confidential


def encode_entry(entry: Entry) -> Confidential:
    """The line to keep; UsageError when even the short form of the key does not fit every keyring."""
    line = _line(entry, _PKCS8, entry.key.reveal())
    if len(line) > MAX_CHARACTERS:
        line = _line(entry, _PRIMES, _primes(entry.key))
    if len(line) > MAX_CHARACTERS:
        raise UsageError(f"the key needs {len(line)} characters, and a keyring entry has room for {MAX_CHARACTERS}")
    return line


def _line(entry: Entry, kind: str, key: bytes) -> Confidential:
    return Confidential(f"{FORMAT}.{entry.epoch}.{entry.digest}.{kind}.{base64.b64encode(key).decode()}")


def parse_entry(line: Confidential) -> Entry:
    """The entry that `encode_entry` wrote; CorruptError, or NotTrustedError for a newer format."""
    text = line.reveal().decode("ascii", "replace")
    match = _LINE.match(text)
    if match is None:
        if re.match(r"\d+\.", text) and not text.startswith(f"{FORMAT}."):
            raise NotTrustedError(f"the keyring entry has format {text.partition('.')[0]}, this daskpki reads {FORMAT}")
        raise CorruptError("the keyring entry is not one that daskpki wrote", hint="daskpki login writes it again")
    epoch, digest, kind, encoded = match.groups()
    try:
        key = base64.b64decode(encoded, validate=True)
        whole = Confidential(key) if kind == _PKCS8 else _from_primes(key)
    except (binascii.Error, ValueError, ArithmeticError):
        raise CorruptError("the keyring entry's key is damaged", hint="daskpki login writes it again") from None
    return Entry(int(epoch), digest, whole)


def _primes(key: Confidential) -> bytes:
    """The factors of an RSA key, big-endian, in equal halves."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    loaded = load_der_private_key(key.reveal(), None)
    if not isinstance(loaded, RSAPrivateKey) or loaded.public_key().public_numbers().e != _RSA_EXPONENT:
        raise UsageError("this kind of key does not fit a keyring entry", hint="issue the client with a P-256 key")
    numbers = loaded.private_numbers()
    half = (max(numbers.p, numbers.q).bit_length() + 7) // 8
    return numbers.p.to_bytes(half, "big") + numbers.q.to_bytes(half, "big")


def _from_primes(data: bytes) -> Confidential:
    from cryptography.hazmat.primitives.asymmetric import rsa

    from daskpki.pki.keys import serialize_key

    half = len(data) // 2
    if half < _LEAST_PRIME:
        raise ValueError("no prime of a key that is issued here")
    p, q = int.from_bytes(data[:half], "big"), int.from_bytes(data[half:], "big")
    d = rsa.rsa_recover_private_exponent(_RSA_EXPONENT, p, q)
    numbers = rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=rsa.rsa_crt_dmp1(d, p),
        dmq1=rsa.rsa_crt_dmq1(d, q),
        iqmp=rsa.rsa_crt_iqmp(p, q),
        public_numbers=rsa.RSAPublicNumbers(_RSA_EXPONENT, p * q),
    )
    return serialize_key(numbers.private_key())


_THIS_MACHINE: Final = ("localhost", "127.0.0.1", "[::1]")

USERNAME: Final = "credential"
"""The keyring's user name of every login: without meaning, since it is readable while the keyring is locked."""


def find_login(contexts: Contexts, wanted: Wanted) -> Saved:
    """The login that fits; NotFoundError if none does, UsageError that names the candidates if several do."""
    fitting = [saved for saved in contexts.all() if _fits(saved, wanted)]
    if wanted.address is not None:
        fitting = _listing(fitting, wanted.address) or [saved for saved in fitting if not saved.context.schedulers]
    if not fitting:
        raise _nobody(contexts, wanted)
    return contexts.only(fitting, _describe(wanted))


def logins_that_list(contexts: Contexts, wanted: Wanted) -> list[Saved]:
    """The logins that list `wanted.address`."""
    return _listing([saved for saved in contexts.all() if _fits(saved, wanted)], wanted.address or "")


def _listing(logins: list[Saved], address: str) -> list[Saved]:
    """The logins that list the address; an address of this machine may be written in any of three ways."""
    try:
        host, _, port = parse_scheduler(address).removeprefix(SCHEME).rpartition(":")
    except UsageError:
        return []  # in no login
    names = {f"{SCHEME}{name}:{port}" for name in (_THIS_MACHINE if host in _THIS_MACHINE else (host,))}
    return [saved for saved in logins if not names.isdisjoint(saved.context.schedulers)]


def _nobody(contexts: Contexts, wanted: Wanted) -> NotFoundError:
    logins = contexts.all()
    other = "; for a TLS cluster of another kind, Client(..., security=...)" if wanted.address else ""
    if not logins:
        where = f", so there is no certificate for {wanted.address}" if wanted.address else ""
        without = "daskpki export client/NAME --out DIR, and export DASKPKI_CREDENTIAL_DIR=DIR"
        hint = f"daskpki login NAME; without a keyring, {without}{other}"
        return NotFoundError(f"nobody is logged in here{where}", hint=hint)
    if wanted.address:
        listed = [f"{address} ({saved.context.title})" for saved in logins for address in saved.context.schedulers]
        hint = f"daskpki login {logins[0].context.name} --scheduler {wanted.address}{other}"
        return NotFoundError(f"no login knows {wanted.address}; known: {', '.join(listed) or 'none'}", hint=hint)
    titles = ", ".join(saved.context.title for saved in logins)
    return NotFoundError(f"no login fits {_describe(wanted)}", hint=f"logins are {titles}; daskpki login adds one")


def _fits(saved: Saved, wanted: Wanted) -> bool:
    context = saved.context
    return wanted.name in (None, context.name) and wanted.cluster in (None, context.cluster)


def _describe(wanted: Wanted) -> str:
    parts = {"name": wanted.name, "cluster": wanted.cluster, "address": wanted.address}
    return ", ".join(f"{what} {value}" for what, value in parts.items() if value) or "this request"


def read_entry(login_id: str, keyring: KeyringPort) -> Entry | None:
    """The keyring entry of a login; AccessDeniedError, CorruptError."""
    line = keyring.get(service_name(login_id), USERNAME)
    return None if line is None else parse_entry(line)


def load_login(saved: Saved, keyring: KeyringPort, now: datetime) -> VerifiedCredential:
    """The verified credential of a login.

    CorruptError if its file is not the one that `login` wrote; NotTrustedError if the certificate or revocation list
    has ended, until the next login.
    """
    title = saved.context.title
    entry = read_entry(saved.id, keyring)
    if entry is None:
        raise NotFoundError(f"the keyring has no key for the login {title}", hint="daskpki login writes it again")
    if entry.digest != saved.digest:
        raise CorruptError(
            f"the file of the login {title} is not the one that login wrote: it was changed since",
            hint="daskpki login writes it again; find out who could change it",
        )
    credential, trust = saved.context.credential(entry.key), Confidential(saved.context.trust)
    try:
        verified = verify_credential(credential, trust, pins=Pins(min_epoch=entry.epoch), now=now)
        check_fresh(verified.trust, now)
    except NotTrustedError as error:
        raise type(error)(f"the login {title}: {error}", hint="daskpki login fetches the present state") from error
    return verified

"""A person's logins (contexts) and their schedulers' addresses: the public part of each login, in a file of its user.

Scheduler addresses are parsed here, for every option, variable and document, so that all commands accept the same ones
and connect to the address that they compared.

`Contexts` reads and writes the directory `contexts` under daskpki's home, `NewestTrust` the directory `trust`; nothing
else here does I/O. A login's file has the certificates, the signed trust document and the schedulers' addresses; the
login's keyring entry has the key and this file's digest, so that a changed file is noticed before it is used.

A login file (`dora.login`) has the same content. `daskpki sign --out` writes it for a person who cannot read the store,
and it may be sent by mail. It proves nothing by itself: it is accepted only after the CA's fingerprint was compared by
another way, and only if its certificate belongs to the waiting key.

Store, cluster and name identify a login, since two projects may both call a cluster `default`. The id of a login is a
hash of these three and the home. The id names the file and the keyring's service, and reveals nothing: every process of
the user can read a service's name, even while the keyring is locked.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from daskpki.confidential import Confidential
from daskpki.errors import CorruptError, DaskpkiError, NotFoundError, UsageError
from daskpki.files import (
    locked,
    make_directory,
    make_private_directory,
    names_in,
    read_file,
    read_private_if_there,
    remove_if_empty,
    remove_leftovers,
    write_private,
)
from daskpki.identity import Identity, Role, parse_label
from daskpki.pki import json_fields
from daskpki.pki.credential import Credential
from daskpki.pki.pem import fingerprint
from daskpki.pki.trust_document import TrustDocument, parse_trust
from daskpki.quoting import shown
from daskpki.secret_names import MAX_PAYLOAD
from daskpki.settings import SCHEME

DEFAULT_PORT: Final = 8786
LIMIT_OF_PORTS: Final = 65_536
_ADDRESS: Final = re.compile(
    r"tls://(?:\[([0-9a-f:.]+)\]|((?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?))(?::([0-9]{1,5}))?\Z"
)
_NUMERIC: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?\Z")
MAX_FILE: Final = 1 << 20
_MAX_CHAIN: Final = 8
_MAX_SCHEDULERS: Final = 1_024


def parse_scheduler(text: str) -> str:
    """The address as daskpki compares and dials it: lower case, IPv6 in its one spelling (RFC 5952), with its port.

    UsageError for anything but tls://HOST[:PORT].
    """
    match = _ADDRESS.match(text.lower()) if text.isascii() else None  # the Kelvin sign's lower case is "k"
    host = _host(match[1], match[2]) if match else None
    port = int(match[3] or DEFAULT_PORT) if match else 0
    if host is None or not 0 < port < LIMIT_OF_PORTS:
        raise UsageError(
            f"{shown(text)} is not a scheduler's address, which is tls://HOST or tls://HOST:PORT",
            hint="for example tls://10.0.0.5:8786 or tls://[fd00::5]:8786",
        )
    return f"{SCHEME}{host}:{port}"


def split_scheduler(address: str) -> tuple[str, int]:
    """Host, IPv6 without brackets, and port of a scheduler's address; UsageError as in `parse_scheduler`."""
    host, _, port = parse_scheduler(address).removeprefix(SCHEME).rpartition(":")
    return host.strip("[]"), int(port)


def _host(bracketed: str | None, plain: str) -> str | None:
    """The host in its one spelling; None if it is not a host.

    No name ends with a number (RFC 1123, 2.1), so `10.0.0` or `010.0.0.5` is a mistyped address, and `0x7f000001` is
    one to the resolver (inet_aton).
    """
    if bracketed is None and not _NUMERIC.match(plain):
        return plain if plain.strip(".-_") else None
    try:
        return str(ipaddress.IPv4Address(plain)) if bracketed is None else f"[{ipaddress.IPv6Address(bracketed)}]"
    except ValueError:
        return None


def read_scheduler_file(path: Path) -> str:
    """The address in a file that Dask's scheduler wrote (--scheduler-file); NotFoundError, CorruptError, UsageError."""
    try:
        address = json.loads(read_file(path, limit=MAX_FILE))["address"]
    except (ValueError, LookupError, TypeError, RecursionError):  # RecursionError: a million brackets
        address = None
    if not isinstance(address, str):
        raise CorruptError(f"{path} is not a scheduler file", hint="a scheduler writes it by --scheduler-file")
    return parse_scheduler(address)


def is_canonical(address: str) -> bool:
    """True if `address` is `tls://IP:PORT` as the scheduler itself writes it, so that it is no alias of another's."""
    with suppress(UsageError, ValueError):
        host, _ = split_scheduler(address)
        ipaddress.ip_address(host)
        return parse_scheduler(address) == address
    return False


FORMAT: Final = 1
LOGIN_FILE: Final = "a login file"
"""Stands for the store of a login that came by a file, since its owner cannot read the store."""
LOGIN_SUFFIX: Final = ".login"
_WHAT: Final = "the login's file"
_DIRECTORY: Final = "contexts"
_PREFERRED: Final = "preferred"
_SUFFIX: Final = ".json"


class Context(NamedTuple):
    """The public part of one login. Certificates are DER, `trust` is the signed payload as the store keeps it."""

    store: str
    cluster: str
    name: str
    schedulers: tuple[str, ...]
    leaf: bytes
    chain: tuple[bytes, ...]
    trust: bytes

    @property
    def title(self) -> str:
        """CLUSTER/NAME, as commands print and take it."""
        return f"{self.cluster}/{self.name}"

    @property
    def document(self) -> TrustDocument:
        """The trust document, not yet verified."""
        return parse_trust(Confidential(self.trust)).document

    @property
    def ca_sha256(self) -> str:
        """The fingerprint of the issuing CA, which the receiver of a login file compares."""
        return fingerprint(self.document.active.certificate)

    def credential(self, key: Confidential | None) -> Credential:
        """The credential with that key, not yet verified."""
        identity = Identity(self.document.trust_domain, Role.CLIENT, self.name)
        return Credential(self.cluster, identity, key, self.leaf, self.chain)


def encode_context(context: Context) -> bytes:
    """The file's bytes; the same context gives the same bytes, so the digest stays valid."""
    document = {
        "format": FORMAT,
        **context._asdict(),
        "leaf": json_fields.base64_text(context.leaf),
        "chain": [json_fields.base64_text(certificate) for certificate in context.chain],
        "trust": json_fields.base64_text(context.trust),
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def parse_context(data: bytes, what: str = _WHAT) -> Context:
    """The context that `encode_context` wrote; CorruptError, or NotTrustedError for a newer format.

    Certificates and addresses are bounded in number, since a login file comes from elsewhere.
    """
    document = json_fields.parse_json(data, what, MAX_FILE)
    json_fields.check_format(document, what, reader=FORMAT)
    chain, schedulers = (json_fields.array(document, field, what) for field in ("chain", "schedulers"))
    if len(chain) > _MAX_CHAIN or len(schedulers) > _MAX_SCHEDULERS:
        raise CorruptError(f"{what} has more than {_MAX_CHAIN} certificates or {_MAX_SCHEDULERS} addresses")
    try:
        return Context(
            store=json_fields.string(document, "store", what),
            cluster=parse_label(json_fields.string(document, "cluster", what), "cluster"),
            name=parse_label(json_fields.string(document, "name", what), "name"),
            schedulers=tuple(parse_scheduler(str(address)) for address in schedulers),
            leaf=json_fields.octets(document.get("leaf"), f"{what}'s leaf"),
            chain=tuple(json_fields.octets(entry, f"{what}'s chain") for entry in chain),
            trust=json_fields.octets(document.get("trust"), f"{what}'s trust document"),
        )
    except UsageError as error:  # it comes from the file, not from a command line
        raise CorruptError(f"{what}: {error}") from None


def is_login_file(text: str) -> bool:
    """True if the argument of `login` is a file: no name ends in `.login` or begins with a dot or slash."""
    return text.endswith(LOGIN_SUFFIX) or text.startswith(("/", "./", "../"))


def load_login_file(path: Path) -> Context:
    """The file that `daskpki sign` wrote; CorruptError, NotTrustedError for a newer format, NotFoundError."""
    hint = f"`daskpki sign REQUEST --out NAME{LOGIN_SUFFIX}` writes one"
    return _parse_file(path, read_file(path, limit=MAX_FILE), "the login file", hint)


def _parse_file(path: Path, data: bytes, what: str, hint: str) -> Context:
    try:
        return parse_context(data, what)
    except DaskpkiError as error:
        raise type(error)(f"{path}: {error}", hint=error.hint or hint) from None


def file_digest(data: bytes) -> str:
    """SHA-256 in hex, as in the keyring entry."""
    return hashlib.sha256(data).hexdigest()


class Saved(NamedTuple):
    """A context, the id that its file and keyring service are named by, and its file's digest."""

    id: str
    context: Context
    digest: str

    @property
    def service(self) -> str:
        """The keyring's service of this login."""
        return service_name(self.id)


def service_name(login_id: str) -> str:
    """The keyring's service of a login: one for each, since Windows moves another user's entry of the same service."""
    return f"daskpki-{login_id}"


class Contexts:
    """The logins under one home directory."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.directory = home / _DIRECTORY

    def saved(self, context: Context) -> Saved:
        """The context with its id and digest; its file need not exist."""
        return Saved(
            self.id_of(context.store, context.cluster, context.name), context, file_digest(encode_context(context))
        )

    def id_of(self, store: str, cluster: str, name: str) -> str:
        """The id of a login, a digest that reveals nothing; the home counts, since two homes may share a keyring."""
        where = json.dumps([str(self._home.absolute()), store, cluster, name])
        return file_digest(where.encode())[:16]

    def all(self) -> list[Saved]:
        """The logins, ordered by cluster and name."""
        found = [self._load(self.directory / name) for name in self.names()]
        return sorted(filter(None, found), key=lambda saved: (saved.context.title, saved.context.store))

    def load(self, login_id: str) -> Saved | None:
        """The login of that id, None if there is none; CorruptError."""
        return self._load(self._path(login_id))

    def names(self) -> list[str]:
        """The files of logins, readable or not; AccessDeniedError for a directory that may not be listed."""
        return [name for name in names_in(self.directory) if name.endswith(_SUFFIX)]

    def _load(self, path: Path) -> Saved | None:
        data = read_private_if_there(path)
        if data is None:
            return None
        context = _parse_file(path, data, _WHAT, "daskpki login writes it again")
        return Saved(path.stem, context, file_digest(data))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Exclude other logins and logouts of this user, so that file and keyring entry always match."""
        make_directory(self._home)
        with locked(self._home):  # not the directory itself, which is removed when nothing is in it
            make_private_directory(self.directory)
            remove_leftovers(self.directory)
            try:
                yield
            finally:
                remove_if_empty(self.directory)

    def write(self, saved: Saved) -> None:
        """Make or replace the login's file."""
        write_private(self._path(saved.id), encode_context(saved.context), force=True)

    def remove(self, saved: Saved) -> None:
        """Delete the login's file, and the preference for it."""
        if self.preferred() == saved.id:
            (self.directory / _PREFERRED).unlink(missing_ok=True)
        self._path(saved.id).unlink(missing_ok=True)

    def _path(self, login_id: str) -> Path:
        return self.directory / f"{login_id}{_SUFFIX}"

    def preferred(self) -> str | None:
        """The id of the login that `context use` chose, used if several fit."""
        data = read_private_if_there(self.directory / _PREFERRED)
        return None if data is None else data.decode("ascii", "replace").strip()

    def active(self) -> Saved | None:
        """The login that is used if several fit: the preferred one, or the only one."""
        found, preferred = self.all(), self.preferred()
        chosen = [saved for saved in found if saved.id == preferred] or found
        return chosen[0] if len(chosen) == 1 else None

    def prefer(self, saved: Saved) -> None:
        """Use this login if several fit."""
        write_private(self.directory / _PREFERRED, saved.id.encode() + b"\n", force=True)

    def find(self, title: str) -> Saved:
        """Find the login by CLUSTER, CLUSTER/NAME or id; NotFoundError, or UsageError that names all that fit."""
        fitting = self.fitting(title)
        if not fitting:
            known = ", ".join(saved.context.title for saved in self.all()) or "none"
            raise NotFoundError(f"there is no login {title!r}", hint=f"logins are: {known}")
        return self.only(fitting, f"{title!r}")

    def fitting(self, title: str) -> list[Saved]:
        """Find the logins by CLUSTER, CLUSTER/NAME or id."""
        return [saved for saved in self.all() if title in (saved.id, saved.context.title, saved.context.cluster)]

    def only(self, fitting: list[Saved], what: str) -> Saved:
        """The single one of these, or the preferred one; UsageError that names the candidates."""
        preferred = [saved for saved in fitting if saved.id == self.preferred()]
        if len(fitting) > 1 and not preferred:
            names = ", ".join(f"{saved.context.title} in {saved.context.store} (id {saved.id})" for saved in fitting)
            raise UsageError(f"several logins fit {what}: {names}", hint="daskpki context use ID chooses one")
        return (preferred or fitting)[0]


class NewestTrust:
    """The newest trust document that a person's programs have seen, kept for the next program.

    A running program learns of a revocation from its scheduler. One that starts later would use the document of
    `daskpki login` or `daskpki export`, and might trust a scheduler that was revoked since. The document is public and
    signed, and is verified like one that a scheduler pushes, so changing or removing the file only removes this memory.

    `name` is the id of the login or directory (`Contexts.id_of`).
    """

    def __init__(self, home: Path, name: str) -> None:
        self._path = home / "trust" / f"{name}.json"

    def load(self) -> Confidential | None:
        """The signed document, not verified; None if there is none. AccessDeniedError."""
        data = read_private_if_there(self._path, limit=MAX_PAYLOAD)
        return None if data is None else Confidential(data)

    def keep(self, signed: Confidential) -> None:
        """Replace the document; AccessDeniedError where nothing can be written."""
        make_private_directory(self._path.parent)
        write_private(self._path, signed.reveal(), force=True)

    def forget(self) -> None:
        """Remove the file, and with the last one the directory."""
        self._path.unlink(missing_ok=True)
        remove_if_empty(self._path.parent)

"""A person's logins: the public part of each, in a file of its own that only this user can read or change.

Pure but for `Contexts`, which reads and writes the directory `contexts` under daskpki's home. A file carries the
certificates, the signed trust document and the addresses of the cluster's schedulers; the keyring entry of the same
login holds the key and this file's digest, so that a changed file is noticed before it is used.

A login is told apart by store, cluster and name, since two projects may both call a cluster `default`. From these and
the home follows an id without meaning, which names the file and the keyring's service: a service is readable by every
process of the user, even while the keyring is locked.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from daskpki.credentials.addresses import parse_scheduler
from daskpki.errors import CorruptError, DaskpkiError, NotFoundError, UsageError
from daskpki.files import (
    is_there,
    make_private_directory,
    names_in,
    read_private,
    remove_leftovers,
    write_private,
)
from daskpki.identity import parse_label
from daskpki.pki import fields

FORMAT: Final = 1
LOGIN_FILE: Final = "a login file"
"""Stands for the store of a login that came by a file, since its owner cannot read the store."""
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
    generation: int
    leaf: bytes
    chain: tuple[bytes, ...]
    trust: bytes

    @property
    def title(self) -> str:
        """CLUSTER/NAME, as commands print and take it."""
        return f"{self.cluster}/{self.name}"


def encode_context(context: Context) -> bytes:
    """The file's bytes; the same context gives the same bytes, so that its digest holds."""
    document = {
        "format": FORMAT,
        **context._asdict(),
        "leaf": fields.base64_text(context.leaf),
        "chain": [fields.base64_text(certificate) for certificate in context.chain],
        "trust": fields.base64_text(context.trust),
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def parse_context(data: bytes) -> Context:
    """What `encode_context` wrote; CorruptError, or NotTrustedError for a newer format."""
    try:
        document = fields.as_object(json.loads(data), _WHAT)
    except (ValueError, RecursionError):
        raise CorruptError(f"{_WHAT} is not JSON, so it was cut off or changed") from None
    fields.check_format(document, _WHAT, reader=FORMAT)
    try:
        return _context(document)
    except UsageError as error:  # a malformed name or address: nobody typed it here
        raise CorruptError(f"{_WHAT}: {error}") from None


def _context(document: dict[str, Any]) -> Context:
    return Context(
        store=fields.string(document, "store", _WHAT),
        cluster=parse_label(fields.string(document, "cluster", _WHAT), "cluster"),
        name=parse_label(fields.string(document, "name", _WHAT), "name"),
        schedulers=tuple(parse_scheduler(str(address)) for address in fields.array(document, "schedulers", _WHAT)),
        generation=fields.integer(document, "generation", _WHAT, least=1),
        leaf=fields.octets(document.get("leaf"), f"{_WHAT}'s leaf"),
        chain=tuple(fields.octets(entry, f"{_WHAT}'s chain") for entry in fields.array(document, "chain", _WHAT)),
        trust=fields.octets(document.get("trust"), f"{_WHAT}'s trust document"),
    )


def digest(data: bytes) -> str:
    """SHA-256 in hex, as the keyring entry holds it."""
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


@contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
    """Hold the directory itself locked, which leaves no lock file; without effect on Windows, which cannot."""
    if os.name == "nt":
        yield
        return
    import fcntl

    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def service_name(login_id: str) -> str:
    """One service for each login, since Windows moves another user's entry under the same one; without meaning."""
    return f"daskpki-{login_id}"


class Contexts:
    """The logins under one home directory."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.directory = home / _DIRECTORY

    def saved(self, context: Context) -> Saved:
        """The context with its id and digest, whether or not its file exists."""
        return Saved(self.id_of(context.store, context.cluster, context.name), context, digest(encode_context(context)))

    def id_of(self, store: str, cluster: str, name: str) -> str:
        """The id of a login, which says nothing about it; the home counts, since two homes may share a keyring."""
        where = json.dumps([str(self._home.absolute()), store, cluster, name])
        return digest(where.encode())[:16]

    def all(self) -> list[Saved]:
        """Every login, ordered by cluster and name."""
        found = [self._load(self.directory / name) for name in self._names()]
        return sorted(found, key=lambda saved: (saved.context.title, saved.context.store))

    def load(self, login_id: str) -> Saved | None:
        """The login of that id, if there is one; CorruptError."""
        path = self._path(login_id)
        return self._load(path) if is_there(path) else None

    def is_empty(self) -> bool:
        """Whether there is no login, readable or not."""
        return not self._names()

    def _names(self) -> list[str]:
        """The files of logins; AccessDeniedError where we may not look, since that is not the same as none."""
        return [name for name in names_in(self.directory) if name.endswith(_SUFFIX)]

    def _load(self, path: Path) -> Saved:
        data = read_private(path)
        try:
            return Saved(path.stem, parse_context(data), digest(data))
        except DaskpkiError as error:
            raise type(error)(f"{path}: {error}", hint=error.hint or "daskpki login writes it anew") from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other logins and logouts of this user out, so that file and keyring entry are of one and the same."""
        make_private_directory(self.directory)
        with lock_directory(self.directory):
            remove_leftovers(self.directory)
            try:
                yield
            finally:
                if not any(self.directory.iterdir()):
                    self.directory.rmdir()

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
        """The id of the login that `context use` chose, which decides where several fit."""
        path = self.directory / _PREFERRED
        return read_private(path).decode("ascii", "replace").strip() if is_there(path) else None

    def active(self) -> Saved | None:
        """The login that decides where several fit: the preferred one, or the only one."""
        found, preferred = self.all(), self.preferred()
        chosen = [saved for saved in found if saved.id == preferred] or found
        return chosen[0] if len(chosen) == 1 else None

    def prefer(self, saved: Saved) -> None:
        """Let this login decide where several fit."""
        write_private(self.directory / _PREFERRED, saved.id.encode() + b"\n", force=True)

    def find(self, title: str) -> Saved:
        """The login called CLUSTER, CLUSTER/NAME or by its id; NotFoundError, or UsageError that names several."""
        fitting = self.fitting(title)
        if not fitting:
            known = ", ".join(saved.context.title for saved in self.all()) or "none"
            raise NotFoundError(f"there is no login {title!r}", hint=f"logins are: {known}")
        return self.only(fitting, f"{title!r}")

    def fitting(self, title: str) -> list[Saved]:
        """The logins called CLUSTER, CLUSTER/NAME or by their id."""
        return [saved for saved in self.all() if title in (saved.id, saved.context.title, saved.context.cluster)]

    def only(self, fitting: list[Saved], what: str) -> Saved:
        """The single one of these, or the preferred one; UsageError that names the candidates."""
        preferred = [saved for saved in fitting if saved.id == self.preferred()]
        if len(fitting) > 1 and not preferred:
            names = ", ".join(f"{saved.context.title} in {saved.context.store} (id {saved.id})" for saved in fitting)
            raise UsageError(f"several logins fit {what}: {names}", hint="daskpki context use ID chooses one")
        return (preferred or fitting)[0]

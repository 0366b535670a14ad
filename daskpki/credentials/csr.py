"""Keys of `daskpki request`, which wait in the person's keyring for their certificate.

A waiting key has the form of a login's keyring entry, with the digest of an empty file. A keyring cannot be listed, so
a record beside the logins lists the key: it is written before the key, removed after it, and contains no secret.
`daskpki login` finds the key by its certificate; `daskpki logout` removes it by the record.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final, NamedTuple

from daskpki.confidential import Confidential, KeyringPort
from daskpki.credentials.contexts import Contexts, file_digest, service_name
from daskpki.credentials.saved_logins import USERNAME, Entry, encode_entry, parse_entry
from daskpki.errors import NotFoundError, UsageError
from daskpki.files import names_in, read_private_if_there, write_private
from daskpki.identity import Identity
from daskpki.pki.credential import Credential
from daskpki.pki.csr import create_request
from daskpki.pki.keys import KeyType, generate_key, parse_key, serialize_key
from daskpki.pki.verify import key_fits

_FORMAT: Final = 1
_RECORD_SUFFIX: Final = ".request"


class Waiting(NamedTuple):
    """A key that `daskpki request` made, by id, store, cluster and name of its future login."""

    id: str
    store: str
    cluster: str
    name: str

    @property
    def title(self) -> str:
        """CLUSTER/NAME, as commands print and take it."""
        return f"{self.cluster}/{self.name}" if self.name else self.id


def waiting_for(contexts: Contexts, store: str, cluster: str, name: str) -> Waiting:
    """The waiting key of that login, which need not exist."""
    return Waiting(contexts.id_of(store, cluster, name), store, cluster, name)


def all_waiting(contexts: Contexts) -> list[Waiting]:
    """The waiting keys, ordered by cluster and name; a damaged record is listed by id so that it can be removed."""
    found = []
    for name in names_in(contexts.directory):
        path = contexts.directory / name
        if path.suffix != _RECORD_SUFFIX or (data := read_private_if_there(path)) is None:
            continue
        try:
            document = json.loads(data)
            found.append(Waiting(path.stem, *(str(document[field]) for field in ("store", "cluster", "name"))))
        except (ValueError, KeyError, TypeError):
            found.append(Waiting(path.stem, "", "", ""))
    return sorted(found, key=lambda waiting: (waiting.title, waiting.id))


def find_waiting(contexts: Contexts, title: str) -> Waiting:
    """The waiting key of CLUSTER or CLUSTER/NAME, or with that id; NotFoundError, UsageError that names several."""
    fitting = [known for known in all_waiting(contexts) if title in (known.id, known.title, known.cluster)]
    if not fitting:
        raise NotFoundError(f"there is neither a login nor a waiting key {title!r}", hint="daskpki whoami")
    if len(fitting) > 1:
        names = ", ".join(f"{known.title} in {known.store} (id {known.id})" for known in fitting)
        raise UsageError(f"several waiting keys fit {title!r}: {names}", hint="daskpki logout ID chooses one")
    return fitting[0]


_NO_FILE: Final = file_digest(b"")


def request_certificate(
    waiting: Waiting, identity: Identity, contexts: Contexts, keyring: KeyringPort, kind: KeyType = KeyType.P256
) -> bytes:
    """Make a key in the keyring, unless one already waits, and return the request (DER) for it.

    AccessDeniedError without a usable keyring; then no key is made.
    """
    with contexts.locked():
        key = waiting_key(waiting.id, keyring)
        record = {"format": _FORMAT, **waiting._asdict()}
        write_private(
            contexts.directory / f"{waiting.id}{_RECORD_SUFFIX}", json.dumps(record).encode() + b"\n", force=True
        )
        if key is None:
            key = serialize_key(generate_key(kind))
            keyring.set(_service(waiting.id), USERNAME, encode_entry(Entry(0, _NO_FILE, key)))
    return create_request(parse_key(key), waiting.cluster, identity)


def waiting_key(login_id: str, keyring: KeyringPort) -> Confidential | None:
    """The key (PKCS#8 DER) that waits for its certificate."""
    line = keyring.get(_service(login_id), USERNAME)
    return None if line is None else parse_entry(line).key


def find_waiting_key(
    leaf: bytes, contexts: Contexts, keyring: KeyringPort
) -> tuple[Waiting, Confidential] | tuple[None, None]:
    """Find the waiting key of a certificate (DER), and its record; its request may have named any store and cluster."""
    for waiting in all_waiting(contexts):
        key = waiting_key(waiting.id, keyring)
        if key is not None and key_fits(key, leaf):
            return waiting, key
    return None, None


def forget_waiting(login_id: str, contexts: Contexts, keyring: KeyringPort) -> None:
    """Remove the waiting key and its record; the directory of logins must be locked."""
    keyring.delete(_service(login_id), USERNAME)
    (contexts.directory / f"{login_id}{_RECORD_SUFFIX}").unlink(missing_ok=True)


def with_own_key(credential: Credential, keys: Iterable[Confidential | None]) -> Credential:
    """The credential with the one of these keys that belongs to it; NotFoundError if none does."""
    for key in keys:
        if key is not None and key_fits(key, credential.leaf):
            return credential._replace(key=key)
    raise NotFoundError(
        f"the key of {credential.identity.uri} is not in this keyring: it stayed where the request was made",
        hint=f"there: daskpki login; or make a new one here: daskpki request client --name {credential.identity.name}",
    )


def _service(login_id: str) -> str:
    return service_name(f"{login_id}-request")

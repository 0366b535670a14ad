"""Keys that never travel: made in the person's own keyring, and waiting there for their certificate.

The waiting key is an entry of its own in the keyring, of the form of a login's, whose digest is that of no file yet.
`daskpki login` finds it by the certificate that it belongs to; `daskpki logout` removes it, by the note in
`daskpki.credentials.waiting`.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from daskpki.confidential import Confidential
from daskpki.credentials.contexts import Contexts, service_name
from daskpki.credentials.entry import Entry, encode_entry, parse_entry
from daskpki.credentials.logins import USERNAME
from daskpki.credentials.os_keyring import KeyringPort
from daskpki.credentials.waiting import Waiting, all_waiting, note, strike_out
from daskpki.errors import NotFoundError
from daskpki.identity import Identity
from daskpki.pki.credential import Credential
from daskpki.pki.csr import create_request
from daskpki.pki.keys import KeyType, generate_key, parse_key, serialize_key
from daskpki.pki.validate import key_matches

_WAITING: Final = "request"
_NO_FILE: Final = hashlib.sha256(b"").hexdigest()


def request_certificate(
    waiting: Waiting, identity: Identity, contexts: Contexts, keyring: KeyringPort, kind: KeyType = KeyType.P256
) -> bytes:
    """The request (DER) for a key that is in the keyring now; asked again, one for the key that waits already.

    AccessDeniedError without a usable keyring; then there is no key either.
    """
    with contexts.locked():
        key = waiting_key(waiting.id, keyring)
        note(contexts, waiting)
        if key is None:
            key = serialize_key(generate_key(kind))
            keyring.set(_service(waiting.id), USERNAME, encode_entry(Entry(0, _NO_FILE, key)))
    return create_request(parse_key(key), waiting.cluster, identity)


def waiting_key(login_id: str, keyring: KeyringPort) -> Confidential | None:
    """The key (PKCS#8 DER) that waits for its certificate."""
    line = keyring.get(_service(login_id), USERNAME)
    return None if line is None else parse_entry(line).key


class WaitingKey(NamedTuple):
    """A key (PKCS#8 DER) that waits, and the note of it."""

    waiting: Waiting
    key: Confidential


def find_waiting_key(leaf: bytes, contexts: Contexts, keyring: KeyringPort) -> WaitingKey | None:
    """The waiting key to which a certificate (DER) belongs, whatever store and cluster its request named."""
    for waiting in all_waiting(contexts):
        key = waiting_key(waiting.id, keyring)
        if key is not None and key_matches(key, leaf):
            return WaitingKey(waiting, key)
    return None


def forget_waiting(login_id: str, contexts: Contexts, keyring: KeyringPort) -> None:
    """Remove the waiting key and the note of it; the directory of logins must be locked."""
    keyring.delete(_service(login_id), USERNAME)
    strike_out(contexts, login_id)


def with_own_key(credential: Credential, held: Confidential | None, waiting: Confidential | None) -> Credential:
    """The credential with whichever of the keyring's keys belongs to it; NotFoundError when none does."""
    for key in (waiting, held):
        if key is not None and key_matches(key, credential.leaf):
            return credential._replace(key=key)
    raise NotFoundError(
        f"the key of {credential.identity.uri} is not in this keyring: it stayed where the request was made",
        hint=f"there: daskpki login; or make a new one here: daskpki request client --name {credential.identity.name}",
    )


def _service(login_id: str) -> str:
    return service_name(f"{login_id}-{_WAITING}")

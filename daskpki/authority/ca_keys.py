"""Keys of a cluster's CAs: their types, the place of each, and how it is sealed and opened.

The log names a key's place by URI: `store:` is the cluster's own store, any other store URL is that store, and
`gcpkms://` is a key that never leaves Cloud KMS. A stored payload is PKCS#8, sealed by its own passphrase if one was
given at `init-ca`, so that someone who can only read the store cannot sign; the passphrase's parameters and the
sealing's format are in the payload. `Issuers` opens each generation's key at most once.

The key of an offline root is in one file, sealed by its own passphrase. The file is made before the root's certificate
is signed. After an interruption, the same command opens the file by its passphrase and continues with that key; a file
with other content is never overwritten.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.errors import AlreadyExistsError, CorruptError, NotFoundError, NotTrustedError, PolicyError, UsageError
from daskpki.files import read_private, write_and_read_back
from daskpki.inventory import FROM_REQUEST, AuthorityRecord
from daskpki.pki.keys import KINDS, KeyType, PrivateKey, generate_key, parse_key, serialize_key
from daskpki.settings import KMS_SCHEME
from daskpki.store.encryption import context, open_with_passphrase, seal_with_passphrase
from daskpki.store.port import SecretStore

if TYPE_CHECKING:
    from daskpki.pki.issuer import Issuer


def parse_key_type(text: str) -> KeyType:
    """The key type of that name; UsageError that lists them."""
    try:
        return KeyType(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a key type", hint=KINDS) from None


def parse_renewable_key_type(text: str) -> KeyType:
    """The type of key that a renewal makes; PolicyError for a certificate that was issued for a request."""
    if text == FROM_REQUEST:
        raise PolicyError(
            "a certificate whose key stayed with its holder cannot be renewed here",
            hint="its holder runs daskpki request, and you daskpki sign",
        )
    return parse_key_type(text)


def parse_ca_key_type(text: str) -> KeyType:
    """A CA's key type: not Ed25519, since NSS and browsers refuse its signatures."""
    kind = parse_key_type(text)
    if kind is KeyType.ED25519:
        raise PolicyError("an Ed25519 CA is refused by several validators", hint="p256, p384 or rsa3072 work")
    return kind


OWN_STORE: Final = "store:"
_FORMAT: Final = 1
PASSPHRASE: Final = "passphrase"
_NONE: Final = "none"
KMS: Final = "kms"
_SEALINGS: Final = (_NONE, PASSPHRASE, KMS)

Passphrase = Callable[[], Confidential]
"""Gives the passphrase; called only when it is needed, since it may prompt."""


def is_lesser(sealing: str, than: str) -> bool:
    """True if a key with that sealing is easier to steal than one with the other, or if either sealing is unknown."""
    return _SEALINGS.index(sealing) < _SEALINGS.index(than) if {sealing, than} <= set(_SEALINGS) else True


class CaKeys(Protocol):
    """A place for CA keys."""

    @property
    def uri(self) -> str:
        """The URI by which the log names this place."""

    @property
    def sealing(self) -> str:
        """The sealing of keys that are made here: kms, passphrase or none."""

    def check(self) -> None:
        """Raise the error of `make` if no key can be made in this place; makes nothing."""

    def make(self, generation: int, kind: KeyType) -> PrivateKey:
        """Return the key of a new generation, durable on return; `kind` applies only if daskpki makes the key."""

    def open(self, generation: int) -> PrivateKey:
        """The key of that generation; NotFoundError, AccessDeniedError (also for a wrong passphrase)."""

    def discard(self, generation: int) -> None:
        """Erase the key of an ended generation, if daskpki made it; may be repeated."""


class StoredCaKeys(NamedTuple):
    """Keys as secrets; sealed if a passphrase is given, and then never stored unsealed."""

    secrets: SecretStore
    cluster: str
    uri: str = OWN_STORE
    seal: Passphrase | None = None
    unseal: Passphrase | None = None
    least: str = _NONE
    """The sealing that the log records for the key; a key with a weaker one is not opened."""

    @property
    def sealing(self) -> str:
        """The sealing of a new key."""
        return PASSPHRASE if self.seal else _NONE

    def check(self) -> None:
        """Raise for a place that cannot take keys."""

    def make(self, generation: int, kind: KeyType) -> PrivateKey:
        """Make the key of a generation."""
        key = generate_key(kind)
        secret = secret_names.ca_key_id(self.cluster, generation)
        labels = secret_names.labels(self.cluster, secret_names.CA_KEY, str(generation))
        with suppress(AlreadyExistsError):  # left over, or planted: `add` refuses one that is not ours
            self.secrets.create(secret, labels=labels)
        sealed = serialize_key(key)
        if self.seal:
            sealed = Confidential(seal_with_passphrase(sealed, self.seal(), context=self._context(generation)))
        payload = {
            "format": _FORMAT,
            "generation": generation,
            "sealing": self.sealing,
            "key": base64.b64encode(sealed.reveal()).decode(),
        }
        self.secrets.add(secret, Confidential(json.dumps(payload)))
        return key

    def open(self, generation: int) -> PrivateKey:
        """Open the key of a generation."""
        sealing, body = self._payload(generation)
        if is_lesser(sealing, self.least):
            raise NotTrustedError(
                f"the log records sealing {self.least} for the key of CA {generation}, but "
                f"{secret_names.ca_key_id(self.cluster, generation)} has {sealing}",
                hint="somebody put another key in its place: find out who, and restore the version before",
            )
        if sealing == _NONE:
            return parse_key(body)
        if self.unseal is None:
            raise NotTrustedError(
                f"the key of CA {generation} is sealed by its own passphrase",
                hint="name it by --ca-passphrase-file FILE",
            )
        return parse_key(open_with_passphrase(body.reveal(), self.unseal(), context=self._context(generation)))

    def discard(self, generation: int) -> None:
        """Erase the key of a generation that ended."""
        with suppress(NotFoundError):
            self.secrets.delete(secret_names.ca_key_id(self.cluster, generation))

    def _payload(self, generation: int) -> tuple[str, Confidential]:
        """The sealing of a stored key, and its bytes."""
        secret = secret_names.ca_key_id(self.cluster, generation)
        try:
            try:
                data = self.secrets.latest(secret).data
            except NotFoundError:  # `latest` lags behind a key that was kept a moment ago; its number does not
                data = self.secrets.access(secret, 1)
        except NotFoundError as error:
            raise NotFoundError(
                f"the key of CA {generation} is not where it was kept: {error}",
                hint="restore it; if it is lost for good: daskpki rotate-ca --emergency --old-key-lost",
            ) from None
        try:
            document = json.loads(data.reveal())
            version, sealing = document["format"], document["sealing"]
            body = base64.b64decode(document["key"], validate=True)
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            raise CorruptError(f"{secret} is not a CA key") from error
        if version != _FORMAT:
            raise NotTrustedError(
                f"{secret} has format {version}; this daskpki reads {_FORMAT}", hint="upgrade daskpki"
            )
        return sealing, Confidential(body)

    def _context(self, generation: int) -> bytes:
        return f"daskpki CA key, cluster {self.cluster}, generation {generation}".encode()


class KeyLocations(NamedTuple):
    """Passphrases that seal and open keys, and functions that open other places than the cluster's own store."""

    seal: Passphrase | None = None
    unseal: Passphrase | None = None
    store: Callable[[str], SecretStore] | None = None
    kms: Callable[[str], CaKeys] | None = None


class Issuers:
    """Opens the generations of one cluster; calling it with a generation's record gives the issuer."""

    def __init__(self, secrets: SecretStore, cluster: str, places: KeyLocations) -> None:
        self._secrets = secrets
        self._cluster = cluster
        self._places = places
        self._opened: dict[int, Issuer] = {}

    def __call__(self, authority: AuthorityRecord) -> Issuer:
        """Open a generation; NotFoundError, AccessDeniedError, NotTrustedError if the key is not its certificate's."""
        from daskpki.pki.issuer import open_issuer

        number = authority.generation
        if number not in self._opened:
            place = self.place(authority.key_uri)
            if isinstance(place, StoredCaKeys):
                place = place._replace(least=authority.sealing)
            key = place.open(number)
            self._opened[number] = open_issuer(authority.anchor_der, authority.chain_der, key, generation=number)
        return self._opened[number]

    def adopt(self, issuer: Issuer) -> None:
        """Keep the issuer of a new generation, whose key was just made."""
        self._opened[issuer.generation] = issuer

    def open(self, authorities: Iterable[AuthorityRecord]) -> None:
        """Open all of these now: a key that cannot be opened has to be found before anything is recorded."""
        for authority in authorities:
            self(authority)

    def place(self, uri: str) -> CaKeys:
        """The place of that URI; UsageError for one that cannot be reached from here."""
        if uri.startswith(KMS_SCHEME):
            if self._places.kms is None:
                raise UsageError(f"{uri}: this program opens no Cloud KMS keys", hint="use the command line")
            return self._places.kms(uri)
        return self._stored(uri, self._places.seal)

    def successor_place(self, predecessor: AuthorityRecord, uri: str | None, *, lower: bool = False) -> CaKeys:
        """The place for the key of the next generation: by default beside its predecessor's.

        PolicyError if that place protects keys less, unless `lower` allows it.
        """
        chosen = uri or predecessor.key_uri
        if not chosen.startswith(KMS_SCHEME):
            kept = self._places.unseal if predecessor.sealing == PASSPHRASE else None
            place: CaKeys = self._stored(chosen, self._places.seal or kept)
        elif chosen == predecessor.key_uri:
            raise UsageError("the new CA needs another key", hint="--ca-key names another key version")
        else:
            place = self.place(chosen)
        if is_lesser(place.sealing, predecessor.sealing) and not lower:
            raise PolicyError(
                f"the key of CA {predecessor.generation} has sealing {predecessor.sealing}, and the new one would have "
                f"{place.sealing}",
                hint="--ca-key names a better place, --ca-passphrase seals it; --lower-sealing does without",
            )
        return place

    def _stored(self, uri: str, seal: Passphrase | None) -> StoredCaKeys:
        secrets = self._secrets
        if uri != OWN_STORE:
            if self._places.store is None:
                raise UsageError(f"{uri}: this program opens no other stores", hint="use the command line")
            secrets = self._places.store(uri)
        return StoredCaKeys(secrets, self._cluster, uri, seal, self._places.unseal)


_SETTING: Final = "the offline root's file (--offline-root)"


class OfflineRoot(NamedTuple):
    """The root's file; `passphrase(new)` returns its passphrase, a new one if `new`."""

    path: Path
    cluster: str
    passphrase: Callable[[bool], Confidential]

    def make(self, kind: KeyType) -> PrivateKey:
        """The key in the file, durable on return: made now, or by an interrupted command."""
        if os.path.lexists(self.path):
            return self.open()
        key = generate_key(kind)
        sealed = seal_with_passphrase(serialize_key(key), self.passphrase(True), context=self._context)
        write_and_read_back(self.path, sealed, called=_SETTING)
        return key

    def open(self) -> PrivateKey:
        """The key in the file; AccessDeniedError for a wrong passphrase or loose permissions, CorruptError."""
        sealed = read_private(self.path, called=_SETTING)
        return parse_key(open_with_passphrase(sealed, self.passphrase(False), context=self._context), _SETTING)

    @property
    def _context(self) -> bytes:
        return context("daskpki offline root", self.cluster)

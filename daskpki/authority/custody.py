"""Where a CA's key is kept, and how it is opened: the port, and keys as secrets of this store or of another one.

The key's URI stands in the log: `store:` is the cluster's own store, any other store URL is that store, and
`gcpkms://` is a key that never leaves Cloud KMS. The payload is PKCS#8, sealed by a passphrase of its own when one was
given at `init-ca`, so that whoever can merely read the store cannot sign; the passphrase's parameters and the sealing's
format are in the payload.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from daskpki import naming
from daskpki.confidential import Confidential
from daskpki.errors import AlreadyExistsError, CorruptError, NotFoundError, NotTrustedError
from daskpki.pki.keys import KeyType, PrivateKey, generate_key, parse_key, serialize_key
from daskpki.store.port import SecretStore
from daskpki.store.sealing import open_with_passphrase, seal_with_passphrase

OWN_STORE: Final = "store:"
_FORMAT: Final = 1
PASSPHRASE: Final = "passphrase"
_NONE: Final = "none"
KMS: Final = "kms"
_SEALINGS: Final = (_NONE, PASSPHRASE, KMS)

Passphrase = Callable[[], Confidential]
"""Asked for only when it is needed, since asking may mean a prompt."""


def is_lesser(sealing: str, than: str) -> bool:
    """Whether a key under the one sealing is easier to steal than under the other; an unknown one is the least."""
    return [*_SEALINGS].index(sealing) < [*_SEALINGS].index(than) if {sealing, than} <= set(_SEALINGS) else True


class CaKeys(Protocol):
    """A place for CA keys."""

    @property
    def uri(self) -> str:
        """How the log names this place."""
        ...

    @property
    def sealing(self) -> str:
        """How a key that is made here is sealed: kms, passphrase or none."""
        ...

    def check(self) -> None:
        """Raise what `make` would raise where the place itself is of no use, and make nothing."""
        ...

    def make(self, generation: int, kind: KeyType) -> PrivateKey:
        """The key of a new generation, durable on return; of that kind, where keys are made by us."""
        ...

    def open(self, generation: int) -> PrivateKey:
        """The key of that generation; NotFoundError, AccessDeniedError (also for a wrong passphrase)."""
        ...

    def discard(self, generation: int) -> None:
        """Erase the key of a generation that has ended, where that is ours to do; repeating it is no error."""
        ...


class StoredCaKeys(NamedTuple):
    """Keys as secrets; sealed when a passphrase is given, and then never kept without."""

    secrets: SecretStore
    cluster: str
    uri: str = OWN_STORE
    seal: Passphrase | None = None
    unseal: Passphrase | None = None
    least: str = _NONE
    """The sealing that the log records of the key; opening a lesser one is refused."""

    @property
    def sealing(self) -> str:
        """See CaKeys."""
        return PASSPHRASE if self.seal else _NONE

    def check(self) -> None:
        """See CaKeys."""

    def make(self, generation: int, kind: KeyType) -> PrivateKey:
        """See CaKeys."""
        key = generate_key(kind)
        secret = naming.ca_key_id(self.cluster, generation)
        labels = naming.labels(self.cluster, naming.CA_KEY, str(generation))
        try:
            self.secrets.create(secret, labels=labels)
        except AlreadyExistsError:  # a command that was cut off; the newest version counts
            self.secrets.describe(secret)
        self.secrets.add(secret, self._encode(generation, key))
        return key

    def open(self, generation: int) -> PrivateKey:
        """See CaKeys."""
        payload = self._payload(generation)
        if is_lesser(payload.sealing, self.least):
            raise NotTrustedError(
                f"the key of CA {generation} is recorded with sealing {self.least}, and {payload.sealing} is what "
                f"{naming.ca_key_id(self.cluster, generation)} has",
                hint="somebody put another key in its place: find out who, and restore the version before",
            )
        if payload.sealing == _NONE:
            return parse_key(Confidential(payload.body))
        if self.unseal is None:
            raise NotTrustedError(
                f"the key of CA {generation} is sealed by a passphrase of its own",
                hint="name it by --ca-passphrase-file FILE",
            )
        return parse_key(open_with_passphrase(payload.body, self.unseal(), context=self._context(generation)))

    def discard(self, generation: int) -> None:
        """See CaKeys."""
        with suppress(NotFoundError):
            self.secrets.delete(naming.ca_key_id(self.cluster, generation))

    def _encode(self, generation: int, key: PrivateKey) -> Confidential:
        plain = serialize_key(key)
        sealed = (
            seal_with_passphrase(plain, self.seal(), context=self._context(generation)) if self.seal else plain.reveal()
        )
        payload = {
            "format": _FORMAT,
            "generation": generation,
            "sealing": PASSPHRASE if self.seal else _NONE,
            "key": base64.b64encode(sealed).decode(),
        }
        return Confidential(json.dumps(payload))

    def _payload(self, generation: int) -> _Payload:
        secret = naming.ca_key_id(self.cluster, generation)
        try:
            data = self.secrets.latest(secret).data
        except NotFoundError:  # `latest` lags behind a key that was kept a moment ago; its number does not
            data = self._first(secret, generation)
        return _parse(secret, data)

    def _first(self, secret: str, generation: int) -> Confidential:
        try:
            return self.secrets.access(secret, 1)
        except NotFoundError as error:
            raise NotFoundError(
                f"the key of CA {generation} is not where it was kept: {error}",
                hint="restore it; if it is lost for good: daskpki rotate-ca --emergency --old-key-lost",
            ) from None

    def _context(self, generation: int) -> bytes:
        return f"daskpki CA key, cluster {self.cluster}, generation {generation}".encode()


class _Payload(NamedTuple):
    """How a stored key is sealed, and its bytes, which are secret while nothing seals them."""

    sealing: str
    body: bytes

    def __repr__(self) -> str:
        return f"<CA key, sealing {self.sealing}>"


def _parse(secret: str, payload: Confidential) -> _Payload:
    try:
        document = json.loads(payload.reveal())
        version, sealing = document["format"], document["sealing"]
        body = base64.b64decode(document["key"], validate=True)
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(f"{secret} does not hold a CA key") from error
    if version != _FORMAT:
        raise NotTrustedError(f"{secret} has format {version}; this daskpki reads {_FORMAT}", hint="upgrade daskpki")
    return _Payload(sealing, body)

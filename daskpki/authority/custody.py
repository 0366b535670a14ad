"""Where a CA's key is kept, and how it is opened: in a secret of its own, in this store or in another one.

The key's URI stands in the log: `store:` is the cluster's own store, any other store URL is that store. The payload is
PKCS#8, sealed by a passphrase of its own when one was given at `init-ca`, so that whoever can merely read the store
cannot sign; the passphrase's parameters and the sealing's format are in the payload.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from daskpki import naming
from daskpki.confidential import Confidential
from daskpki.errors import AlreadyExistsError, CorruptError, NotTrustedError
from daskpki.pki.keys import PrivateKey, parse_key, serialize_key
from daskpki.store.port import SecretStore
from daskpki.store.sealing import open_with_passphrase, seal_with_passphrase

OWN_STORE: Final = "store:"
_FORMAT: Final = 1

Passphrase = Callable[[], Confidential]
"""Asked for only when it is needed, since asking may mean a prompt."""


class CaKeys(Protocol):
    """A place for CA keys."""

    @property
    def uri(self) -> str:
        """How the log names this place."""
        ...

    def keep(self, generation: int, key: PrivateKey) -> None:
        """Store the key of a new generation; durable on return."""
        ...

    def open(self, generation: int) -> PrivateKey:
        """The key of that generation; NotFoundError, AccessDeniedError (also for a wrong passphrase)."""
        ...


class StoredCaKeys(NamedTuple):
    """Keys as secrets; sealed when a passphrase is given, and then never kept without."""

    secrets: SecretStore
    cluster: str
    uri: str = OWN_STORE
    seal: Passphrase | None = None
    unseal: Passphrase | None = None

    def keep(self, generation: int, key: PrivateKey) -> None:
        """See CaKeys."""
        secret = naming.ca_key_id(self.cluster, generation)
        labels = naming.labels(self.cluster, naming.CA_KEY, str(generation))
        try:
            self.secrets.create(secret, labels=labels)
        except AlreadyExistsError:  # an init-ca that was cut off; the newest version counts
            self.secrets.describe(secret)
        self.secrets.add(secret, self._encode(generation, key))

    def open(self, generation: int) -> PrivateKey:
        """See CaKeys."""
        secret = naming.ca_key_id(self.cluster, generation)
        return parse_key(self._decode(secret, generation, self.secrets.latest(secret).data))

    def _encode(self, generation: int, key: PrivateKey) -> Confidential:
        plain = serialize_key(key)
        sealed = (
            seal_with_passphrase(plain, self.seal(), context=self._context(generation)) if self.seal else plain.reveal()
        )
        payload = {
            "format": _FORMAT,
            "generation": generation,
            "sealing": "passphrase" if self.seal else "none",
            "key": base64.b64encode(sealed).decode(),
        }
        return Confidential(json.dumps(payload))

    def _decode(self, secret: str, generation: int, payload: Confidential) -> Confidential:
        try:
            document = json.loads(payload.reveal())
            version, sealing = document["format"], document["sealing"]
            body = base64.b64decode(document["key"], validate=True)
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptError(f"{secret} does not hold a CA key") from error
        if version != _FORMAT:
            raise NotTrustedError(
                f"{secret} has format {version}; this daskpki reads {_FORMAT}", hint="upgrade daskpki"
            )
        if sealing == "none":
            return Confidential(body)
        if self.unseal is None:
            raise NotTrustedError(
                f"{secret} is sealed by a passphrase of its own", hint="name it by --ca-passphrase-file FILE"
            )
        return open_with_passphrase(body, self.unseal(), context=self._context(generation))

    def _context(self, generation: int) -> bytes:
        return f"daskpki CA key, cluster {self.cluster}, generation {generation}".encode()

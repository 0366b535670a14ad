"""A cluster's CA generations as issuers: each key is opened at most once, from where the log says that it is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from daskpki.authority.custody import OWN_STORE, CaKeys, Passphrase, StoredCaKeys
from daskpki.authority.policy import issuer_of
from daskpki.errors import NotFoundError, UsageError
from daskpki.inventory import AuthorityRecord
from daskpki.store.port import SecretStore

if TYPE_CHECKING:
    from daskpki.pki.issuer import Issuer

KMS_SCHEME = "gcpkms://"


class Places(NamedTuple):
    """How keys are sealed and opened, and how places other than the cluster's own store are reached, by their URI."""

    seal: Passphrase | None = None
    unseal: Passphrase | None = None
    store: Callable[[str], SecretStore] | None = None
    kms: Callable[[str], CaKeys] | None = None


class Issuers:
    """Opens the generations of one cluster; calling it with a generation's record gives the issuer."""

    def __init__(self, secrets: SecretStore, cluster: str, places: Places) -> None:
        self._secrets = secrets
        self._cluster = cluster
        self._places = places
        self._opened: dict[int, Issuer] = {}

    def __call__(self, authority: AuthorityRecord) -> Issuer:
        """The generation with its key; NotFoundError, AccessDeniedError, NotTrustedError when the key is another's."""
        if authority.generation not in self._opened:
            key = self.place(authority.key_uri).open(authority.generation)
            self._opened[authority.generation] = issuer_of(authority, key)
        return self._opened[authority.generation]

    def adopt(self, issuer: Issuer) -> None:
        """Take a generation's issuer, whose key was just made."""
        self._opened[issuer.generation] = issuer

    def open(self, authorities: Iterable[AuthorityRecord]) -> None:
        """Open all of these now, so that a key that cannot be opened is found before anything is recorded."""
        for authority in authorities:
            self(authority)

    def place(self, uri: str) -> CaKeys:
        """The place of that URI; UsageError for one that cannot be reached from here."""
        if uri.startswith(KMS_SCHEME):
            if self._places.kms is None:
                raise UsageError(f"{uri}: this program opens no Cloud KMS keys", hint="use the command line")
            return self._places.kms(uri)
        return self._stored(uri, self._places.seal)

    def successor_place(self, predecessor: AuthorityRecord, uri: str | None) -> CaKeys:
        """Where the key of the next generation goes: by default beside its predecessor's, and no less sealed."""
        chosen = uri or predecessor.key_uri
        if chosen.startswith(KMS_SCHEME):
            if chosen == predecessor.key_uri:
                raise UsageError("the new CA needs a key of its own", hint="--ca-key names another key version")
            return self.place(chosen)
        return self._stored(chosen, self._places.seal or self._kept_passphrase(predecessor))

    def _kept_passphrase(self, predecessor: AuthorityRecord) -> Passphrase | None:
        if predecessor.key_uri.startswith(KMS_SCHEME):
            return None
        try:
            sealed = self._stored(predecessor.key_uri, None).is_sealed(predecessor.generation)
        except NotFoundError:  # a key that was lost; what was asked for decides
            sealed = False
        return self._places.unseal if sealed else None

    def _stored(self, uri: str, seal: Passphrase | None) -> StoredCaKeys:
        secrets = self._secrets
        if uri != OWN_STORE:
            if self._places.store is None:
                raise UsageError(f"{uri}: this program opens no other stores", hint="use the command line")
            secrets = self._places.store(uri)
        return StoredCaKeys(secrets, self._cluster, uri, seal, self._places.unseal)

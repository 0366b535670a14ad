"""A cluster's CA generations as issuers: each key is opened at most once, from where the log says that it is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from daskpki.authority.custody import OWN_STORE, PASSPHRASE, CaKeys, Passphrase, StoredCaKeys, is_lesser
from daskpki.authority.policy import issuer_of
from daskpki.errors import PolicyError, UsageError
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
            key = self._recorded_place(authority).open(authority.generation)
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

    def _recorded_place(self, authority: AuthorityRecord) -> CaKeys:
        """Where the log says that a key is kept, and how it is sealed there."""
        place = self.place(authority.key_uri)
        return place._replace(least=authority.sealing) if isinstance(place, StoredCaKeys) else place

    def successor_place(self, predecessor: AuthorityRecord, uri: str | None, *, lower: bool = False) -> CaKeys:
        """Where the key of the next generation goes: by default beside its predecessor's.

        PolicyError when it would be less sealed, unless `lower` says that this is wanted.
        """
        place = self._successor_place(predecessor, uri or predecessor.key_uri)
        if is_lesser(place.sealing, predecessor.sealing) and not lower:
            raise PolicyError(
                f"the key of CA {predecessor.generation} has sealing {predecessor.sealing}, and the new one would have "
                f"{place.sealing}",
                hint="--ca-key names a better place, --ca-passphrase seals it; --lower-sealing does without",
            )
        return place

    def _successor_place(self, predecessor: AuthorityRecord, chosen: str) -> CaKeys:
        if chosen.startswith(KMS_SCHEME):
            if chosen == predecessor.key_uri:
                raise UsageError("the new CA needs a key of its own", hint="--ca-key names another key version")
            return self.place(chosen)
        kept = self._places.unseal if predecessor.sealing == PASSPHRASE else None
        return self._stored(chosen, self._places.seal or kept)

    def _stored(self, uri: str, seal: Passphrase | None) -> StoredCaKeys:
        secrets = self._secrets
        if uri != OWN_STORE:
            if self._places.store is None:
                raise UsageError(f"{uri}: this program opens no other stores", hint="use the command line")
            secrets = self._places.store(uri)
        return StoredCaKeys(secrets, self._cluster, uri, seal, self._places.unseal)

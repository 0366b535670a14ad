"""What the options of `daskpki` say, and how a command opens the store and the CA that they name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from daskpki.cli.ca_passphrase import CaPassphrase
from daskpki.cli.output import Output
from daskpki.identity import parse_label
from daskpki.settings import DEFAULT_CLUSTER, parse_store_url

if TYPE_CHECKING:
    from daskpki.authority import CertificateAuthority
    from daskpki.authority.custody import CaKeys
    from daskpki.store.gsm.placement import GsmOptions
    from daskpki.store.opening import Unlocking
    from daskpki.store.port import Store


class Invocation(NamedTuple):
    """One run of `daskpki`: its global options and the name of its command."""

    store: str
    chosen_cluster: str | None
    passphrase_file: str | None
    key_file: str | None
    ca_passphrase_file: str | None
    ca_sha256: str | None
    output: Output
    command: str

    @property
    def cluster(self) -> str:
        """The cluster in use."""
        return parse_label(self.chosen_cluster or DEFAULT_CLUSTER, "cluster")

    @property
    def store_name(self) -> str:
        """The store's URL as logins are told apart by, without opening it: it may not be readable from here."""
        from daskpki.settings import LocalUrl
        from daskpki.store.opening import local_directory

        url = parse_store_url(self.store)
        return f"local:{local_directory(url, os.environ)}" if isinstance(url, LocalUrl) else str(url)

    @contextmanager
    def open_store(
        self, *, url: str | None = None, create: bool = False, placement: GsmOptions | None = None
    ) -> Iterator[Store]:
        """The store named by `--store`, or another one, closed at the end; with `create` a missing local one is made.

        `placement` says where a new cluster's payloads are kept, on Secret Manager.
        """
        from daskpki.store.opening import open_store

        store = open_store(
            parse_store_url(url or self.store), unlock=self.unlocking(), create=create, placement=placement
        )
        try:
            yield store
        finally:
            store.close()

    @contextmanager
    def authority(
        self,
        *,
        create: bool = False,
        placement: GsmOptions | None = None,
        seal: bool = False,
        reading: bool = False,
    ) -> Iterator[CertificateAuthority]:
        """The CA of `--cluster` in that store; with `seal` a new CA's key is sealed by its own passphrase.

        With `reading`, a local store is shown as it is, without its key, and marked as unverified.
        """
        from daskpki.authority import CertificateAuthority
        from daskpki.authority.issuers import Places

        with ExitStack() as opened:
            passphrase = CaPassphrase(self.ca_passphrase_file)
            store = opened.enter_context(self.open_store(create=create, placement=placement))
            if reading and store.url.startswith("local:"):
                self.output.hint("read without the store's key, so not verified: daskpki audit --verify does that")
            yield CertificateAuthority(
                store,
                self.cluster,
                command=f"daskpki {self.command}",
                ca_sha256=self.ca_sha256,
                reading=reading,
                places=Places(
                    seal=passphrase.sealing if seal else None,
                    unseal=passphrase.opening,
                    store=cache(lambda url: opened.enter_context(self.open_store(url=url, create=create)).secrets),
                    kms=cache(_kms),
                ),
            )

    def unlocking(self) -> Unlocking:
        """The ways to a local store's master key that this run has."""
        from daskpki.cli.unlocking import unlocking

        return unlocking(self.key_file, self.passphrase_file)


def _kms(uri: str) -> CaKeys:
    from daskpki.kms.place import kms_ca_keys

    return kms_ca_keys(uri, os.environ)

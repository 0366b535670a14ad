"""Gets the credential from the selected source, verified, and explains the selection (`daskpki whoami`).

After a failure no other source is tried.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from daskpki import settings
from daskpki.confidential import Confidential, KeyringPort
from daskpki.credentials.contexts import LOGIN_FILE, Contexts, parse_scheduler
from daskpki.credentials.directory import CredentialFiles, in_directory, load_directory
from daskpki.credentials.expiry import renewal_elsewhere, renewal_of_login
from daskpki.credentials.fetch import fetch_credential, fetch_trust
from daskpki.credentials.newest_trust import NewestTrust
from daskpki.credentials.one_file import load_file
from daskpki.credentials.os_keyring import OSKeyring
from daskpki.credentials.saved_logins import find_login, load_login, logins_that_list
from daskpki.credentials.source_selection import DIRECTORY, FILE, HANDOVER, Choice, CredentialSource, Wanted, choose
from daskpki.credentials.verified import Pins, VerifiedCredential, verify_credential
from daskpki.errors import CorruptError, UsageError
from daskpki.handover import load_handover
from daskpki.identity import Role, parse_label
from daskpki.pki.pem import parse_certificates
from daskpki.pki.trust_document import parse_trust
from daskpki.quoting import shortened
from daskpki.store.port import Store


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CorruptError(
            f"what daskpki-entrypoint handed down at {path} cannot be read: {error.strerror}",
            hint="it lives as long as the process that daskpki-entrypoint became",
        ) from None


class Environment(NamedTuple):
    """The environment of a process: its variables, clock and keyring, and how it opens stores."""

    environ: Mapping[str, str]
    now: datetime
    keyring: KeyringPort
    open_store: Callable[[settings.StoreUrl], Store]

    @property
    def contexts(self) -> Contexts:
        """The logins under daskpki's home."""
        return Contexts(settings.home(self.environ))

    def newest_trust(self, name: str) -> NewestTrust:
        """The newest trust document that programs of this user have seen since a login or export."""
        return NewestTrust(settings.home(self.environ), name)

    @property
    def pins(self) -> Pins:
        """The pins of DASKPKI_CA_SHA256 and DASKPKI_MIN_EPOCH; UsageError."""
        epoch = self.environ.get("DASKPKI_MIN_EPOCH") or "0"
        if not epoch.isascii() or not epoch.isdigit():
            raise UsageError(f"DASKPKI_MIN_EPOCH={shortened(epoch)} is not a number")
        return Pins(sha256=self.environ.get("DASKPKI_CA_SHA256") or None, min_epoch=int(epoch))


class Obtained(NamedTuple):
    """A verified credential, the choice of its source, and the known addresses of its cluster's schedulers.

    `store` is the store in which newer trust documents are published, None if only a directory or handover is known.
    """

    held: VerifiedCredential
    choice: Choice
    schedulers: tuple[str, ...]
    store: settings.StoreUrl | None = None

    def scheduler(self, address: str | None, hint: str) -> str:
        """Return that address, or the first known one; UsageError with the hint if there is none."""
        target = address or next(iter(self.schedulers), None)
        if target is None:
            cluster = self.held.credential.cluster
            raise UsageError(f"no scheduler's address of cluster {cluster!r} is known", hint=hint)
        return target


def this_process() -> Environment:
    """The environment of this process."""
    return Environment(os.environ, datetime.now(UTC), OSKeyring(), open_without_asking)


def open_without_asking(url: settings.StoreUrl) -> Store:
    """The store of that URL, unlocked by files that the environment names or by the keyring, never by a prompt."""
    from daskpki.store.local.key_slots import Unlocking
    from daskpki.store.opening import open_store

    return open_store(url, unlock=Unlocking(keyring=OSKeyring()))


def leaves_to_dask(wanted: Wanted, here: Environment) -> bool:
    """True if Dask's own TLS files, where configured, come first: no credential fits `wanted.address`."""
    if choose(wanted, here.environ).source is not CredentialSource.KEYRING:
        return False
    return not logins_that_list(here.contexts, _in_cluster(wanted, here))


def obtain(wanted: Wanted, here: Environment) -> Obtained:
    """Get the credential of the selected source; NotFoundError, NotTrustedError, AccessDeniedError, UsageError."""
    choice = choose(wanted, here.environ)
    held, schedulers, store = _SOURCES[choice.source](wanted, here)
    _check_asked_for(held, wanted, choice)
    return Obtained(held, choice, schedulers, store)


def renewal(obtained: Obtained, wanted: Wanted, here: Environment) -> str:
    """The command that renews the credential, wherever it came from."""
    credential, source = obtained.held.credential, obtained.choice.source
    if source is not CredentialSource.KEYRING:
        return renewal_elsewhere(source, credential.identity.name)
    saved = find_login(here.contexts, _in_cluster(wanted, here))
    return renewal_of_login(saved.context, is_active=saved == here.contexts.active())


def _check_asked_for(held: VerifiedCredential, wanted: Wanted, choice: Choice) -> None:
    """Raise for a source with another credential, which is never a reason to try the next source."""
    credential = held.credential
    for what, asked, found in (
        ("name", wanted.name, credential.identity.name),
        ("cluster", wanted.cluster, credential.cluster),
    ):
        if asked not in (None, found):
            raise UsageError(
                f"the {what} {asked!r} was asked for, and the credential in use is {credential.identity.uri}",
                hint=f"it was chosen because {choice.why}",
            )


_Found = tuple[VerifiedCredential, tuple[str, ...], settings.StoreUrl | None]


def _from_handover(_wanted: Wanted, here: Environment) -> _Found:
    handover = load_handover(here.environ[HANDOVER])
    leaf, *chain = parse_certificates(_read(handover.cert), "the certificate handed down")
    material = CredentialFiles(
        leaf=leaf,
        chain=tuple(chain),
        anchors=tuple(parse_certificates(_read(handover.ca), "the CA certificates handed down")),
        key=Confidential(_read(handover.key)),
        trust=Confidential(_read(handover.trust)),
    )
    held = _verify_material(material, here, "{} handed down by daskpki-entrypoint".format)
    return held, (handover.scheduler,) if handover.scheduler else held.trust.schedulers, None


def _from_directory(_wanted: Wanted, here: Environment) -> _Found:
    held = _verify_material(load_directory(Path(here.environ[DIRECTORY])), here, in_directory)
    return held, _addresses(held, here), None


def _from_file(wanted: Wanted, here: Environment) -> _Found:
    """The trust document lies beside the file, or comes from the store, by the workload's own identity."""
    found = load_file(Path(here.environ[FILE]))
    signed = found.trust
    if signed is None:
        named = found.payload.cluster if found.payload else settings.cluster_name(here.environ, wanted.cluster)
        with closing(here.open_store(settings.store_url(here.environ, wanted.store))) as store:
            pins = here.pins.remembering(store.memory.trust(named))
            signed = fetch_trust(store.secrets, named, pins=pins, now=here.now).data
    credential = found.credential(parse_trust(signed).document, here.now)
    held = verify_credential(credential, signed, pins=here.pins, now=here.now)
    return held, _addresses(held, here), None


def _addresses(held: VerifiedCredential, here: Environment) -> tuple[str, ...]:
    chosen = here.environ.get("DASKPKI_SCHEDULER")
    return (parse_scheduler(chosen),) if chosen else held.trust.schedulers


def _verify_material(material: CredentialFiles, here: Environment, called: Callable[[str], str]) -> VerifiedCredential:
    """Verify a credential by the CA certificates that lie beside it, of which one signed the trust document.

    `called` gives the name of a file in messages.
    """
    pins = here.pins._replace(anchors=material.anchors)
    credential = material.credential(parse_trust(material.trust).document, here.now, called)
    return verify_credential(credential, material.trust, pins=pins, now=here.now)


def _from_store(wanted: Wanted, here: Environment) -> _Found:
    name = wanted.name or here.environ.get("DASKPKI_NAME")
    if not name:
        raise UsageError("a credential from the store needs a name", hint="set DASKPKI_NAME, or security(NAME)")
    cluster = settings.cluster_name(here.environ, wanted.cluster)
    url = settings.store_url(here.environ, wanted.store)
    store = here.open_store(url)
    try:
        label = parse_label(name, "name")
        pins = here.pins.remembering(store.memory.trust(cluster))
        held = fetch_credential(store.secrets, cluster, Role.CLIENT, label, pins=pins, now=here.now)
    finally:
        store.close()
    return held, _addresses(held, here), url


def _from_keyring(wanted: Wanted, here: Environment) -> _Found:
    saved = find_login(here.contexts, _in_cluster(wanted, here))
    held = load_login(saved, here.keyring, here.now)
    by_file = saved.context.store == LOGIN_FILE  # whose store cannot be read from here
    return held, saved.context.schedulers, None if by_file else settings.parse_store_url(saved.context.store)


def _in_cluster(wanted: Wanted, here: Environment) -> Wanted:
    """DASKPKI_CLUSTER narrows the choice of a login; without it every cluster counts."""
    return wanted._replace(cluster=wanted.cluster or here.environ.get("DASKPKI_CLUSTER") or None)


_SOURCES: dict[CredentialSource, Callable[[Wanted, Environment], _Found]] = {
    CredentialSource.HANDOVER: _from_handover,
    CredentialSource.DIRECTORY: _from_directory,
    CredentialSource.FILE: _from_file,
    CredentialSource.STORE: _from_store,
    CredentialSource.KEYRING: _from_keyring,
}

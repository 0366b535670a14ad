"""Gets and verifies the credential from the selected source; tells why that was selected, its end and its renewal.

After a failure no other source is tried.

A store gives the payload of a credential's secret and the newest trust document. Both count only if they fit what this
user's commands have seen of the cluster, unless a CA is pinned.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from daskpki import secret_names, settings
from daskpki.confidential import Confidential, KeyringPort
from daskpki.credentials.contexts import LOGIN_FILE, Context, Contexts, NewestTrust, parse_scheduler
from daskpki.credentials.credential_files import load_directory, load_file
from daskpki.credentials.os_keyring import OSKeyring
from daskpki.credentials.saved_logins import find_login, load_login, logins_that_list
from daskpki.credentials.source_selection import DIRECTORY, FILE, Choice, CredentialSource, Wanted, choose
from daskpki.credentials.verified import Pins, VerifiedCredential, verify_credential
from daskpki.errors import NotFoundError, UsageError
from daskpki.handover import VARIABLE as HANDOVER
from daskpki.handover import load_handover, read_handed_down
from daskpki.identity import Role, parse_label
from daskpki.pki.certificates import certificate_identity, lifetime, load_certificate, utc_time
from daskpki.pki.credential import Credential, parse_own_credential
from daskpki.pki.keys import parse_key, serialize_key
from daskpki.pki.pem import parse_certificates
from daskpki.pki.profile import is_near_end
from daskpki.pki.trust_document import TrustDocument, TrustPayload, parse_trust
from daskpki.quoting import shortened
from daskpki.store.append_chain import ChainHead, trust_chain, verify_no_rival
from daskpki.store.port import Store


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
        """The newest trust document seen by this user's programs since a login or export."""
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

    verified: VerifiedCredential
    choice: Choice
    schedulers: tuple[str, ...]
    store: settings.StoreUrl | None = None

    def scheduler(self, address: str | None, hint: str) -> str:
        """Return that address, or the first known one; UsageError with the hint if there is none."""
        target = address or next(iter(self.schedulers), None)
        if target is None:
            cluster = self.verified.credential.cluster
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
    """True if Dask's own TLS files, where configured, take precedence, since no credential fits `wanted.address`."""
    if choose(wanted, here.environ).source is not CredentialSource.KEYRING:
        return False
    return not logins_that_list(here.contexts, _in_cluster(wanted, here))


def obtain(wanted: Wanted, here: Environment) -> Obtained:
    """Get the credential of the selected source; NotFoundError, NotTrustedError, AccessDeniedError, UsageError."""
    choice = choose(wanted, here.environ)
    verified, schedulers, store = _SOURCES[choice.source](wanted, here)
    _check_asked_for(verified, wanted, choice)
    return Obtained(verified, choice, schedulers, store)


def fetch_credential(
    store: Store, cluster: str, role: Role, name: str, *, pins: Pins, now: datetime
) -> VerifiedCredential:
    """Read and verify one credential by `access` only; NotFoundError names the command that issues it."""
    trust = fetch_trust(store, cluster, pins=pins, now=now)
    try:
        payload = store.secrets.latest(secret_names.credential_id(cluster, role, name)).data
    except NotFoundError as error:
        ours = settings.program(cluster)
        raise NotFoundError(
            f"cluster {cluster!r} has no credential {role.value}/{name}: {error}",
            hint=f"{ours} issue {role.value} --name {name}; {ours} list shows which names there are",
        ) from None
    credential = parse_own_credential(payload, cluster, role, name)
    return verify_credential(credential, trust.data, pins=pins.remembering(store.memory.trust(cluster)), now=now)


def fetch_trust(store: Store, cluster: str, *, pins: Pins, now: datetime) -> TrustPayload:
    """The newest trust document that the pins accept; NotFoundError names the command that makes one.

    NotTrustedError, CorruptError if no version is accepted. NotTrustedError also if two CAs claim the cluster, and
    neither a pin nor an earlier document decides between them.
    """
    pins = pins.remembering(store.memory.trust(cluster))

    def counts(found: ChainHead[TrustPayload]) -> bool:
        pins.verify_trust(found.payload.signed, cluster, now)
        return True

    chain = trust_chain(store.secrets, cluster, counts)
    head = chain.head()
    if head is None and chain.foreign:
        payload = store.secrets.access(secret_names.trust_id(cluster), max(chain.foreign))
        return TrustPayload(payload, parse_trust(payload))  # verifying it names the fault
    if head is None:
        hint = f"{settings.program(cluster)} init-ca makes one"
        raise NotFoundError(f"this store has no cluster {cluster!r}", hint=hint)
    if not (pins.sha256 or pins.anchors or pins.known or pins.previous):
        verify_no_rival(chain, head)
    return head.payload


class Ending(NamedTuple):
    """The end of a credential: that of its certificate or of its revocation list, as `what` says.

    `is_near` is true once two thirds of the life are past. After the list's end, later revocations are unknown.
    """

    at: datetime
    what: str
    is_near: bool


def ending(leaf: bytes, trust: TrustDocument, now: datetime) -> Ending:
    """The earlier end of a certificate (DER) and of the revocation lists of its trust document."""
    spans = [(*lifetime(load_certificate(leaf)), "its certificate")]
    spans += [(part.this_update, part.next_update, "its revocation list") for part in trust.crls]
    begin, end, what = min(spans, key=lambda span: span[1])
    return Ending(utc_time(end), what, is_near_end(begin, end, now.timestamp()))


def renewal(obtained: Obtained, wanted: Wanted, here: Environment) -> str:
    """The command that renews the credential, by its source."""
    source, name = obtained.choice.source, obtained.verified.credential.identity.name
    if source is CredentialSource.KEYRING:
        saved = find_login(here.contexts, _in_cluster(wanted, here))
        return renewal_of_login(saved.context, is_active=saved == here.contexts.active())
    if source is CredentialSource.STORE:
        return f"daskpki renew client/{name}"
    return f"daskpki renew client/{name}, then daskpki export client/{name} --out DIR --force"


def renewal_of_login(context: Context, *, is_active: bool) -> str:
    """The command that renews a login, or the three steps for one that came by a login file."""
    name, ours = context.name, settings.program(context.cluster)
    if context.store == LOGIN_FILE:
        return (
            f"{ours} request client/{name} --out {name}.csr --force; an operator runs "
            f"{ours} sign {name}.csr client/{name} --out {name}.login --force; then "
            f"daskpki login {name}.login"
        )
    return "daskpki login" if is_active else f"{ours} --store {shlex.quote(context.store)} login {name}"


def _check_asked_for(verified: VerifiedCredential, wanted: Wanted, choice: Choice) -> None:
    """Raise UsageError if the source has another credential; the next source is never tried instead."""
    credential = verified.credential
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
    certificate, key, ca, trust = (
        f"the {what} handed down by daskpki-entrypoint" for what in ("certificate", "key", "CAs", "trust document")
    )
    leaf, *chain = parse_certificates(read_handed_down(handover.cert, certificate), certificate)
    private_key = serialize_key(parse_key(Confidential(read_handed_down(handover.key, key)), key))
    identity = certificate_identity(load_certificate(leaf, certificate))
    credential = Credential(handover.cluster, identity, private_key, leaf, tuple(chain))
    pins = here.pins._replace(anchors=tuple(parse_certificates(read_handed_down(handover.ca, ca), ca)))
    signed = Confidential(read_handed_down(handover.trust, trust))
    verified = verify_credential(credential, signed, pins=pins, now=here.now)
    return verified, (handover.scheduler,) if handover.scheduler else verified.trust.schedulers, None


def _from_directory(_wanted: Wanted, here: Environment) -> _Found:
    credential, anchors, trust = load_directory(Path(here.environ[DIRECTORY]))
    verified = verify_credential(credential, trust.data, pins=here.pins._replace(anchors=anchors), now=here.now)
    return verified, _addresses(verified, here), None


def _from_file(wanted: Wanted, here: Environment) -> _Found:
    """The trust document lies beside the file, or comes from the store, by the workload's own identity."""
    credential, trust = load_file(Path(here.environ[FILE]), settings.cluster_name(here.environ, wanted.cluster))
    if trust is None:
        with closing(here.open_store(settings.store_url(here.environ, wanted.store))) as store:
            trust = fetch_trust(store, credential.cluster, pins=here.pins, now=here.now)
    verified = verify_credential(credential, trust.data, pins=here.pins, now=here.now)
    return verified, _addresses(verified, here), None


def _addresses(verified: VerifiedCredential, here: Environment) -> tuple[str, ...]:
    chosen = here.environ.get("DASKPKI_SCHEDULER")
    return (parse_scheduler(chosen),) if chosen else verified.trust.schedulers


def _from_store(wanted: Wanted, here: Environment) -> _Found:
    name = wanted.name or here.environ.get("DASKPKI_NAME")
    if not name:
        raise UsageError("a credential from the store needs a name", hint="set DASKPKI_NAME, or security(NAME)")
    cluster = settings.cluster_name(here.environ, wanted.cluster)
    url = settings.store_url(here.environ, wanted.store)
    with closing(here.open_store(url)) as store:
        label = parse_label(name, "name")
        verified = fetch_credential(store, cluster, Role.CLIENT, label, pins=here.pins, now=here.now)
    return verified, _addresses(verified, here), url


def _from_keyring(wanted: Wanted, here: Environment) -> _Found:
    saved = find_login(here.contexts, _in_cluster(wanted, here))
    verified = load_login(saved, here.keyring, here.now)
    by_file = saved.context.store == LOGIN_FILE  # whose store cannot be read from here
    return verified, saved.context.schedulers, None if by_file else settings.parse_store_url(saved.context.store)


def _in_cluster(wanted: Wanted, here: Environment) -> Wanted:
    """Restrict the choice of a login to DASKPKI_CLUSTER, if that is set."""
    return wanted._replace(cluster=wanted.cluster or here.environ.get("DASKPKI_CLUSTER") or None)


_SOURCES: dict[CredentialSource, Callable[[Wanted, Environment], _Found]] = {
    CredentialSource.HANDOVER: _from_handover,
    CredentialSource.DIRECTORY: _from_directory,
    CredentialSource.FILE: _from_file,
    CredentialSource.STORE: _from_store,
    CredentialSource.KEYRING: _from_keyring,
}

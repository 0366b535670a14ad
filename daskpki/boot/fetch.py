"""Fetches what a boot needs, by `access` only: its own credential, the newest trust document, and mounted secrets.

The source is Secret Manager, a credential directory, or a local store; never two.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from daskpki import secret_names
from daskpki.boot.http import Reading, RetryPolicy
from daskpki.boot.mounts import Mount
from daskpki.boot.settings import INSTANCE, Settings
from daskpki.confidential import Confidential
from daskpki.errors import CorruptError, DisabledError, NotFoundError, NotTrustedError, UsageError
from daskpki.identity import Role, parse_label
from daskpki.pki.credential import Credential, parse_credential
from daskpki.pki.trust_document import SignedTrustDocument, parse_trust
from daskpki.settings import GsmUrl, LocalUrl, PluginUrl, StoreUrl
from daskpki.store.append_chain import Head, Link, best, first_after

if TYPE_CHECKING:
    from daskpki.boot.google import SecretManager

MOST_FOREIGN: Final = 4096
"""Versions that do not count, behind which a document is still looked for: each costs a request."""
_RESTORE: Final = "enable that version; if it is destroyed, add the last good version's payload once more"


class Reader(Protocol):
    """The part of a SecretStore that a node is allowed to use."""

    def latest(self, secret: str) -> tuple[int, Confidential]:
        """See daskpki.store.port.SecretStore."""
        ...

    def access(self, secret: str, number: int) -> Confidential:
        """See daskpki.store.port.SecretStore."""
        ...


class FetchedTrust(NamedTuple):
    """A trust document as it was stored, and what it says, not verified."""

    data: Confidential
    signed: SignedTrustDocument


class Material(NamedTuple):
    """Everything for a boot, parsed and not verified yet.

    `anchors` (DER) are CAs known beforehand, from a credential directory. `secrets` are the cluster's other secrets,
    with where each is to be mounted.
    """

    credentials: tuple[Credential, ...]
    trust: FetchedTrust
    anchors: tuple[bytes, ...] = ()
    secrets: tuple[tuple[Mount, Confidential], ...] = ()


def read_material(
    store: Reader,
    cluster: str,
    wanted: Sequence[tuple[Role, str]],
    pinned: Mapping[Role, int],
    mounts: Sequence[Mount] = (),
) -> Material:
    """The credentials of these roles and names, the trust document, and these secrets; raises what the store raises.

    `pinned` are the versions to read of some of the credentials; of the others, the newest is read.
    """
    credentials = tuple(read_credential(store, cluster, role, name, pinned.get(role)) for role, name in wanted)
    trust = newest_trust(store, cluster, partial(_leads_to, credentials))
    secrets = tuple((mount, read_secret(store, cluster, mount)) for mount in mounts)
    return Material(credentials, trust, secrets=secrets)


def read_secret(store: Reader, cluster: str, mount: Mount) -> Confidential:
    """One of the cluster's other secrets, as raw bytes; NotFoundError names the command that sets it."""
    secret = secret_names.user_secret_id(cluster, mount.name)
    try:
        return store.latest(secret)[1] if mount.version is None else store.access(secret, mount.version)
    except NotFoundError as error:
        command = f"daskpki --cluster {cluster} secret set {mount.name}"
        raise NotFoundError(f"cluster {cluster} has no secret {mount.name}: {error}", hint=command) from None
    except DisabledError as error:
        hint = f"daskpki --cluster {cluster} secret rollback {mount.name}, or --secret {mount.name}@N for version N"
        raise NotTrustedError(str(error), hint=hint) from None


def read_credential(store: Reader, cluster: str, role: Role, name: str, version: int | None = None) -> Credential:
    """The newest credential, or that version; NotFoundError with the way out, CorruptError when it is another's."""
    secret = secret_names.credential_id(cluster, role, name)
    try:
        payload = store.latest(secret)[1] if version is None else store.access(secret, version)
    except NotFoundError as error:
        what = f"credential {role.value}/{name}" + (f" in version {version}" if version else "")
        command = f"daskpki --cluster {cluster} issue {role.value} --name {name}"
        hint = "leave --version out to boot the newest" if version else command
        raise NotFoundError(f"cluster {cluster} has no {what}: {error}", hint=hint) from None
    except DisabledError as error:
        raise NotTrustedError(str(error), hint=f"{error.hint}; --version N boots version N") from error
    return parse_own_credential(payload, cluster, role, name)


def parse_own_credential(payload: Confidential, cluster: str, role: Role, name: str) -> Credential:
    """The credential in the payload of its secret; CorruptError when it is another's."""
    credential = parse_credential(payload)
    if (credential.cluster, credential.identity.role, credential.identity.name) != (cluster, role, name):
        raise CorruptError(f"the secret of {role.value}/{name} of cluster {cluster} holds {credential.identity.uri}")
    return credential


Counts = Callable[[SignedTrustDocument], None]
"""Raises NotTrustedError for a trust document that does not count."""


def check_signed(signed: SignedTrustDocument) -> None:
    """Raise NotTrustedError unless the document's own active CA signed it; all else is judged later."""
    from daskpki.pki.trust import check_own_signature

    check_own_signature(signed)


def _leads_to(credentials: Sequence[Credential], signed: SignedTrustDocument) -> None:
    """Raise NotTrustedError for a document that the credentials do not lead to: then it is not this node's CA."""
    check_signed(signed)
    from daskpki.pki.verify import is_issued_by

    issuing = [anchor.issuing for anchor in signed.document.authorities]
    for credential in credentials:
        if not any(is_issued_by(credential.leaf, der) for der in issuing):
            raise NotTrustedError("the trust document is of CAs that did not issue this node's certificate")


def newest_trust(store: Reader, cluster: str, counts: Counts = check_signed) -> FetchedTrust:
    """The newest trust document that counts (rules: `daskpki.store.append_chain`); usually one read and one 404.

    A version that does not count stops nobody: it is named in the log, and passed over, downwards by number. Where none
    counts, the newest that can be read at all is returned, and its verification says what is wrong.
    """
    secret = secret_names.trust_id(cluster)
    try:
        newest, data = _latest(store, secret)
    except NotFoundError:
        raise NotFoundError(
            f"cluster {cluster} has no trust document ({secret})", hint=f"daskpki --cluster {cluster} init-ca"
        ) from None
    hint, foreign = _counted(store, secret, newest, data, counts)
    later = _later(store, secret, first_after(hint), newest, counts)
    head = best([hint, *later])
    assert head is not None  # a trust document's epoch is at least 1, so none is a rider
    if foreign:
        what = "%s: versions %s do not count; find out who added them, and remove each: gcloud secrets versions destroy"
        logging.getLogger("distributed.daskpki").warning(what, secret, f"{foreign[-1]} to {foreign[0]}")
    return head.payload


def _counted(
    store: Reader, secret: str, newest: int, data: Confidential, counts: Counts
) -> tuple[Head[FetchedTrust], list[int]]:
    """The first version from `newest` down that counts, and the numbers above it that do not."""
    foreign: list[int] = []
    refusal: CorruptError | NotTrustedError | None = None
    for number in range(newest, max(0, newest - MOST_FOREIGN), -1):
        try:
            head = _head(number, data if number == newest else store.access(secret, number))
            counts(head.payload.signed)
        except DisabledError:  # a loser, or what a later winner destroyed
            continue
        except (CorruptError, NotTrustedError) as error:
            refusal = refusal or error
            foreign.append(number)
        else:
            return head, foreign
    with contextlib.suppress(CorruptError, NotTrustedError):
        return _head(newest, data), []
    assert refusal is not None, "the newest was read"
    raise refusal


def _latest(store: Reader, secret: str) -> tuple[int, Confidential]:
    """`latest`, which is the newest version in any state: one that was disabled must not be passed over silently."""
    try:
        return store.latest(secret)
    except DisabledError as error:
        raise NotTrustedError(str(error), hint=_RESTORE) from error


def _later(store: Reader, secret: str, first: int, newest: int, counts: Counts) -> Iterator[Head[FetchedTrust]]:
    """The versions that may count more than the one found: rivals from `first` on, and whatever came after `newest`."""
    for number in range(first, newest):
        with contextlib.suppress(DisabledError, CorruptError, NotTrustedError):  # destroyed, or foreign
            head = _head(number, store.access(secret, number))
            counts(head.payload.signed)
            yield head
    unreadable: DisabledError | None = None
    for number in itertools.count(newest + 1):
        try:
            with contextlib.suppress(CorruptError, NotTrustedError):
                head = _head(number, store.access(secret, number))
                counts(head.payload.signed)
                yield head
            unreadable = None
        except DisabledError as error:
            unreadable = error
        except NotFoundError:
            break
    if unreadable is not None:  # what it said would be lost, and it may have been a revocation
        raise NotTrustedError(str(unreadable), hint=_RESTORE) from unreadable


def _head(number: int, data: Confidential) -> Head[FetchedTrust]:
    trust = FetchedTrust(data, parse_trust(data))
    document = trust.signed.document
    return Head(number, trust, Link(document.epoch, document.prev, document.operation))


class Fetched(NamedTuple):
    """The material, the settings with the name filled in, and what the other side's clock said (None: nobody's)."""

    material: Material
    settings: Settings
    date: Reading | None


def fetch(settings: Settings, environ: Mapping[str, str], patience: RetryPolicy) -> Fetched:
    """The material from the source that the settings name; raises whatever went wrong there."""
    if settings.directory is not None:
        return Fetched(_from_directories(settings), settings, None)
    if settings.file is not None:
        return _from_file(settings, settings.file, environ, patience)
    settings = _with_instance_name(settings, environ, patience)
    if isinstance(settings.store, GsmUrl):
        return _from_secret_manager(settings, settings.store, environ, patience)
    assert settings.store is not None, "without a directory there is a store"
    return Fetched(_from_store(settings, settings.store, environ), settings, None)


def _with_instance_name(settings: Settings, environ: Mapping[str, str], patience: RetryPolicy) -> Settings:
    if settings.name != INSTANCE:
        return settings
    from daskpki.boot.google import Metadata

    return settings._replace(name=parse_label(Metadata(environ, patience).instance_name(), "name"))


def _from_secret_manager(settings: Settings, url: GsmUrl, environ: Mapping[str, str], patience: RetryPolicy) -> Fetched:
    store = open_secret_manager(url, settings.endpoint, environ, patience)
    material = read_material(store, settings.cluster, settings.wanted, settings.versions, settings.mounts)
    return Fetched(material, settings, store.date)


def open_secret_manager(
    url: GsmUrl, chosen: str | None, environ: Mapping[str, str], patience: RetryPolicy
) -> SecretManager:
    """Secret Manager as this machine reads it; `chosen` is another endpoint than Google's (UsageError for gRPC)."""
    from daskpki.boot.google import SecretManager, token_source
    from daskpki.boot.http import Connection, parse_target, proxy_for, system_trust
    from daskpki.store.gsm.endpoint import GRPC, VARIABLE, endpoint_for

    endpoint = endpoint_for(url, {VARIABLE: chosen} if chosen else {})
    if chosen and endpoint.transport == GRPC:
        raise UsageError(f"the entrypoint speaks REST, and {chosen} is gRPC", hint="http://HOST:PORT")
    target = parse_target(endpoint.address, encrypted=endpoint.encrypted)
    if endpoint.encrypted:
        target = target._replace(proxy=proxy_for(target.host, environ))
    tokens = token_source(environ, patience)
    return SecretManager(url, Connection(target, system_trust), patience, token=tokens.token, account=tokens.account)


def _from_store(settings: Settings, url: LocalUrl | PluginUrl, environ: Mapping[str, str]) -> Material:
    from daskpki.store.opening import open_store

    store = open_store(url, environ=environ)
    try:
        reader: Reader = store.secrets
        return read_material(reader, settings.cluster, settings.wanted, settings.versions, settings.mounts)
    finally:
        store.close()


def _from_file(settings: Settings, file: str, environ: Mapping[str, str], patience: RetryPolicy) -> Fetched:
    """The file's credential; the trust document beside it, else the store's."""
    from pathlib import Path

    from daskpki.credentials.one_file import load_file
    from daskpki.pki.trust_document import parse_trust

    found = load_file(Path(file))
    date = None
    if found.trust is not None:
        trust = FetchedTrust(found.trust, parse_trust(found.trust))
    elif settings.store is None:
        raise NotFoundError(
            "no trust.json lies beside the credential file, and no store is named that has a trust document",
            hint="mount the secret of the trust document there, or set DASKPKI_STORE",
        )
    else:
        cluster = found.payload.cluster if found.payload else settings.cluster
        trust, date = _fetch_trust(settings.store, settings.endpoint, cluster, environ, patience)
    credential = found.credential(trust.signed.document, datetime.now(UTC))
    return Fetched(Material((credential,), trust), settings, date)


def _fetch_trust(
    url: StoreUrl, endpoint: str | None, cluster: str, environ: Mapping[str, str], patience: RetryPolicy
) -> tuple[FetchedTrust, Reading | None]:
    if isinstance(url, GsmUrl):
        store = open_secret_manager(url, endpoint, environ, patience)
        return newest_trust(store, cluster), store.date
    from daskpki.store.opening import open_store

    with closing(open_store(url, environ=environ)) as local:
        return newest_trust(local.secrets, cluster), None


def _from_directories(settings: Settings) -> Material:
    first, *others = (
        read_directory(directory) for directory in map(settings.directory_for, settings.roles) if directory
    )
    credentials = [credential for material in (first, *others) for credential in material.credentials]
    return first._replace(credentials=tuple(credentials))


def read_directory(directory: str) -> Material:
    """What `daskpki export` wrote there; raises what `daskpki.credentials.directory` does, CorruptError."""
    from pathlib import Path

    from daskpki.credentials.directory import CERTIFICATE_FILE, KEY_FILE, in_directory, load_directory, parse_leaf
    from daskpki.credentials.verified import issuing_generation
    from daskpki.pki.keys import parse_key, serialize_key
    from daskpki.pki.trust_document import parse_trust

    found = load_directory(Path(directory))
    signed = parse_trust(found.trust)
    now = datetime.now(UTC)
    credential = Credential(
        cluster=signed.document.cluster,
        identity=parse_leaf(found.leaf, in_directory(CERTIFICATE_FILE)),
        generation=issuing_generation(found.leaf, found.chain, signed.document, now),
        key=Confidential(serialize_key(parse_key(found.key, in_directory(KEY_FILE))).reveal()),
        leaf=found.leaf,
        chain=found.chain,
    )
    return Material((credential,), FetchedTrust(found.trust, signed), found.anchors)

"""Fetches what a boot needs, by `access` only: its own credential, the newest trust document, and mounted secrets.

The source is Secret Manager, a credential directory, or a local store; never two.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.errors import CorruptError, DisabledError, NotFoundError, NotTrustedError, UsageError
from daskpki.identity import Role, parse_label
from daskpki.pki.credential import Credential, parse_credential
from daskpki.pki.trust_document import SignedTrustDocument, parse_trust
from daskpki.settings import GsmUrl, StoreUrl

if TYPE_CHECKING:  # a running node imports this module, too, and needs none of these
    from daskpki.boot.google import SecretManager
    from daskpki.boot.http import Reading, RetryPolicy
    from daskpki.boot.mounts import Mount
    from daskpki.boot.settings import Settings
    from daskpki.store.append_chain import ChainHead

MOST_FOREIGN: Final = 4096
"""Invalid versions above a valid document, at most: each costs a request."""
_A_PERSONS: Final = "unset DASKPKI_CREDENTIAL_DIR in this shell if it is a person's, for Client"
_RESTORE: Final = "enable that version; if it is destroyed, add the last good version's payload once more"


class Reader(Protocol):
    """The part of a SecretStore (`daskpki.store.port`) that a node is allowed to use."""

    def latest(self, secret: str) -> tuple[int, Confidential]:
        """Read number and payload of the newest version."""

    def access(self, secret: str, number: int) -> Confidential:
        """Read the payload of one version."""


class FetchedTrust(NamedTuple):
    """A trust document as it was stored, and parsed; not verified."""

    data: Confidential
    signed: SignedTrustDocument


class Material(NamedTuple):
    """Everything for a boot, parsed and not verified yet.

    `anchors` (DER) are CAs known beforehand, from a credential directory. `secrets` are user secrets and their mounts.
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
    """Read the credentials of these roles and names, the trust document, and secrets; raises what the store raises.

    `pinned` are the versions of some credentials; the newest of the others is read.
    """
    credentials = tuple(read_credential(store, cluster, role, name, pinned.get(role)) for role, name in wanted)
    trust = newest_trust(store, cluster, partial(_leads_to, credentials))
    secrets = tuple((mount, read_secret(store, cluster, mount)) for mount in mounts)
    return Material(credentials, trust, secrets=secrets)


def read_secret(store: Reader, cluster: str, mount: Mount) -> Confidential:
    """Read a user secret as raw bytes; NotFoundError names the command that sets it."""
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
    """Read the newest credential, or that version; NotFoundError with the way out, CorruptError for another's."""
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
    """Parse the payload of a credential's secret; CorruptError if it is of another identity."""
    credential = parse_credential(payload)
    if (credential.cluster, credential.identity.role, credential.identity.name) != (cluster, role, name):
        raise CorruptError(f"the secret of {role.value}/{name} of cluster {cluster} holds {credential.identity.uri}")
    return credential


Counts = Callable[[SignedTrustDocument], None]
"""Raises NotTrustedError for a trust document that is not to be considered."""


def check_signed(signed: SignedTrustDocument) -> None:
    """Raise NotTrustedError unless the document's own active CA signed it; all else is judged later."""
    from daskpki.pki.trust import check_own_signature

    check_own_signature(signed)


def _leads_to(credentials: Sequence[Credential], signed: SignedTrustDocument) -> None:
    """Raise NotTrustedError for a document whose CAs did not issue the credentials."""
    check_signed(signed)
    from daskpki.pki.verify import is_issued_by

    issuing = [anchor.issuing for anchor in signed.document.authorities]
    for credential in credentials:
        if not any(is_issued_by(credential.leaf, der) for der in issuing):
            raise NotTrustedError("the trust document is of CAs that did not issue this node's certificate")


def newest_trust(store: Reader, cluster: str, counts: Counts = check_signed) -> FetchedTrust:
    """Find the newest valid trust document (rules: `daskpki.store.append_chain`); usually one read and one 404.

    An invalid version blocks nobody: it is logged and skipped, downwards by number. If none is valid, the newest
    readable one is returned, and its verification says what is wrong.
    """
    from daskpki.store.append_chain import best, first_after

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
) -> tuple[ChainHead[FetchedTrust], list[int]]:
    """Find the first valid version from `newest` down, and the numbers of the invalid ones above it."""
    foreign: list[int] = []
    refusal: CorruptError | NotTrustedError | None = None
    for number in range(newest, max(0, newest - MOST_FOREIGN), -1):
        try:
            head = _head(number, data if number == newest else store.access(secret, number))
            counts(head.payload.signed)
        except DisabledError:  # a losing version, or one that a later winner destroyed
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
    """Read `latest`, the newest version in any state: a disabled one must not be skipped silently."""
    try:
        return store.latest(secret)
    except DisabledError as error:
        raise NotTrustedError(str(error), hint=_RESTORE) from error


def _later(store: Reader, secret: str, first: int, newest: int, counts: Counts) -> Iterator[ChainHead[FetchedTrust]]:
    """Yield the versions that may outrank the one found: rivals from `first` on, and all after `newest`."""
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
    if unreadable is not None:  # it may have been a revocation
        raise NotTrustedError(str(unreadable), hint=_RESTORE) from unreadable


def _head(number: int, data: Confidential) -> ChainHead[FetchedTrust]:
    from daskpki.store.append_chain import ChainHead, Link

    trust = FetchedTrust(data, parse_trust(data))
    document = trust.signed.document
    return ChainHead(number, trust, Link(document.epoch, document.prev, document.operation))


class Fetched(NamedTuple):
    """The material, the settings with the name filled in, and the reading of the server's clock, if there is one."""

    material: Material
    settings: Settings
    date: Reading | None


def fetch(settings: Settings, environ: Mapping[str, str], policy: RetryPolicy) -> Fetched:
    """Fetch the material from the source that the settings name; raises the source's errors."""
    if settings.directory is not None:
        try:
            first, *others = (
                read_directory(directory) for directory in map(settings.directory_for, settings.roles) if directory
            )
        except NotFoundError as error:
            if len(settings.roles) == 1:
                raise
            raise NotFoundError(f"{error}: a node takes `scheduler` and `worker` below it", hint=_A_PERSONS) from error
        credentials = [credential for material in (first, *others) for credential in material.credentials]
        return Fetched(first._replace(credentials=tuple(credentials)), settings, None)
    if settings.file is not None:
        return _from_file(settings, settings.file, environ, policy)
    from daskpki.boot.settings import INSTANCE

    if settings.name == INSTANCE:
        from daskpki.boot.google import Metadata

        settings = settings._replace(name=parse_label(Metadata(environ, policy).instance_name(), "name"))
    assert settings.store is not None, "without a directory there is a store"
    with open_reader(settings.store, settings.endpoint, environ, policy) as reader:
        material = read_material(reader, settings.cluster, settings.wanted, settings.versions, settings.mounts)
        return Fetched(material, settings, getattr(reader, "date", None))


@contextlib.contextmanager
def open_reader(
    url: StoreUrl, endpoint: str | None, environ: Mapping[str, str], policy: RetryPolicy
) -> Iterator[Reader]:
    """Open a store for reading; `endpoint` is another Secret Manager than Google's.

    The Reader of Secret Manager has the last reading of the server's clock in `date`.
    """
    if isinstance(url, GsmUrl):
        yield _open_secret_manager(url, endpoint, environ, policy)
        return
    from daskpki.store.opening import open_store

    with contextlib.closing(open_store(url, environ=environ)) as store:
        yield store.secrets


def _open_secret_manager(
    url: GsmUrl, chosen: str | None, environ: Mapping[str, str], policy: RetryPolicy
) -> SecretManager:
    from daskpki.boot.google import SecretManager, token_source
    from daskpki.boot.http import Connection, parse_target, proxy_for, system_trust
    from daskpki.store.gsm.endpoint import GRPC, VARIABLE, endpoint_for

    endpoint = endpoint_for(url, {VARIABLE: chosen} if chosen else {})
    if chosen and endpoint.transport == GRPC:
        raise UsageError(f"the entrypoint speaks REST, and {chosen} is gRPC", hint="http://HOST:PORT")
    target = parse_target(endpoint.address, encrypted=endpoint.encrypted)
    if endpoint.encrypted:
        target = target._replace(proxy=proxy_for(target.host, environ))
    tokens = token_source(environ, policy)
    return SecretManager(url, Connection(target, system_trust), policy, token=tokens.token, account=tokens.account)


def _from_file(settings: Settings, file: str, environ: Mapping[str, str], policy: RetryPolicy) -> Fetched:
    """Load the file's credential, and the trust document beside it, else the store's."""
    from pathlib import Path

    from daskpki.credentials.credential_files import load_file

    files, signed = load_file(Path(file))
    date = None
    if signed is not None:
        trust = FetchedTrust(signed, parse_trust(signed))
    elif settings.store is None:
        raise NotFoundError(
            "no trust.json lies beside the credential file, and no store is named that has a trust document",
            hint="mount the secret of the trust document there, or set DASKPKI_STORE",
        )
    else:
        cluster = files.payload.cluster if files.payload else settings.cluster
        with open_reader(settings.store, settings.endpoint, environ, policy) as reader:
            trust, date = newest_trust(reader, cluster), getattr(reader, "date", None)
    credential = files.credential(trust.signed.document, datetime.now(UTC))
    return Fetched(Material((credential,), trust), settings, date)


def read_directory(directory: str) -> Material:
    """Load a directory that `daskpki export` wrote; raises the errors of `daskpki.credentials.credential_files`."""
    from pathlib import Path

    from daskpki.credentials.credential_files import load_directory

    files, signed = load_directory(Path(directory))
    trust = FetchedTrust(signed, parse_trust(signed))
    return Material((files.credential(trust.signed.document, datetime.now(UTC)),), trust, files.anchors)

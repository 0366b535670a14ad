"""Fetches what a boot needs, by `access` only: its own credential, the newest trust document, and mounted secrets.

The source is a store, a credential directory, or a credential file. Only a file without trust.json beside it also needs
a store, for the trust document.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, cast

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.errors import DisabledError, NotFoundError, NotTrustedError, UsageError
from daskpki.identity import Role, parse_label
from daskpki.pki.credential import Credential, parse_own_credential
from daskpki.pki.trust_document import TrustPayload, parse_trust
from daskpki.settings import ENDPOINT, GRPC, GsmUrl, StoreUrl, endpoint_for

if TYPE_CHECKING:  # a running node imports this module, too, and needs none of these
    from daskpki.boot.google import SecretManager
    from daskpki.boot.http import Reading, RetryPolicy
    from daskpki.boot.mounts import Mount
    from daskpki.boot.settings import Settings
    from daskpki.store.append_chain import ChainHead
    from daskpki.store.port import SecretStore

_UNSET: Final = "if you set DASKPKI_CREDENTIAL_DIR for your own Client, unset it in this shell"
_RESTORE: Final = "enable that version; if it is destroyed, add the last good version's payload once more"


class Reader(Protocol):
    """The part of a SecretStore (`daskpki.store.port`) that a node is allowed to use."""

    def latest(self, secret: str) -> tuple[int, Confidential]:
        """Read number and payload of the newest version."""

    def access(self, secret: str, number: int) -> Confidential:
        """Read the payload of one version."""


class Material(NamedTuple):
    """Everything that a boot needs, parsed and not verified yet.

    `anchors` (DER) are CAs known beforehand, from a credential directory. `secrets` are user secrets and their mounts.
    `date` is a reading of the server's clock, if the source has one.
    """

    credentials: tuple[Credential, ...]
    trust: TrustPayload
    anchors: tuple[bytes, ...] = ()
    secrets: tuple[tuple[Mount, Confidential], ...] = ()
    date: Reading | None = None


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
    """Read the newest credential, or one version; NotFoundError with the remedy, CorruptError for another identity."""
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


class _ReadOnce(NamedTuple):
    """A Reader for an append chain that repeats an earlier result of `latest`, so that it is read only once."""

    newest: tuple[int, Confidential]
    access: Callable[[str, int], Confidential]

    def latest(self, _secret: str) -> tuple[int, Confidential]:
        return self.newest


def newest_trust(store: Reader, cluster: str, credentials: Sequence[Credential] = ()) -> TrustPayload:
    """Find the newest valid trust document (rules: `daskpki.store.append_chain`); usually one read and one 404.

    A document is valid if its own active CA signed it and its CAs issued `credentials`; all else is verified later. An
    invalid version blocks nobody: it is logged and skipped. If none is valid, the newest one is returned, since the
    later verification names its fault.
    """
    from daskpki.pki.trust import check_own_signature
    from daskpki.pki.verify import is_issued_by
    from daskpki.store.append_chain import trust_chain

    def counts(found: ChainHead[TrustPayload]) -> bool:
        check_own_signature(found.payload.signed)
        issuing = [anchor.issuing for anchor in found.payload.signed.document.authorities]
        for credential in credentials:
            if not any(is_issued_by(credential.leaf, der) for der in issuing):
                raise NotTrustedError("no CA in the trust document issued this node's certificate")
        return True

    secret = secret_names.trust_id(cluster)
    try:
        newest = store.latest(secret)
        head = trust_chain(cast("SecretStore", _ReadOnce(newest, store.access)), cluster, counts).head()
    except NotFoundError:
        raise NotFoundError(
            f"cluster {cluster} has no trust document ({secret})", hint=f"daskpki --cluster {cluster} init-ca"
        ) from None
    except DisabledError as error:  # it may be a revocation, so it must not be skipped silently
        raise NotTrustedError(str(error), hint=_RESTORE) from error
    return head.payload if head is not None else TrustPayload(newest[1], parse_trust(newest[1]))


def later_versions(store: Reader, secret: str, newest: int) -> Iterator[tuple[int, Confidential]]:
    """Yield number and payload of each readable version after `newest`.

    DisabledError if the last one is unreadable: it may be a revocation, so it must not be skipped silently.
    """
    unreadable: DisabledError | None = None
    for number in itertools.count(newest + 1):
        try:
            payload = store.access(secret, number)
        except DisabledError as error:
            unreadable = error
        except NotFoundError:
            break
        else:
            unreadable = None
            yield number, payload
    if unreadable is not None:
        raise unreadable


def fetch(settings: Settings, environ: Mapping[str, str], policy: RetryPolicy) -> tuple[Settings, Material]:
    """Fetch the material from the source that the settings name; raises the source's errors.

    The returned settings have the VM's name in place of `@instance`.
    """
    if settings.directory is not None:
        try:
            first, *others = (
                read_directory(directory) for directory in map(settings.directory_for, settings.roles) if directory
            )
        except NotFoundError as error:
            if len(settings.roles) == 1:
                raise
            raise NotFoundError(f"{error}: a node needs subdirectories scheduler and worker", hint=_UNSET) from error
        credentials = tuple(credential for material in (first, *others) for credential in material.credentials)
        return settings, first._replace(credentials=credentials)
    if settings.file is not None:
        return settings, _fetch_from_file(settings, settings.file, environ, policy)
    from daskpki.boot.settings import INSTANCE

    if settings.name == INSTANCE:
        from daskpki.boot.google import Metadata

        settings = settings._replace(name=parse_label(Metadata(environ, policy).instance_name(), "name"))
    assert settings.store is not None, "without a directory there is a store"
    with open_reader(settings.store, settings.endpoint, environ, policy) as reader:
        cluster = settings.cluster
        credentials = tuple(
            read_credential(reader, cluster, role, name, settings.versions.get(role)) for role, name in settings.wanted
        )
        trust = newest_trust(reader, cluster, credentials)
        secrets = tuple((mount, read_secret(reader, cluster, mount)) for mount in settings.mounts)
        return settings, Material(credentials, trust, secrets=secrets, date=getattr(reader, "date", None))


@contextlib.contextmanager
def open_reader(
    url: StoreUrl, endpoint: str | None, environ: Mapping[str, str], policy: RetryPolicy
) -> Iterator[Reader]:
    """Open a store for reading; `endpoint` is the address of a Secret Manager other than Google's.

    For Secret Manager, the Reader's `date` is the last reading of the server's clock.
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
    from daskpki.boot.http import Connection

    endpoint = endpoint_for(url, {ENDPOINT: chosen} if chosen else {})
    if chosen and endpoint.transport == GRPC:
        raise UsageError(f"the entrypoint speaks REST, and {chosen} is gRPC", hint="http://HOST:PORT")
    connection = Connection(endpoint.address, encrypted=endpoint.encrypted, environ=environ)
    return SecretManager(url, connection, policy, token_source(environ, policy))


def _fetch_from_file(settings: Settings, file: str, environ: Mapping[str, str], policy: RetryPolicy) -> Material:
    """Load the file's credential, and the trust document beside it, else the store's."""
    from daskpki.credentials.credential_files import load_file

    credential, trust = load_file(Path(file), settings.cluster)
    if trust is not None:
        return Material((credential,), trust)
    if settings.store is None:
        raise NotFoundError(
            "no trust.json lies beside the credential file, and no store is named that has a trust document",
            hint="mount the secret of the trust document there, or set DASKPKI_STORE",
        )
    with open_reader(settings.store, settings.endpoint, environ, policy) as reader:
        trust = newest_trust(reader, credential.cluster)
        return Material((credential,), trust, date=getattr(reader, "date", None))


def read_directory(directory: str) -> Material:
    """Load a directory that `daskpki export` wrote; raises the errors of `daskpki.credentials.credential_files`."""
    from daskpki.credentials.credential_files import load_directory

    credential, anchors, trust = load_directory(Path(directory))
    return Material((credential,), trust, anchors)

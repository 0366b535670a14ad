"""Where the material comes from: Secret Manager, a credential directory, or a local store; never two."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from daskpki.boot.clock import Reading
from daskpki.boot.reading import Material, Reader, Trust, read_material
from daskpki.boot.retry import Patience
from daskpki.boot.settings import INSTANCE, Settings
from daskpki.confidential import Confidential
from daskpki.errors import UsageError
from daskpki.identity import parse_label
from daskpki.pki.credential import Credential
from daskpki.settings import GsmUrl, LocalUrl

if TYPE_CHECKING:
    from daskpki.boot.secret_manager import SecretManager


class Fetched(NamedTuple):
    """The material, the settings with the name filled in, and what the other side's clock said (None: nobody's)."""

    material: Material
    settings: Settings
    date: Reading | None


def fetch(settings: Settings, environ: Mapping[str, str], patience: Patience) -> Fetched:
    """The material from the source that the settings name; raises whatever went wrong there."""
    if settings.directory is not None:
        return Fetched(_from_directories(settings), settings, None)
    settings = _with_instance_name(settings, environ, patience)
    if isinstance(settings.store, GsmUrl):
        return _from_secret_manager(settings, settings.store, environ, patience)
    assert isinstance(settings.store, LocalUrl)
    return Fetched(_from_local(settings, settings.store, environ), settings, None)


def _with_instance_name(settings: Settings, environ: Mapping[str, str], patience: Patience) -> Settings:
    if settings.name != INSTANCE:
        return settings
    from daskpki.boot.metadata import Metadata

    return settings._replace(name=parse_label(Metadata(environ, patience).instance_name(), "name"))


def _from_secret_manager(settings: Settings, url: GsmUrl, environ: Mapping[str, str], patience: Patience) -> Fetched:
    store = open_secret_manager(url, settings.endpoint, environ, patience)
    material = read_material(store, settings.cluster, settings.wanted, settings.versions, settings.mounts)
    return Fetched(material, settings, store.date)


def open_secret_manager(
    url: GsmUrl, chosen: str | None, environ: Mapping[str, str], patience: Patience
) -> SecretManager:
    """Secret Manager as this machine reads it; `chosen` is another endpoint than Google's (UsageError for gRPC)."""
    from daskpki.boot.connection import Connection, parse_target, proxy_for, system_trust
    from daskpki.boot.secret_manager import SecretManager
    from daskpki.boot.tokens import token_source
    from daskpki.store.gsm.endpoint import GRPC, VARIABLE, endpoint_for

    endpoint = endpoint_for(url, {VARIABLE: chosen} if chosen else {})
    if chosen and endpoint.transport == GRPC:
        raise UsageError(f"the entrypoint speaks REST, and {chosen} is gRPC", hint="http://HOST:PORT")
    target = parse_target(endpoint.address, encrypted=endpoint.encrypted)
    if endpoint.encrypted:
        target = target._replace(proxy=proxy_for(target.host, environ))
    tokens = token_source(environ, patience)
    return SecretManager(url, Connection(target, system_trust), patience, token=tokens.token, account=tokens.account)


def _from_local(settings: Settings, url: LocalUrl, environ: Mapping[str, str]) -> Material:
    from daskpki.store.opening import open_store

    store = open_store(url, environ=environ)
    try:
        reader: Reader = store.secrets
        return read_material(reader, settings.cluster, settings.wanted, settings.versions, settings.mounts)
    finally:
        store.close()


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
    from daskpki.credentials.held import issuing_generation
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
    return Material((credential,), Trust(found.trust, signed), found.anchors)

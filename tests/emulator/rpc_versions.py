"""The RPCs on versions, each a pure function of catalogue and request."""

from __future__ import annotations

from datetime import timedelta

from tests.emulator.filters import parse_filter
from tests.emulator.messages import (
    DISABLED,
    ENABLED,
    AccessSecretVersionResponse,
    ListSecretVersionsResponse,
    Pb,
    SecretVersion,
)
from tests.emulator.model import Catalogue, StoredSecret, StoredVersion, copy_of
from tests.emulator.names import parse_secret, parse_version
from tests.emulator.paging import page
from tests.emulator.rules import check_payload
from tests.emulator.status import failed_precondition


def add_secret_version(catalogue: Catalogue, request: Pb) -> Pb:
    """The next number. It takes no etag and leaves the secret's as it is."""
    stored = catalogue.secret(parse_secret(request.parent))
    checksum = check_payload(request.payload)
    message = SecretVersion(
        name=f"{stored.name}/versions/{stored.newest + 1}",
        state=ENABLED,
        etag=catalogue.next_etag(),
        client_specified_payload_checksum=request.payload.HasField("data_crc32c"),
    )
    message.create_time.FromDatetime(catalogue.now())
    _fill_replication_status(stored, message)
    stored.versions.append(StoredVersion(message, request.payload.data, checksum))
    return copy_of(message)


def get_secret_version(catalogue: Catalogue, request: Pb) -> Pb:
    """A version's metadata."""
    return copy_of(catalogue.version(parse_version(request.name)).message)


def access_secret_version(catalogue: Catalogue, request: Pb) -> Pb:
    """An enabled version's payload with its checksum."""
    version = catalogue.version(parse_version(request.name))
    if version.data is None or version.message.state != ENABLED:
        raise failed_precondition(f"Secret Version [{version.message.name}] is in {version.state} state.")
    response = AccessSecretVersionResponse(name=version.message.name)
    response.payload.data = version.data
    response.payload.data_crc32c = version.crc32c
    return response


def list_secret_versions(catalogue: Catalogue, request: Pb) -> Pb:
    """A secret's versions, newest first, by pages; eventually consistent like `latest`."""
    stored = catalogue.secret(parse_secret(request.parent))
    matches = parse_filter(request.filter)
    numbered = list(enumerate(stored.versions[: stored.visible], start=1))
    found = [(number, version) for number, version in reversed(numbered) if matches(version.message)]
    chosen, token = page(found, request, key=lambda item: item[0])
    return ListSecretVersionsResponse(
        versions=[version.message for _, version in chosen],
        next_page_token=token,
        total_size=0 if request.filter else len(found),
    )


def enable_secret_version(catalogue: Catalogue, request: Pb) -> Pb:
    """Make a version accessible, and call off a scheduled destruction."""
    return _change_state(catalogue, request, ENABLED)


def disable_secret_version(catalogue: Catalogue, request: Pb) -> Pb:
    """Make a version inaccessible, and call off a scheduled destruction."""
    return _change_state(catalogue, request, DISABLED)


def destroy_secret_version(catalogue: Catalogue, request: Pb) -> Pb:
    """Wipe a version's payload; with a version_destroy_ttl, disable it now and wipe it then."""
    stored, version = catalogue.version_to_change(parse_version(request.name), request.etag)
    delay = stored.message.version_destroy_ttl.seconds
    if not delay:
        catalogue.destroy(version)
        return copy_of(version.message)
    version.message.state = DISABLED
    version.message.scheduled_destroy_time.FromDatetime(catalogue.now() + timedelta(seconds=delay))
    version.message.etag = catalogue.next_etag()
    return copy_of(version.message)


def _change_state(catalogue: Catalogue, request: Pb, state: int) -> Pb:
    _, version = catalogue.version_to_change(parse_version(request.name), request.etag)
    version.message.state = state
    version.message.ClearField("scheduled_destroy_time")
    version.message.etag = catalogue.next_etag()
    return copy_of(version.message)


def _fill_replication_status(stored: StoredSecret, message: Pb) -> None:
    """Say where the payload lies and under which version of which key."""
    replication = stored.message.replication
    if stored.name.parent.location:
        _fill_key(stored.message, message)
    elif replication.HasField("automatic"):
        message.replication_status.automatic.SetInParent()
        _fill_key(replication.automatic, message.replication_status.automatic)
    for replica in replication.user_managed.replicas:
        status = message.replication_status.user_managed.replicas.add(location=replica.location)
        _fill_key(replica, status)


def _fill_key(source: Pb, target: Pb) -> None:
    if source.HasField("customer_managed_encryption"):
        key = source.customer_managed_encryption.kms_key_name
        target.customer_managed_encryption.kms_key_version_name = f"{key}/cryptoKeyVersions/1"

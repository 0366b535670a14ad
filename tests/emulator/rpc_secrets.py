"""The RPCs on secrets, each a pure function of catalogue and request."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from tests.emulator.filters import parse_filter
from tests.emulator.messages import ListSecretsResponse, Pb
from tests.emulator.model import Catalogue, check_etag, copy_of
from tests.emulator.names import SecretName, parse_parent, parse_secret
from tests.emulator.paging import page
from tests.emulator.rules import check_aliases, check_schedule, check_secret, check_secret_id
from tests.emulator.status import invalid

MUTABLE_FIELDS = frozenset(
    (
        "labels",
        "annotations",
        "version_aliases",
        "topics",
        "rotation",
        "expire_time",
        "ttl",
        "version_destroy_ttl",
        "customer_managed_encryption",
    )
)
_SCHEDULE = frozenset(("topics", "rotation", "expire_time", "ttl"))
_OUTPUT_ONLY = ("name", "create_time", "etag", "policy_member")


def create_secret(catalogue: Catalogue, request: Pb) -> Pb:
    """A new secret without versions."""
    parent = parse_parent(request.parent)
    check_secret_id(request.secret_id)
    secret = copy_of(request.secret)
    for name in _OUTPUT_ONLY:
        secret.ClearField(name)
    _settle(catalogue, secret)
    check_secret(secret, parent)
    check_schedule(secret, catalogue.now())
    check_aliases(secret.version_aliases, newest=0)
    secret.create_time.FromDatetime(catalogue.now())
    return copy_of(catalogue.insert(SecretName(parent, request.secret_id), secret).message)


def get_secret(catalogue: Catalogue, request: Pb) -> Pb:
    """A secret's metadata."""
    return copy_of(catalogue.secret(parse_secret(request.name)).message)


def list_secrets(catalogue: Catalogue, request: Pb) -> Pb:
    """A parent's secrets, newest first, by pages."""
    matches = parse_filter(request.filter)
    found = [stored for stored in catalogue.in_parent(parse_parent(request.parent)) if matches(stored.message)]
    chosen, token = page(found, request, key=lambda stored: stored.born)
    return ListSecretsResponse(
        secrets=[stored.message for stored in chosen],
        next_page_token=token,
        total_size=0 if request.filter else len(found),
    )


def update_secret(catalogue: Catalogue, request: Pb) -> Pb:
    """Replace the fields that the mask names, all or none."""
    name = parse_secret(request.secret.name)
    stored = catalogue.secret(name)
    check_etag(stored.message, request.secret.etag, "Secret")
    secret = copy_of(stored.message)
    mask = _mask(request)
    for path in mask:
        secret.ClearField(path)
        _copy_field(path, request.secret, secret)
    _settle(catalogue, secret)
    check_secret(secret, name.parent)
    if not _SCHEDULE.isdisjoint(mask):
        check_schedule(secret, catalogue.now())
    check_aliases(secret.version_aliases, stored.newest)
    secret.etag = catalogue.next_etag()
    stored.message = secret
    return copy_of(secret)


def delete_secret(catalogue: Catalogue, request: Pb) -> Empty:
    """Remove a secret with all its versions, at once and for good."""
    name = parse_secret(request.name)
    check_etag(catalogue.secret(name).message, request.etag, "Secret")
    catalogue.remove(name)
    return Empty()


def _mask(request: Pb) -> list[str]:
    paths = [path for path in request.update_mask.paths if path != "etag"]
    if not paths:
        raise invalid("Field [update_mask] is required.")
    for path in paths:
        if path not in MUTABLE_FIELDS:
            raise invalid(f"Field [{path}] of the update mask is not a field that can be updated.")
    return paths


def _copy_field(path: str, source: Pb, target: Pb) -> None:
    """Copy one field of any kind: serialising a message of just that field keeps maps and oneofs right."""
    only = copy_of(source)
    for field, _ in source.ListFields():
        if field.name != path:
            only.ClearField(field.name)
    target.MergeFrom(only)


def _settle(catalogue: Catalogue, secret: Pb) -> None:
    """Turn the input-only ttl into the expire_time that is shown."""
    if secret.WhichOneof("expiration") == "ttl":
        if secret.ttl.seconds < 60:
            raise invalid("Field [secret.ttl] must be at least 60s.")
        end = int(catalogue.now().timestamp()) + secret.ttl.seconds
        secret.expire_time.FromSeconds(end)

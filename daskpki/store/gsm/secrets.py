"""`SecretStore` on Secret Manager: checksums are verified both ways, and ownership before any change.

`GsmOptions` has the location, replication and encryption key of a cluster's secrets, which Secret Manager cannot change
later. `init-ca` fixes them, and the log's header keeps them, so that later commands on any machine create secrets in
the same way.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.errors import AmbiguousError, CorruptError, DisabledError, NotFoundError, NotOursError, UsageError
from daskpki.quoting import shown
from daskpki.settings import LOCATION, GsmUrl
from daskpki.store.gsm.api import GsmApi
from daskpki.store.gsm.client import checksum
from daskpki.store.port import Payload, SecretInfo, Version

_READS: Final = 3
_PAGE: Final = 250
_MAX_NUMBER: Final = 2**31 - 1
_OURS: Final = {"managed-by": "daskpki"}
_KMS_KEY: Final = re.compile(r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+\Z")


class GsmOptions(NamedTuple):
    """Options with which a cluster's secrets are created.

    `replication` has the locations of the replicas; empty for automatic replication, and for regional secrets, which
    have none. `kms_key` is the resource name of a customer-managed key, in which `{location}` stands for the location
    of each replica (`global` with automatic replication); None for Google's own keys.
    """

    replication: tuple[str, ...] = ()
    kms_key: str | None = None


DEFAULT: Final = GsmOptions()


def check_options(options: GsmOptions, url: GsmUrl) -> GsmOptions:
    """Return `options` if they are well-formed and the store allows them; UsageError."""
    if url.location and options.replication:
        raise UsageError(f"{url} is regional, so its secrets have no replication", hint=f"use gsm://{url.project}")
    for location in options.replication:
        if not LOCATION.match(location):
            raise UsageError(f"{shown(location)} is not a location", hint="for example europe-west1")
    if options.kms_key is not None and not _KMS_KEY.match(options.kms_key):
        raise UsageError(
            f"{shown(options.kms_key)} is not a KMS key",
            hint="projects/P/locations/L/keyRings/R/cryptoKeys/K, where L may be {location}",
        )
    return options


def secret_settings(options: GsmOptions, url: GsmUrl) -> dict[str, Any]:
    """The fields of a new Secret with its location and key, for the client library."""

    def key(location: str) -> dict[str, Any]:
        if options.kms_key is None:
            return {}
        return {"customer_managed_encryption": {"kms_key_name": options.kms_key.replace("{location}", location)}}

    if url.location:
        return key(url.location)
    if not options.replication:
        return {"replication": {"automatic": key("global")}}
    replicas = [{"location": location} | key(location) for location in options.replication]
    return {"replication": {"user_managed": {"replicas": replicas}}}


Placement = Callable[[str | None], GsmOptions]
"""Gives the options for secrets of a cluster; the cluster is None for a secret without one."""


class GsmSecrets:
    """The secrets of one project, or of one of its locations.

    A secret is known to be ours once this process has created it or read its labels; then a change is one request.
    """

    def __init__(self, api: GsmApi, placement: Placement) -> None:
        self._api = api
        self._placement = placement
        self._ours: set[str] = set()
        self._retries_add = True

    def adding_once(self) -> GsmSecrets:
        """A view of these secrets whose `add` is not retried, for a caller that reads again first."""
        twin = copy.copy(self)
        twin._retries_add = False  # noqa: SLF001 - our own copy
        return twin

    def mark_ours(self, secret: str) -> None:
        """Take a secret for ours without reading its labels, since its payload proves it."""
        self._ours.add(secret)

    def create(
        self, secret: str, *, labels: Mapping[str, str], annotations: Mapping[str, str] | None = None
    ) -> SecretInfo:
        """Create a secret; a call that was cut off counts as done if the secret then has exactly these labels."""
        secret_names.check_secret_id(secret)
        secret_names.check_labels(labels)
        secret_names.check_annotations(annotations or {})
        placed = secret_settings(self._placement(labels.get("daskpki-cluster")), self._url)
        fields = {"labels": dict(labels), "annotations": dict(annotations or {}), **placed}
        request = {"parent": self._url.parent, "secret_id": secret, "secret": fields}
        create = partial(self._api.call, "create_secret", request, secret)
        try:
            return self._noted(create())
        except AmbiguousError:
            try:
                info = self.describe(secret)
            except NotFoundError:
                return self._noted(create())
        if dict(info.labels) != dict(labels):
            raise NotOursError(f"{secret} in {self._url} was created by someone else in the same moment")
        return info

    def describe(self, secret: str) -> SecretInfo:
        """Return a secret's labels, annotations and etag."""
        return self._noted(self._api.call("get_secret", {"name": self._name(secret)}, secret))

    def select(self, labels: Mapping[str, str]) -> Iterator[SecretInfo]:
        """Find our secrets that carry all these labels."""
        marks = _OURS | dict(labels)
        terms = " AND ".join(f"labels.{key}={value}" for key, value in marks.items())
        request = {"parent": self._url.parent, "filter": terms, "page_size": _PAGE}
        found: list[SecretInfo] = []
        for page in self._api.pages("list_secrets", request, "the list of secrets"):
            found += [info for info in map(_info, page.secrets) if marks.items() <= info.labels.items()]
        yield from sorted(found)

    def update(
        self,
        secret: str,
        *,
        etag: str,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> SecretInfo:
        """Replace labels or annotations under an etag."""
        if labels is not None:
            secret_names.check_labels(labels)
        secret_names.check_annotations(annotations or {})
        self._check_ours(secret)
        changes = {"labels": labels, "annotations": annotations}
        given = {field: dict(value) for field, value in changes.items() if value is not None}
        request = {
            "secret": {"name": self._name(secret), "etag": etag, **given},
            "update_mask": {"paths": list(given)},
        }
        return self._noted(self._api.call("update_secret", request, secret))

    def delete(self, secret: str, *, etag: str | None = None) -> None:
        """Remove a secret and all its versions."""
        self._check_ours(secret)
        self._api.call("delete_secret", {"name": self._name(secret), "etag": etag or ""}, secret)
        self._ours.discard(secret)

    def add(self, secret: str, payload: Confidential) -> int:
        """Add a version; CorruptError when the checksum did not arrive with the payload."""
        secret_names.check_payload(payload)
        self._check_ours(secret)
        data = payload.reveal()
        request = {"parent": self._name(secret), "payload": {"data": data, "data_crc32c": checksum(data)}}
        reply = self._api.call("add_secret_version", request, secret, retried=self._retries_add)
        number = _number(reply.name)
        if not reply.client_specified_payload_checksum:
            raise CorruptError(f"{secret}, version {number}: Secret Manager did not receive its checksum")
        return number

    def access(self, secret: str, number: int) -> Confidential:
        """Return a version's payload."""
        return self._access(secret, _checked_number(secret, number)).data

    def latest(self, secret: str) -> Payload:
        """Return the newest version and its payload."""
        return self._access(secret, "latest")

    def _access(self, secret: str, version: str) -> Payload:
        subject = f"{secret}, version {version},"
        request = {"name": f"{self._name(secret)}/versions/{version}"}
        for _ in range(_READS):  # a payload may be damaged on its way
            reply = self._api.call("access_secret_version", request, subject)
            if checksum(reply.payload.data) == reply.payload.data_crc32c:
                return Payload(_number(reply.name), Confidential(reply.payload.data))
        raise CorruptError(f"{subject} in {self._url} does not fit its checksum, {_READS} times in a row")

    def versions(self, secret: str) -> Iterator[Version]:
        """List the versions, newest first."""
        request = {"parent": self._name(secret), "page_size": _PAGE}
        for page in self._api.pages("list_secret_versions", request, secret):
            for message in page.versions:
                yield Version(_number(message.name), message.state.name, int(message.create_time.timestamp()))

    def enable(self, secret: str, number: int) -> None:
        """Make a disabled version readable."""
        self._change("enable_secret_version", secret, number)

    def disable(self, secret: str, number: int) -> None:
        """Make a version unreadable."""
        self._change("disable_secret_version", secret, number)

    def destroy(self, secret: str, number: int) -> None:
        """Erase a version's payload."""
        try:
            self._change("destroy_secret_version", secret, number)
        except DisabledError:  # it is destroyed already
            return

    def _change(self, method: str, secret: str, number: int) -> None:
        version = _checked_number(secret, number)
        self._check_ours(secret)
        request = {"name": f"{self._name(secret)}/versions/{version}"}
        self._api.call(method, request, f"{secret}, version {number},")

    def _check_ours(self, secret: str) -> None:
        if secret not in self._ours:
            secret_names.check_ours(secret, self.describe(secret).labels)

    def _noted(self, message: Any) -> SecretInfo:
        info = _info(message)
        change = self._ours.add if secret_names.is_ours(info.labels) else self._ours.discard
        change(info.id)
        return info

    def _name(self, secret: str) -> str:
        secret_names.check_secret_id(secret)
        return f"{self._url.parent}/secrets/{secret}"

    @property
    def _url(self) -> GsmUrl:
        return self._api.url


def _info(message: Any) -> SecretInfo:
    created = int(message.create_time.timestamp())
    name = message.name.rpartition("/")[2]
    return SecretInfo(name, dict(message.labels), dict(message.annotations), message.etag, created)


def _checked_number(secret: str, number: int) -> str:
    if not 1 <= number <= _MAX_NUMBER:
        raise NotFoundError(f"{secret}, version {number} does not exist")
    return str(number)


def _number(name: str) -> int:
    return int(name.rpartition("/")[2])

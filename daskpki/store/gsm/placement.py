"""Location, replication and encryption key of a cluster's secrets: fixed by `init-ca`. Pure.

Secret Manager cannot change them later. The log's header keeps the choice, so that later commands on any machine create
secrets in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from daskpki.errors import CorruptError, UsageError
from daskpki.quoting import shown
from daskpki.settings import LOCATION, GsmUrl

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
    if url.location:
        return _key(options, url.location)
    if not options.replication:
        return {"replication": {"automatic": _key(options, "global")}}
    replicas = [{"location": location} | _key(options, location) for location in options.replication]
    return {"replication": {"user_managed": {"replicas": replicas}}}


def _key(options: GsmOptions, location: str) -> dict[str, Any]:
    if options.kms_key is None:
        return {}
    return {"customer_managed_encryption": {"kms_key_name": options.kms_key.replace("{location}", location)}}


def encode_options(options: GsmOptions) -> dict[str, Any]:
    """The options as a JSON object."""
    return {"replication": list(options.replication), "kms_key": options.kms_key}


def parse_options(data: Mapping[str, Any]) -> GsmOptions:
    """The options in such an object; CorruptError."""
    try:
        return GsmOptions(tuple(data["replication"]), data["kms_key"])
    except (KeyError, TypeError) as error:
        raise CorruptError(f"the log's header is malformed ({error})") from error

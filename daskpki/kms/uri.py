"""The name of a key version in Cloud KMS, as `--ca-key` and the log have it."""

from __future__ import annotations

import re
from typing import Final

from daskpki.errors import UsageError

SCHEME: Final = "gcpkms://"
_NAME: Final = re.compile(
    r"projects/[^/]+/locations/[a-z0-9-]+/keyRings/[A-Za-z0-9_-]+/cryptoKeys/[A-Za-z0-9_-]+/cryptoKeyVersions/[0-9]+\Z"
)


def parse_kms_uri(uri: str) -> str:
    """The resource name of the key version; UsageError for another form, since a key alone does not say which one."""
    name = uri.removeprefix(SCHEME)
    if not uri.startswith(SCHEME) or not _NAME.match(name):
        raise UsageError(
            f"{uri!r} does not name a key version of Cloud KMS",
            hint="gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/1",
        )
    return name

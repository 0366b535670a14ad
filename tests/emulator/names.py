"""Resource names: global and regional, by project id or number; replies always carry the number.

The real service answers `projects/NUMBER/...` whatever the request said, and IAM conditions see that form too.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from tests.emulator.status import ApiError, invalid

_PARENT = re.compile(r"projects/([^/]+)(?:/locations/([^/]+))?")
_SECRET = re.compile(r"(projects/[^/]+(?:/locations/[^/]+)?)/secrets/([^/]+)")
_VERSION = re.compile(r"(projects/[^/]+(?:/locations/[^/]+)?/secrets/[^/]+)/versions/([^/]+)")


def project_number(project: str) -> str:
    """The twelve-digit number of a project id; a number is its own."""
    if project.isdigit():
        return project
    return str(100_000_000_000 + zlib.crc32(project.encode()))


@dataclass(frozen=True)
class Parent:
    """`projects/P` or `projects/P/locations/L`."""

    project: str
    location: str | None = None

    def __str__(self) -> str:
        place = f"/locations/{self.location}" if self.location else ""
        return f"projects/{project_number(self.project)}{place}"


@dataclass(frozen=True)
class SecretName:
    """`PARENT/secrets/ID`; its `str` is canonical."""

    parent: Parent
    secret_id: str

    def __str__(self) -> str:
        return f"{self.parent}/secrets/{self.secret_id}"


@dataclass(frozen=True)
class VersionName:
    """`SECRET/versions/V`, where V is a number, `latest` or an alias."""

    secret: SecretName
    version: str

    def __str__(self) -> str:
        return f"{self.secret}/versions/{self.version}"


def parse_parent(text: str) -> Parent:
    """Read a parent, or refuse with INVALID_ARGUMENT."""
    match = _PARENT.fullmatch(text)
    if not match:
        raise _malformed(text, "projects/*")
    return Parent(match[1], match[2])


def parse_secret(text: str) -> SecretName:
    """Read a secret's name, or refuse with INVALID_ARGUMENT."""
    match = _SECRET.fullmatch(text)
    if not match:
        raise _malformed(text, "projects/*/secrets/*")
    return SecretName(parse_parent(match[1]), match[2])


def parse_version(text: str) -> VersionName:
    """Read a version's name, or refuse with INVALID_ARGUMENT."""
    match = _VERSION.fullmatch(text)
    if not match:
        raise _malformed(text, "projects/*/secrets/*/versions/*")
    return VersionName(parse_secret(match[1]), match[2])


def _malformed(text: str, form: str) -> ApiError:
    return invalid(f"Resource name [{text}] does not match the expected format [{form}].")

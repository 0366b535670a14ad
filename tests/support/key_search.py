"""The search for keys where none may be: raw, base64 in its three alignments, DER, JSON-escaped; files, argv, environ.

A search that finds nothing proves nothing, so each test that uses it also plants a key and sees it found.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from daskpki.confidential import Confidential
from daskpki.pki import pem

_LEAST = 24
"""A shorter needle might occur by accident."""


@dataclass(frozen=True)
class Finding:
    """A key in the clear: where, whose, and in which form."""

    place: str
    key: str
    form: str


class Canary:
    """Looks for keys, given by a name for messages and their DER (PKCS#8)."""

    def __init__(self, keys: Mapping[str, Confidential]) -> None:
        self._needles = [(name, form, needle) for name, key in keys.items() for form, needle in _forms(key.reveal())]

    def in_bytes(self, place: str, data: bytes) -> list[Finding]:
        """What is found in some bytes: a file, a program's output, a command line."""
        flat = data.replace(b"\\n", b"").replace(b"\n", b"").replace(b"\r", b"")
        return [Finding(place, name, form) for name, form, needle in self._needles if needle in data or needle in flat]

    def in_files(self, roots: Iterable[Path], *, exempt: Iterable[Path] = ()) -> list[Finding]:
        """What is found in regular files below these directories."""
        spared = {path.resolve() for path in exempt}
        return [
            finding
            for root in roots
            for path in _regular_files(root)
            if path.resolve() not in spared
            for finding in self.in_bytes(str(path), _read(path))
        ]

    def in_processes(self) -> list[Finding]:
        """What is found in the command line and environment of every process of this machine."""
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdecimal():
                for name in ("cmdline", "environ"):
                    found += self.in_bytes(f"{process}/{name}", _read(process / name))
        return found


def _forms(der: bytes) -> Iterator[tuple[str, bytes]]:
    """The bytes to look for. The secret scalar stands somewhere in the middle, so pieces of it count as well."""
    yield "DER", der
    for offset, secret in _secret_parts(der):
        yield f"raw secret at {offset}", secret
        yield f"hex at {offset}", secret.hex().encode()
    yield from _base64_forms("base64", der)
    block = pem.encode_pem(der, pem.PRIVATE_KEY)
    yield "PEM", block.encode()
    yield "JSON", json.dumps(block)[1:-1].encode()
    lines = block.splitlines()[1:-1]
    # Such as DASK_INTERNAL_INHERIT_CONFIG: base64 of a JSON that holds PEM. The line is one with secret bytes.
    yield from _base64_forms("base64 of the PEM", lines[len(lines) // 2].encode())
    yield "repr", repr(block)[1:-1].encode()


def _base64_forms(what: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Whatever comes before, whole groups of three bytes come out as the same four characters, in one of three ways."""
    for shift in range(3):
        body = data[shift:]
        text = base64.b64encode(body[: len(body) // 3 * 3])
        yield f"{what}, shifted by {shift}", text
        yield f"{what} for URLs, shifted by {shift}", text.replace(b"+", b"-").replace(b"/", b"_")


def _secret_parts(der: bytes) -> Iterator[tuple[int, bytes]]:
    """For EC keys (RFC 5915) the 32 or 48 bytes of the scalar, for others a stretch from the middle."""
    for mark, length in ((b"\x02\x01\x01\x04\x20", 32), (b"\x02\x01\x01\x04\x30", 48)):
        at = der.find(mark)
        if at >= 0:
            start = at + len(mark)
            yield start, der[start : start + length]
            return
    middle = len(der) // 2
    yield middle, der[middle : middle + max(_LEAST, len(der) // 4)]


def _regular_files(root: Path) -> Iterator[Path]:
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _read(path: Path) -> bytes:
    """The bytes, or none when the process or file has gone meanwhile."""
    try:
        return path.read_bytes()
    except OSError:
        return b""

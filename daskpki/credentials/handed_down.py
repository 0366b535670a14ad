"""What `daskpki-entrypoint` handed down to this process, read as the same material that a directory holds."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from daskpki.confidential import Confidential
from daskpki.credentials.directory import Material
from daskpki.errors import CorruptError
from daskpki.handover import Handover, load_handover
from daskpki.pki.pem import parse_certificates


class HandedDown(NamedTuple):
    """The material, and the scheduler's address if the node knows it."""

    material: Material
    schedulers: tuple[str, ...]


def load_handed_down(path: str) -> HandedDown:
    """The material that the handover at `path` points to; CorruptError when it is gone or damaged."""
    handover = load_handover(path)
    leaf, *chain = parse_certificates(_read(handover.cert), "the certificate handed down")
    material = Material(
        leaf=leaf,
        chain=tuple(chain),
        anchors=tuple(parse_certificates(_read(handover.ca), "the CA certificates handed down")),
        key=Confidential(_read(handover.key)),
        trust=Confidential(_read(handover.trust)),
    )
    return HandedDown(material, _schedulers(handover))


def _schedulers(handover: Handover) -> tuple[str, ...]:
    return (handover.scheduler,) if handover.scheduler else ()


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CorruptError(
            f"what daskpki-entrypoint handed down at {path} cannot be read: {error.strerror}",
            hint="it lives as long as the process that daskpki-entrypoint became",
        ) from None

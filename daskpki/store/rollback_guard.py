"""Remembers the newest log and trust document that this user has seen, outside the store, to detect its rollback.

A store that was put back to an older state is consistent in itself, so only a memory outside the store can show it. The
memory is a lower bound: if it is lost, or two processes write it at once, the check is weaker but nothing breaks.
"""

from __future__ import annotations

import json
import os
import shlex
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from daskpki.errors import CorruptError, NotTrustedError
from daskpki.files import PRIVATE_DIR, PRIVATE_FILE
from daskpki.pki.json_fields import base64_text, octets
from daskpki.pki.pem import fingerprint
from daskpki.pki.trust_document import ACTIVE, Anchor
from daskpki.records import EMPTY, Head

_FORMAT: Final = 1


class SeenTrust(NamedTuple):
    """The newest trust document that this user has seen of a cluster: its epoch, and its CAs."""

    epoch: int
    authorities: tuple[Anchor, ...]


class _Memory(NamedTuple):
    """By cluster: the newest log heads and trust documents, and stretches of logs that were verified."""

    heads: dict[str, Head]
    trust: dict[str, SeenTrust]
    verified: dict[str, tuple[Head, Head]]


class RollbackGuard:
    """The memory about one store, in the file `path`; None remembers nothing (for tests and throw-away stores)."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen, self._noted = _load(path), _load(None)

    @property
    def lasts(self) -> bool:
        """True if the next command finds what this one notes."""
        return self._path is not None

    def trust(self, cluster: str) -> SeenTrust | None:
        """The newest trust document that was seen; None on first use."""
        return self._seen.trust.get(cluster)

    def note_trust(self, cluster: str, epoch: int, authorities: Sequence[Anchor]) -> None:
        """Remember a trust document that was verified."""
        known = self._seen.trust.get(cluster)
        if known is None or epoch > known.epoch:
            self._seen.trust[cluster] = self._noted.trust[cluster] = SeenTrust(epoch, tuple(authorities))

    def verify(self, cluster: str, head: Head, holds: Callable[[Head], bool]) -> None:
        """Raise NotTrustedError if the log lacks the record that was seen; `holds` looks a record up."""
        seen = self.remembered(cluster)
        if seen.seq == 0 or seen == head:
            return
        if head.seq < seen.seq or not holds(seen):
            raise NotTrustedError(
                f"the log of cluster {cluster!r} does not contain record {seen.seq}, which this user has seen (it ends "
                f"at record {head.seq}): the store was rolled back to an older state",
                hint=f"if that was done on purpose: rm {shlex.quote(str(self._path))}",
            )

    def remembered(self, cluster: str) -> Head:
        """The newest record that was seen before; EMPTY for none."""
        return self._seen.heads.get(cluster, EMPTY)

    def clusters(self) -> list[str]:
        """The clusters that were seen."""
        return list(self._seen.heads)

    def verified(self, cluster: str, since: Head) -> Head:
        """The newest record such that every commit after `since` up to it was verified, and none was about a CA.

        Without such a record, `since`.
        """
        begin, end = self._seen.verified.get(cluster, (since, since))
        return end if begin == since else since

    def note_verified(self, cluster: str, since: Head, end: Head) -> None:
        """Remember that every commit after `since` up to `end` was verified, and none was about a CA.

        That is no memory of the log: on Secret Manager, a commit that lost a race is verified as well.
        """
        if self._seen.verified.get(cluster) != (since, end):
            self._seen.verified[cluster] = self._noted.verified[cluster] = (since, end)

    def forget(self) -> None:
        """Forget this store: the user has knowingly accepted its present state, older or not."""
        self._seen, self._noted = _load(None), _load(None)
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def note(self, cluster: str, head: Head) -> None:
        """Remember a head that is durable; heads that this handle notes do not affect its own snapshots."""
        if head.seq > self._noted.heads.get(cluster, self.remembered(cluster)).seq:
            self._noted.heads[cluster] = head

    def save(self) -> None:
        """Merge the new entries into the file, which others may have changed; log a warning if it cannot be written."""
        if self._path is None or not any(self._noted):
            return
        before = _load(self._path)
        heads = {cluster: max(head, before.heads.get(cluster, EMPTY)) for cluster, head in self._noted.heads.items()}
        trust = {
            cluster: max(before.trust.get(cluster, seen), seen, key=lambda each: each.epoch)
            for cluster, seen in self._noted.trust.items()
        }
        merged = _Memory(before.heads | heads, before.trust | trust, before.verified | self._noted.verified)
        if merged == before:
            return
        cas = {cluster: _encode_trust(seen) for cluster, seen in merged.trust.items()}
        text = json.dumps({"format": _FORMAT, "heads": merged.heads, "trust": cas, "verified": merged.verified})
        try:
            self._path.parent.mkdir(mode=PRIVATE_DIR, parents=True, exist_ok=True)
            _replace(self._path, text.encode())
        except OSError as error:
            import logging

            logging.getLogger(__name__).warning("a rollback of the store will not be detected: %s", error)
        self._noted = _load(None)


def _replace(path: Path, data: bytes) -> None:
    """Move new content into place without waiting for the disk: after a power cut, the old or no memory is enough."""
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}-{threading.get_ident()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.replace(path)


def _encode_trust(seen: SeenTrust) -> dict[str, Any]:
    """Encode as JSON: the fingerprint for people, the certificates to verify the CAs that come after them."""
    active = [fingerprint(anchor.certificate) for anchor in seen.authorities if anchor.state == ACTIVE]
    cas = [
        [anchor.generation, anchor.state, base64_text(anchor.certificate), [*map(base64_text, anchor.chain)]]
        for anchor in seen.authorities
    ]
    return {"epoch": seen.epoch, "ca_sha256": "".join(active), "cas": cas}


def _load(path: Path | None) -> _Memory:
    """Load the memory; an unreadable file counts as a missing one, as do unreadable stretches."""
    try:
        document = json.loads(path.read_bytes()) if path else {}
        if document.get("format") != _FORMAT:
            return _Memory({}, {}, {})
        heads = {str(cluster): _parse_head(*head) for cluster, head in document["heads"].items()}
        trust = {str(cluster): _parse_trust(seen) for cluster, seen in document.get("trust", {}).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, CorruptError):
        return _Memory({}, {}, {})
    found = document.get("verified", {})
    with suppress(ValueError, TypeError, AttributeError):
        verified = {str(cluster): (_parse_head(*begin), _parse_head(*end)) for cluster, (begin, end) in found.items()}
        return _Memory(heads, trust, verified)
    return _Memory(heads, trust, {})


def _parse_trust(seen: dict[str, Any]) -> SeenTrust:
    cas = [
        Anchor(int(generation), str(state), octets(der, "a CA"), tuple(octets(entry, "a CA") for entry in chain))
        for generation, state, der, chain in seen["cas"]
    ]
    return SeenTrust(int(seen["epoch"]), tuple(cas))


def _parse_head(seq: object, digest: object) -> Head:
    return Head(int(str(seq)), str(digest))

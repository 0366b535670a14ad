"""Random lives of a cluster: commits whose events happen in an order that the log allows."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from itertools import count
from typing import Any, Final

from hypothesis import strategies as st

from daskpki.records import (
    ABANDONED,
    CA_ACTIVATED,
    CA_CREATED,
    CA_RESERVED,
    CA_RETIRED,
    CA_RETIRING,
    ISSUED,
    PUBLISHED,
    RELEASED,
    RESERVED,
    REVOKED,
    REVOKING,
    Draft,
)

_NAMES: Final = ("scheduler", "w-0", "alice")
_NEXT: Final = {
    RESERVED: (ISSUED, ABANDONED),
    ISSUED: (REVOKING,),
    REVOKING: (REVOKED,),
    REVOKED: (RELEASED, REVOKED),
    RELEASED: (REVOKING,),
    CA_RESERVED: (CA_CREATED,),
    CA_CREATED: (CA_ACTIVATED,),
    CA_ACTIVATED: (CA_RETIRING,),
    CA_RETIRING: (CA_RETIRED,),
}


class _Life:
    """What may happen next to the leaves and CAs of one history; serials are its own, so histories do not meet."""

    def __init__(self) -> None:
        self._base = secrets.randbits(100) << 50
        self._numbers = count(1)
        self._open: list[tuple[str, Any]] = []  # the last event, and the serial or generation that it happened to

    def draw(self, draw: Callable[[Any], Any]) -> Draft:
        """One further event."""
        fresh = {"leaf": self._reserve, "ca": self._reserve_ca, "publish": self._publish, "note": self._note}
        choice = draw(st.sampled_from(["next"] * 4 + ["leaf"] * 2 + ["ca", "publish", "note"]))
        if choice == "next" and self._open:
            return self._advance(draw)
        return fresh.get(choice, self._reserve)(draw)

    def _reserve(self, draw: Callable[[Any], Any]) -> Draft:
        serial = f"{self._base + next(self._numbers):x}"
        self._open.append((RESERVED, serial))
        not_before = draw(st.integers(0, 2**32))
        body = {
            "serial": serial,
            "role": draw(st.sampled_from(["scheduler", "worker", "client"])),
            "name": draw(st.sampled_from(_NAMES)),
            "issuer": draw(st.integers(1, 3)),
            "not_before": not_before,
            "not_after": not_before + draw(st.integers(0, 10**8)),
        }
        extras = {"key_type": "ed25519", "sans": ["dns:w.example.com", "ip:10.0.0.1"]}
        return Draft(RESERVED, body | (extras if draw(st.booleans()) else {}))

    def _reserve_ca(self, draw: Callable[[Any], Any]) -> Draft:
        generation = next(self._numbers)
        self._open.append((CA_RESERVED, generation))
        body = {"generation": generation, "key_uri": "store:", "trust_domain": "c.daskpki.internal"}
        return Draft(CA_RESERVED, body | ({"settings": {"max_ttl": 5}} if draw(st.booleans()) else {}))

    def _publish(self, draw: Callable[[Any], Any]) -> Draft:
        epoch = draw(st.integers(1, 9))  # also one that comes late
        return Draft(PUBLISHED, {"epoch": epoch, "version": draw(st.integers(1, 99)), "next_update": 2_000_000_000})

    def _note(self, draw: Callable[[Any], Any]) -> Draft:
        return Draft("of-a-later-version", {"text": draw(st.text(max_size=20)), "nested": [1, None, {"a": True}]})

    def _advance(self, draw: Callable[[Any], Any]) -> Draft:
        at = draw(st.integers(0, len(self._open) - 1))
        kind, subject = self._open[at]
        following = _NEXT.get(kind)
        if following is None:
            return self._publish(draw)
        kind = draw(st.sampled_from(following))
        self._open[at] = (kind, subject)
        if isinstance(subject, int):
            return Draft(kind, {"generation": subject, "certificate": "Y2VydA==", "chain": ["Y2E="]})
        extra: dict[str, Any] = {}
        if kind == ISSUED:
            extra = {"fingerprint": f"{int(subject, 16):064x}", "version": next(self._numbers)}
        elif kind in (REVOKING, REVOKED) and draw(st.booleans()):
            extra = {"reason": "key_compromise", "at": draw(st.integers(1, 2**32))}
        return Draft(kind, {"serial": subject} | extra)


@st.composite
def histories(draw: Callable[[Any], Any], max_commits: int = 12) -> list[list[Draft]]:
    """Commits, each of up to five events."""
    life = _Life()
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=max_commits))
    return [[life.draw(draw) for _ in range(size)] for size in sizes]

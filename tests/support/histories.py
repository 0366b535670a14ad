"""Random lives of a cluster, whose events happen in an order that a log allows, and the inventory after them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daskpki.inventory import ReplayedInventory
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
from daskpki.store.port import RecordLog, Store
from daskpki.store.testing import Backing, RecordLogSuite
from daskpki.store.testing.backing import STAMP
from daskpki.store.testing.record_log import always, assert_same, issued, reserved

_NAMES: Final = ("scheduler", "w-0", "alice")
_ROLES: Final = ("scheduler", "worker", "client")
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


def _fresh(draw: Callable[[Any], Any], live: list[tuple[str, Any]], numbers: Iterator[int], choice: str) -> Draft:
    """An event that follows from no other one; what it reserves is added to `live`."""
    if choice == "note":
        return Draft("of-a-later-version", {"text": draw(st.text(max_size=20)), "nested": [1, None, {"a": True}]})
    if choice == "publish":
        epoch = draw(st.integers(1, 9))  # also one that comes late
        return Draft(PUBLISHED, {"epoch": epoch, "version": draw(st.integers(1, 99)), "next_update": 2_000_000_000})
    if choice == "ca":
        body = {"generation": next(numbers), "key_uri": "store:", "trust_domain": "c.daskpki.internal"}
        live.append((CA_RESERVED, body["generation"]))
        return Draft(CA_RESERVED, body | ({"settings": {"max_ttl": 5}} if draw(st.booleans()) else {}))
    serial = (secrets.randbits(100) << 50) + next(numbers)  # histories do not meet
    drawn = reserved(serial, draw(st.sampled_from(_NAMES)), role=draw(st.sampled_from(_ROLES)))
    live.append((RESERVED, drawn.body["serial"]))
    begin, length = draw(st.integers(0, 2**32)), draw(st.integers(0, 10**8))
    more = {"issuer": draw(st.integers(1, 3)), "not_before": begin, "not_after": begin + length}
    if draw(st.booleans()):
        more |= {"key_type": "ed25519", "sans": ["dns:w.example.com", "ip:10.0.0.1"]}
    return Draft(RESERVED, {**drawn.body, **more})


def _next(draw: Callable[[Any], Any], live: list[tuple[str, Any]], numbers: Iterator[int]) -> Draft:
    """An event that follows from one in `live`, which has the last event of each serial and generation."""
    at = draw(st.integers(0, len(live) - 1))
    kind, subject = live[at]
    if kind not in _NEXT:
        return _fresh(draw, live, numbers, "publish")
    kind = draw(st.sampled_from(_NEXT[kind]))
    live[at] = (kind, subject)
    if isinstance(subject, int):
        return Draft(kind, {"generation": subject, "certificate": "Y2VydA==", "chain": ["Y2E="]})
    if kind == ISSUED:
        return issued(int(subject, 16), next(numbers))
    revoked = kind in (REVOKING, REVOKED) and draw(st.booleans())
    more = {"reason": "key_compromise", "at": draw(st.integers(1, 2**32))} if revoked else {}
    return Draft(kind, {"serial": subject, **more})


@st.composite
def histories(draw: Callable[[Any], Any], max_commits: int = 12) -> list[list[Draft]]:
    """Commits, each of up to five events, in an order that a log allows."""
    live: list[tuple[str, Any]] = []
    numbers = count(1)

    def event() -> Draft:
        choice = draw(st.sampled_from(["next"] * 4 + ["leaf"] * 2 + ["ca", "publish", "note"]))
        return _next(draw, live, numbers) if choice == "next" and live else _fresh(draw, live, numbers, choice)

    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=max_commits))
    return [[event() for _ in range(size)] for size in sizes]


class RandomHistories(RecordLogSuite):
    """The suite of every log, and longer and random histories."""

    def test_many_leaves_fit(self, log: RecordLog, backing: Backing) -> None:
        total, step = 600, 200
        for start in range(1, total, step):
            serials = range(start, start + step)
            log.commit(always(*(reserved(n << 80, f"w-{n}") for n in serials)), STAMP)
            log.commit(always(*(issued(n << 80) for n in serials)), STAMP)
        with closing(backing.factory()) as other:
            view = other.log("c").inventory()
            assert [entry.serial >> 80 for entry in view.certificates()] == list(range(1, total + 1))
            assert [entry.name for entry in view.certificates(name="w-77")] == ["w-77"]
            assert list(view.certificates(statuses=[RESERVED, REVOKING])) == []
            assert other.log("c").inventory().head.seq == 2 * total

    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(history=histories())
    def test_the_inventory_follows_from_any_records(
        self, store: Store, backing: Backing, history: list[list[Draft]]
    ) -> None:
        cluster = f"c{secrets.token_hex(8)}"  # each example has another log in the same place
        with closing(backing.factory()) as other:
            for turn, drafts in enumerate(history):
                (other if turn % 2 else store).log(cluster).commit(always(*drafts), STAMP)
            assert_same(store.log(cluster).inventory(), ReplayedInventory(store.log(cluster).records()))
            assert_same(other.log(cluster).inventory(), ReplayedInventory(store.log(cluster).records()))

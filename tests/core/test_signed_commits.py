"""Which commits need no signature: the exact one with which `init-ca` begins, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from daskpki.errors import NotTrustedError
from daskpki.records import CA_ACTIVATED, CA_RESERVED, CA_RETIRED, PUBLISHED, RESERVED, Draft, Record, Stamp, commit_of
from daskpki.signed_commits import Trusted, verify_commits

STAMP = Stamp(1_790_000_000, "operation", "nobody", "daskpki")


def reservation(generation: int, **more: Any) -> Draft:
    body = {"key_uri": "store:", "sealing": "none", "trust_domain": "c.daskpki.internal", "settings": {}}
    return Draft(CA_RESERVED, {"generation": generation} | body | more)


def closing(generation: int) -> Draft:
    return Draft(CA_RETIRED, {"generation": generation})


def unsigned(*commits: list[Draft]) -> list[Record]:
    head, records = Trusted().head, list[Record]()
    for drafts in commits:
        records += commit_of(head, drafts, STAMP, lambda _: ())
        head = head._replace(seq=records[-1].seq, hash=records[-1].hash)
    return records


def test_init_ca_begins_and_begins_again_without_a_signature() -> None:
    records = unsigned([reservation(1)], [closing(1), reservation(2)], [closing(2), reservation(3)])
    assert verify_commits("c", Trusted(), records).generations.keys() == {1, 2, 3}


LEAF = {"serial": "a", "role": "worker", "name": "w", "issuer": 1, "not_before": 1, "not_after": 2}


@pytest.mark.parametrize(
    "commits",
    [
        [[reservation(2)]],
        [[reservation(1), reservation(2)]],
        [[reservation(1, more="x")]],
        [[Draft(CA_RESERVED, {"generation": 1, "key_uri": "store:"})]],
        [[closing(1), reservation(1)]],
        [[reservation(1)], [reservation(2)]],
        [[reservation(1)], [closing(1)]],
        [[reservation(1)], [reservation(2), closing(1)]],
        [[reservation(1)], [closing(1), closing(1), reservation(2)]],
        [[reservation(1)], [Draft(CA_ACTIVATED, {"generation": 1})]],
        [[reservation(1), Draft(PUBLISHED, {"epoch": 9})]],
        [[Draft(RESERVED, LEAF)]],
    ],
)
def test_no_other_commit_counts_without_a_signature(commits: list[list[Draft]]) -> None:
    with pytest.raises(NotTrustedError, match=r"signed by (no CA|CA 1)"):
        verify_commits("c", Trusted(), unsigned(*commits))

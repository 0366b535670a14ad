"""The log's chain notices every change, and the inventory follows from the events."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskpki import records
from daskpki.errors import CorruptError
from daskpki.inventory import ReplayedInventory
from daskpki.records import EMPTY, CommitSignature, Draft, Record, Stamp, chain, following, verify_chain

STAMP = Stamp(1_800_000_000, "op-1", "alice@laptop", "daskpki issue worker")
LATE = records.Head(1000, records.GENESIS)


def reserved(serial: int, name: str = "w", role: str = "worker") -> Draft:
    body = {"serial": f"{serial:x}", "role": role, "name": name, "issuer": 1, "not_before": 100, "not_after": 200}
    return Draft(records.RESERVED, body)


def issued(serial: int, version: int = 1) -> Draft:
    return Draft(records.ISSUED, {"serial": f"{serial:x}", "fingerprint": f"{serial:064x}", "version": version})


def event(kind: str, serial: int, **body: Any) -> Draft:
    return Draft(kind, {"serial": f"{serial:x}", **body})


def replay(*drafts: Draft) -> ReplayedInventory:
    return ReplayedInventory(chain(EMPTY, drafts, STAMP))


@given(st.integers(1, 8), st.data())
def test_the_chain_notices_any_change_swap_or_loss(count: int, data: st.DataObject) -> None:
    log = chain(EMPTY, [reserved(serial) for serial in range(1, count + 1)], STAMP)
    assert list(verify_chain(EMPTY, log)) == log
    at = data.draw(st.integers(0, count - 1))
    field = data.draw(st.sampled_from(["time", "operation", "who", "command", "kind", "body", "hash", "seq"]))
    changed = list(log)
    forged: dict[str, Any] = {field: {"x": 1} if field == "body" else 7 if field == "seq" else "forged"}
    changed[at] = changed[at]._replace(**forged)
    if changed != log:
        with pytest.raises(CorruptError):
            list(verify_chain(EMPTY, changed))
    if at < count - 1:
        with pytest.raises(CorruptError):
            list(verify_chain(EMPTY, log[:at] + log[at + 1 :]))


def test_appending_in_two_steps_is_appending_in_one() -> None:
    drafts = [reserved(1), issued(1), reserved(2)]
    once = chain(EMPTY, drafts, STAMP)
    first = chain(EMPTY, drafts[:1], STAMP)
    assert first + chain(records.Head(1, first[-1].hash), drafts[1:], STAMP) == once


def test_a_records_hash_is_of_canonical_json_after_the_hash_before() -> None:
    log = chain(EMPTY, [Draft("kind", {"b": "é", "a": 1})], Stamp(5, "op", "alice", "daskpki issue"))
    canonical = '[1,5,"op","alice","daskpki issue","kind",{"a":1,"b":"\\u00e9"}]'
    assert log[0].hash == hashlib.sha256(f"{'0' * 64}\n{canonical}".encode()).hexdigest()


@pytest.mark.parametrize("at", range(4))
def test_what_follows_a_head_is_what_came_after_it(at: int) -> None:
    log = chain(EMPTY, [reserved(serial) for serial in range(1, 4)], STAMP)
    head = records.Head(at, log[at - 1].hash) if at else EMPTY
    assert following(head, log) == log[at:]
    assert following(head, log[at:]) == log[at:]


@pytest.mark.parametrize("digit", "0f")
def test_a_head_that_is_not_in_the_log_is_of_another_log(digit: str) -> None:
    log = chain(LATE, [reserved(serial) for serial in range(1, 4)], STAMP)
    with pytest.raises(CorruptError, match="record 1002 is not the one that is there"):
        following(records.Head(1002, digit * 64), log)
    with pytest.raises(CorruptError, match="record 1003 does not follow from record 1002"):
        following(records.Head(1002, digit * 64), log[2:])


@pytest.mark.parametrize("seq", [1001, 1002, 1004])
def test_a_record_with_another_number_does_not_follow(seq: int) -> None:
    """Its hash is right."""
    log = chain(LATE, [reserved(1), reserved(2)], STAMP)
    other = chain(records.Head(seq - 1, log[1].hash), [reserved(3)], STAMP)
    with pytest.raises(CorruptError, match=f"record {seq} does not follow from record 1002"):
        list(verify_chain(LATE, [*log, *other]))


@pytest.mark.parametrize("digit", "0f")
def test_a_record_with_another_hash_does_not_follow(digit: str) -> None:
    (record,) = chain(LATE, [reserved(1)], STAMP)
    assert list(verify_chain(LATE, [record])) == [record]
    with pytest.raises(CorruptError, match="record 1001 does not follow from record 1000"):
        list(verify_chain(LATE, [record._replace(hash=digit * 64)]))


def test_the_last_record_of_a_commit_has_its_signatures() -> None:
    signatures = (CommitSignature(1, b"signed", ""),)
    drafts = [reserved(1), reserved(2), reserved(3)]
    *before, last = records.commit_of(EMPTY, drafts, STAMP, lambda _records: signatures)
    assert [record.signatures for record in before] == [None, None]
    assert last.signatures == signatures
    assert [*before, last._replace(signatures=None)] == chain(EMPTY, drafts, STAMP)
    assert records.commit_of(EMPTY, [], STAMP, lambda _records: signatures) == []


def state(inventory: ReplayedInventory, serial: int, now: int = 150) -> str:
    entry = inventory.certificate(serial)
    assert entry is not None
    return entry.state(now)


def test_a_leaf_lives_through_its_states() -> None:
    inventory = replay(reserved(1), reserved(2), issued(1), reserved(3), issued(3), event(records.ABANDONED, 2))
    assert state(inventory, 1) == "superseded"
    assert state(inventory, 2) == "abandoned"
    assert state(inventory, 3) == "issued"
    assert state(inventory, 3, now=200) == "issued"  # RFC 5280, 4.1.2.5: notAfter is inclusive
    assert state(inventory, 3, now=201) == "expired"
    current = inventory.current("worker", "w")
    assert current is not None
    assert current.serial == 3
    found = inventory.by_fingerprint(f"{3:064x}")
    assert found == current


def test_a_revoked_leaf_stays_revoked_until_it_is_released() -> None:
    drafts = [reserved(1), issued(1), event(records.REVOKING, 1, reason="certificateHold")]
    inventory = replay(*drafts, event(records.REVOKED, 1))
    entry = inventory.certificate(1)
    assert entry is not None
    assert (entry.state(9999), entry.reason, entry.revoked_at) == ("revoked", "certificateHold", STAMP.time)
    assert state(replay(*drafts, event(records.REVOKED, 1), event(records.RELEASED, 1)), 1) == "issued"


def test_other_names_do_not_supersede() -> None:
    inventory = replay(reserved(1, "a"), issued(1), reserved(2, "b"), issued(2), reserved(3, "a", "client"), issued(3))
    assert [entry.serial for entry in inventory.certificates(role="worker")] == [1, 2]
    assert {state(inventory, serial) for serial in (1, 2, 3)} == {"issued"}


@pytest.mark.parametrize("kind", [records.ISSUED, records.ABANDONED, records.REVOKING, records.CA_CREATED])
def test_an_event_out_of_order_is_corruption(kind: str) -> None:
    draft = Draft(kind, {"serial": "1", "generation": 1, "fingerprint": "", "version": 1, "certificate": ""})
    with pytest.raises(CorruptError, match="never reserved"):
        replay(draft)


def test_an_unknown_kind_moves_the_head_only() -> None:
    inventory = replay(Draft("from-the-future", {"x": 1}))
    assert inventory.head.seq == 1
    assert list(inventory.certificates()) == []


def test_the_newest_publication_counts() -> None:
    inventory = replay(*(Draft(records.PUBLISHED, {"epoch": epoch, "version": epoch}) for epoch in (1, 3, 2)))
    assert inventory.published == {"epoch": 3, "version": 3}


def test_a_record_is_seven_fields_and_its_hash() -> None:
    assert Record._fields[-2:] == ("hash", "signatures"), "the hash covers what stands before it"
    assert len(Record._fields) == 9


def test_a_commit_has_up_to_four_signatures() -> None:
    """One by each CA that is known; an emergency needs two (daskpki.signed_commits)."""
    one = CommitSignature(1, b"signature", "place")
    for count in range(5):
        assert records.parse_signatures(records.encode_signatures([one] * count)) == (one,) * count
    with pytest.raises(CorruptError, match="the signatures of a commit are malformed"):
        records.parse_signatures(records.encode_signatures([one] * 5))


@pytest.mark.parametrize(
    "value", [{}, None, [{}], [[1, "c2ln"]], [[1, "c2ln", "p", 4]], [[0, "c2ln", "p"]], [["1", "c2ln", "p"]]]
)
def test_what_is_no_list_of_signatures_is_refused(value: object) -> None:
    with pytest.raises(CorruptError, match="signature"):
        records.parse_signatures(value)

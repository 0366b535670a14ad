"""The log's payloads: they come back as they were written, are filled, and nothing else is taken for one."""

from __future__ import annotations

import json
import lzma
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskpki.confidential import Confidential
from daskpki.errors import CorruptError, DaskpkiError, NotTrustedError, UsageError
from daskpki.records import EMPTY, Draft, Head, Record, Stamp, chain
from daskpki.secret_names import MAX_PAYLOAD
from daskpki.store.append_chain import Link
from daskpki.store.gsm.log_format import (
    MAX_UNFINISHED,
    LogCodec,
    LogHead,
    LogSegment,
    Segment,
    State,
    encode_part,
)
from daskpki.store.gsm.secrets import GsmOptions
from tests.support.drafts import STAMP, new_ca, random_leaf
from tests.support.histories import histories

CODEC = LogCodec("c")
LINK = Link(7, 6, "0123456789abcdef")


def records(commits: list[list[Draft]], stamp: Stamp = STAMP) -> list[Record]:
    made: list[Record] = []
    for number, drafts in enumerate(commits):
        head = EMPTY if not made else EMPTY._replace(seq=made[-1].seq, hash=made[-1].hash)
        made += chain(head, drafts, stamp._replace(operation=f"op-{number // 2}", time=stamp.time + number))
    return made


def head(tail: list[Record], state: State | None = None, segments: tuple[Segment, ...] = ()) -> LogHead:
    return LogHead(LINK, "c", state or State(), segments, tuple(tail), (3, 4), GsmOptions(("europe-west1",)))


def rewritten(data: Confidential, **changes: Any) -> Confidential:
    header, *lines = lzma.decompress(data.reveal()).split(b"\n")
    changed = json.dumps(json.loads(header) | changes).encode()
    return Confidential(lzma.compress(b"\n".join([changed, *lines])))


@settings(max_examples=60, deadline=None)
@given(history=histories(), cut=st.floats(0, 1))
def test_heads_and_segments_come_back_as_they_were(history: list[list[Draft]], cut: float) -> None:
    everything = records(history)
    at = int(len(everything) * cut)
    sealed, tail = everything[:at], everything[at:]
    segments = (Segment(5, Head(sealed[-1].seq, sealed[-1].hash)),) if sealed else ()
    whole = head(tail, State().after(sealed), segments)
    assert CODEC.decode(CODEC.encode(whole)) == whole
    if sealed:
        part = LogSegment(LINK._replace(seq=0), "c", EMPTY, tuple(sealed))
        assert CODEC.decode(CODEC.encode(part)) == part


@settings(max_examples=40, deadline=None)
@given(history=histories())
def test_the_state_does_not_depend_on_where_it_was_cut(history: list[list[Draft]]) -> None:
    everything = records(history)
    whole = State().after(everything)
    for at in range(len(everything) + 1):
        rejoined = State().after(everything[:at]).after(everything[at:])
        assert rejoined._replace(unfinished=None) == whole._replace(unfinished=None)
        if rejoined.unfinished is not None and whole.unfinished is not None:
            assert sorted(rejoined.unfinished) == sorted(whole.unfinished)


def test_a_segment_is_filled_close_to_its_limit_with_at_least_300_certificates() -> None:
    chance = random.Random(5)
    leaves = [random_leaf(chance) for _ in range(1200)]
    tail = records([[draft] for leaf in leaves for draft in (leaf.reserved(), leaf.issued())])
    filled = CODEC.fill(LogSegment(LINK._replace(seq=0), "c", EMPTY, tuple(tail)))
    size = len(encode_part(filled))
    assert 0.94 * MAX_PAYLOAD <= size <= MAX_PAYLOAD
    assert len(filled.records) >= 2 * 300
    assert filled.records == tuple(tail[: len(filled.records)])


def test_a_record_that_no_payload_holds_is_refused() -> None:
    noise = random.Random(6).randbytes(80_000).hex()
    (record,) = records([[Draft("note", {"text": noise})]])
    with pytest.raises(UsageError, match=r"record 1 \(note\) is larger"):
        CODEC.fill(LogSegment(LINK, "c", EMPTY, (record,)))


def test_too_many_unfinished_leaves_are_left_to_the_segments() -> None:
    chance = random.Random(7)
    many = [random_leaf(chance).reserved() for _ in range(MAX_UNFINISHED + 1)]
    assert State().after(records([many])).unfinished is None
    assert len(State().after(records([many[1:]])).unfinished or ()) == MAX_UNFINISHED


def test_another_cluster_s_log_is_refused() -> None:
    with pytest.raises(CorruptError, match="cluster 'c', not of 'd'"):
        LogCodec("d").decode(CODEC.encode(head(records([new_ca(1)]))))


def test_a_newer_format_is_refused_by_both_numbers() -> None:
    newer = rewritten(CODEC.encode(head(records([new_ca(1)]))), format=3)
    with pytest.raises(NotTrustedError, match="format 3; this daskpki reads 1"):
        CODEC.decode(newer)


@pytest.mark.parametrize(
    "changes",
    [
        {"end": [4, "0" * 64]},
        {"state": {}},
        {"segments": [[1]]},
        {"options": {}},
        {"seq": None, "part": "segment"},
        {"state": {"head": [9, "1" * 64], "authorities": [], "published": {}, "unfinished": []}},
    ],
    ids=str,
)
def test_a_changed_header_is_corrupt(changes: dict[str, Any]) -> None:
    with pytest.raises(CorruptError):
        CODEC.decode(rewritten(CODEC.encode(head(records([new_ca(1)]))), **changes))


STATE = {"head": [0, "0" * 64], "authorities": [], "published": {}, "unfinished": []}
LISTED = [1, 2, "0" * 64]


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"seq": 7}, {"seq": "7"}),
        ({"seq": 7}, {"seq": True}),
        ({"seq": 7}, {"seq": float("nan")}),
        ({"seq": 7}, {"seq": -1}),
        ({"prev": 6}, {"prev": [6]}),
        ({"prev": 6}, {"prev": 6.5}),
        ({"operation": "x"}, {"operation": ["x"]}),
        ({"leftover": [3]}, {"leftover": [3, "4"]}),
        ({"leftover": [3]}, {"leftover": [[3]]}),
        ({"segments": [LISTED]}, {"segments": [["1", *LISTED[1:]]]}),
        ({"segments": [LISTED]}, {"segments": [[*LISTED[:2], None]]}),
        ({"end": [0, "0" * 64]}, {"end": [False, "0" * 64]}),
        ({"state": STATE}, {"state": {**STATE, "published": [1]}}),
    ],
)
def test_a_value_of_another_type_in_the_header_is_corrupt(changes: dict[str, Any], wrong: dict[str, Any]) -> None:
    """Such a version would be compared with others, and a TypeError there does not tell which one it is."""
    data = CODEC.encode(head([]))
    assert CODEC.decode(rewritten(data, **changes))
    with pytest.raises(CorruptError):
        CODEC.decode(rewritten(data, **wrong))


@pytest.mark.parametrize("line", [[["kind"], {}], ["kind", [["a", 1]]], [1.5, "o", "w", "c"], [1, "o", None, "c"]])
def test_a_record_of_other_types_is_corrupt(line: list[Any]) -> None:
    data = CODEC.encode(head(records([[Draft("kind", {"a": 1})]])))
    assert CODEC.decode(data)
    lines = lzma.decompress(data.reveal()).split(b"\n")
    with pytest.raises(CorruptError, match="is not "):
        CODEC.decode(Confidential(lzma.compress(b"\n".join([*lines[:-1], json.dumps(line).encode()]))))


def test_nesting_without_end_is_corrupt() -> None:
    with pytest.raises(CorruptError, match="RecursionError"):
        CODEC.decode(Confidential(lzma.compress(b"[" * 100_000)))


@pytest.mark.parametrize(("number", "fits"), [(1_000, True), (4_000, False)])
def test_a_log_that_has_outgrown_its_header_is_refused_with_the_way_out(number: int, *, fits: bool) -> None:
    """A full segment holds some 300 to 400 certificates, and its name in the header 32 bytes that do not compress."""
    chance = random.Random(1)
    segments = tuple(Segment(n, Head(n, f"{chance.getrandbits(256):064x}")) for n in range(1, number + 1))
    full = head(records([new_ca(1)]), segments=segments)
    assert CODEC.fits(full) is fits
    if not fits:
        with pytest.raises(UsageError, match="'c' has outgrown its header") as refused:
            CODEC.encode(full)
        assert refused.value.hint == "continue in another --cluster NAME"


def test_a_bomb_is_refused_before_it_expands() -> None:
    with pytest.raises(CorruptError, match="too large"):
        CODEC.decode(Confidential(lzma.compress(b" " * (3 << 20))))


def test_records_without_end_are_refused_before_they_are_read() -> None:
    header = CODEC.encode(head(records([new_ca(1)]))).reveal()
    line = lzma.decompress(header).split(b"\n")[0]
    with pytest.raises(CorruptError, match="too large"):
        CODEC.decode(Confidential(lzma.compress(line + b'\n["k",{}]' * 20_000)))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_bytes_are_refused_or_unchanged(data: st.DataObject) -> None:
    good = CODEC.encode(head(records([new_ca(1)]))).reveal()
    kind = data.draw(st.sampled_from(["flip", "cut", "noise", "append"]))
    at = data.draw(st.integers(0, len(good) - 1))
    damaged = {
        "flip": good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :],
        "cut": good[:at],
        "noise": data.draw(st.binary(max_size=200)),
        "append": good + data.draw(st.binary(min_size=1, max_size=20)),
    }[kind]
    with pytest.raises(DaskpkiError):
        CODEC.decode(Confidential(damaged))

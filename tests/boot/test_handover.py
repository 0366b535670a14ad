"""The handover survives the way through JSON, and nothing else passes for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskpki.errors import CorruptError, NotTrustedError
from daskpki.handover import encode_handover, load_handover, parse_handover
from tests.support.handovers import HANDOVER


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "handover"
    path.write_bytes(encode_handover(HANDOVER))
    assert load_handover(str(path)) == HANDOVER


@pytest.mark.parametrize(
    "change",
    [
        {"cert": 1},
        {"cert": None},
        {"more": "x"},
        {"freshness": None},
    ],
)
def test_a_changed_field_is_refused(change: dict[str, object]) -> None:
    document = json.loads(encode_handover(HANDOVER)) | change
    with pytest.raises(CorruptError):
        parse_handover(json.dumps(document).encode())


@pytest.mark.parametrize("change", [{"poll": "5"}, {"poll": None}, {"stale_trust": 1}, {"more": 1}])
def test_a_changed_limit_is_refused(change: dict[str, object]) -> None:
    document = json.loads(encode_handover(HANDOVER))
    with pytest.raises(CorruptError):
        parse_handover(json.dumps(document | {"freshness": document["freshness"] | change}).encode())


def test_a_missing_field_is_refused() -> None:
    document = json.loads(encode_handover(HANDOVER))
    del document["trust"]
    with pytest.raises(CorruptError):
        parse_handover(json.dumps(document).encode())


def test_a_newer_format_is_named() -> None:
    document = json.loads(encode_handover(HANDOVER)) | {"format": 2}
    with pytest.raises(NotTrustedError, match="format 2"):
        parse_handover(json.dumps(document).encode())


def test_a_path_that_is_gone_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CorruptError, match="cannot be read") as caught:
        load_handover(str(tmp_path / "gone"))
    assert "daskpki-entrypoint" in str(caught.value.hint)


@given(st.one_of(st.binary(), st.from_type(type(None)).map(lambda _: b"[]"), st.text().map(str.encode)))
def test_other_bytes_are_refused_and_nothing_else_happens(data: bytes) -> None:
    with pytest.raises((CorruptError, NotTrustedError)):
        parse_handover(data)

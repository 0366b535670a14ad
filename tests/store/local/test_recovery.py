"""The recovery code: forgiving in form, strict in content."""

from __future__ import annotations

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskpki.confidential import Confidential
from daskpki.errors import UsageError
from daskpki.store.local.key_slots import format_recovery_code, parse_recovery_code
from daskpki.store.local.store import LocalStore


@given(st.binary(min_size=20, max_size=20))
def test_a_code_is_read_as_it_was_written(key: bytes) -> None:
    code = format_recovery_code(Confidential(key)).reveal().decode()
    assert [len(group) for group in code.split("-")] == [4] * 9
    for typed in (code, code.lower(), code.replace("-", " "), f"  {code}\n", code.replace("0", "O").replace("1", "l")):
        assert parse_recovery_code(Confidential(typed)).reveal() == key


@given(st.data())
def test_one_wrong_letter_is_noticed(data: st.DataObject) -> None:
    code = format_recovery_code(Confidential(secrets.token_bytes(20))).reveal().decode()
    at = data.draw(st.sampled_from([n for n, letter in enumerate(code) if letter != "-"]))
    letter = data.draw(st.sampled_from([c for c in "0123456789ABCDEFGHJKMNPQRSTVWXYZ" if c != code[at]]))
    with pytest.raises(UsageError, match="checksum"):
        parse_recovery_code(Confidential(code[:at] + letter + code[at + 1 :]))


@pytest.mark.parametrize(
    ("code", "rule"),
    [("", "has 0"), ("ABCD", "has 4"), ("U" * 36, "without U"), ("é" * 36, "letters"), ("A" * 37, "has 37")],
)
def test_what_is_no_code_is_refused_by_its_rule(code: str, rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        parse_recovery_code(Confidential(code))


def test_codes_differ(store: LocalStore) -> None:
    assert len({store.slots.add_recovery().reveal() for _ in range(50)}) == 50

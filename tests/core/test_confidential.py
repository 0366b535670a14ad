"""A secret shows itself to nothing but `reveal`."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskpki.confidential import Confidential

KEY = b"-----BEGIN PRIVATE KEY-----"


@pytest.mark.parametrize(
    "show",
    [repr, str, "{}".format, "{!r:>40}".format, lambda secret: f"{secret:<60}", lambda secret: f"{[secret]}"],
)
def test_no_text_form_shows_it(show: object) -> None:
    assert callable(show)
    text = show(Confidential(KEY))
    assert "PRIVATE" not in text
    assert "27 bytes" in text
    assert "PRIVATE" in show(KEY.decode())  # the control: plain text would


@pytest.mark.parametrize("dump", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps])
def test_nothing_serialises_it(dump: object) -> None:
    assert callable(dump)
    with pytest.raises(TypeError):
        dump(Confidential(KEY))


def test_logs_and_tracebacks_do_not_show_it(caplog: pytest.LogCaptureFixture) -> None:
    secret = Confidential(KEY)
    logging.getLogger("test").error("failed with %s", secret)
    assert "PRIVATE" not in caplog.text
    with pytest.raises(ValueError) as caught:
        raise ValueError(secret)
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "PRIVATE" not in shown
    assert "<confidential, 27 bytes>" in shown


@given(st.binary(), st.binary())
def test_it_compares_by_value_and_has_no_hash(left: bytes, right: bytes) -> None:
    assert (Confidential(left) == Confidential(right)) == (left == right)
    assert Confidential(left).reveal() == left
    assert len(Confidential(left)) == len(left)
    assert Confidential(left) != left
    with pytest.raises(TypeError):
        hash(Confidential(left))

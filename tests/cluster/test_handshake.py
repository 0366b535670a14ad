"""A scheduler's greeting as somebody without Dask reads it: whatever the bytes, nothing of them is run."""

from __future__ import annotations

from typing import Any

import pytest
from distributed.comm.tcp import _add_frames_header
from distributed.protocol.core import dumps
from distributed.protocol.serialize import ToPickle
from hypothesis import given
from hypothesis import strategies as st

from daskpki.cluster.comm import announced_modes
from daskpki.cluster.policy import WorkerClients
from daskpki.cluster.trust_updates import CODE, MODE


def sent(message: Any) -> bytes:
    """As `TCP.write` sends it."""
    return b"".join(map(bytes, _add_frames_header(dumps(message))[0]))


@pytest.mark.parametrize("mode", WorkerClients)
def test_the_mode_that_is_announced(mode: WorkerClients) -> None:
    assert announced_modes(sent({"compression": None, MODE: mode.value}))[0] is mode


@pytest.mark.parametrize(("said", "code"), [("sealed", "sealed"), ("stock", "stock"), ("open", None), ({}, None)])
def test_whether_it_is_sealed(said: object, code: str | None) -> None:
    assert announced_modes(sent({MODE: "limited", CODE: said}))[1] == code


@pytest.mark.parametrize(
    "message", [{}, {MODE: "surprise"}, {MODE: []}, [], 7, {MODE: "allow", "x": ToPickle(1)}], ids=repr
)
def test_what_announces_none(message: Any) -> None:
    assert announced_modes(sent(message))[0] is None


@given(st.binary(max_size=64))
def test_bytes_that_are_no_message(received: bytes) -> None:
    assert announced_modes(received)[0] is None
    assert announced_modes(received)[1] is None

"""A scheduler's greeting as somebody without Dask reads it: whatever the bytes, nothing of them is run."""

from __future__ import annotations

from typing import Any

import pytest
from distributed.comm.tcp import _add_frames_header
from distributed.protocol.core import dumps
from distributed.protocol.serialize import ToPickle
from hypothesis import given
from hypothesis import strategies as st

from daskpki.cluster.handshake import announced_mode
from daskpki.cluster.policy import WorkerClients
from daskpki.cluster.trust_updates import MODE


def sent(message: Any) -> bytes:
    """As `TCP.write` sends it."""
    return b"".join(map(bytes, _add_frames_header(dumps(message))[0]))


@pytest.mark.parametrize("mode", WorkerClients)
def test_the_mode_that_is_announced(mode: WorkerClients) -> None:
    assert announced_mode(sent({"compression": None, MODE: mode.value})) is mode


@pytest.mark.parametrize(
    "message", [{}, {MODE: "surprise"}, {MODE: []}, [], 7, {MODE: "allow", "x": ToPickle(1)}], ids=repr
)
def test_what_announces_none(message: Any) -> None:
    assert announced_mode(sent(message)) is None


@given(st.binary(max_size=64))
def test_bytes_that_are_no_message(received: bytes) -> None:
    assert announced_mode(received) is None

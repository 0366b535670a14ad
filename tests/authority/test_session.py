"""Who a command says that it is run by."""

from __future__ import annotations

import os
import socket

import pytest

from daskpki.authority.session import claimed_user


@pytest.mark.parametrize(
    ("name", "claimed"), [(b"alice", "alice"), ("jos\u00e9".encode(), "jos\u00e9"), (b"jos\xe9", "jos\\udce9")]
)
def test_a_user_s_name_is_a_text_that_every_log_takes(
    monkeypatch: pytest.MonkeyPatch, name: bytes, claimed: str
) -> None:
    monkeypatch.setenv("LOGNAME", os.fsdecode(name))
    assert claimed_user() == f"{claimed}@{socket.gethostname()}"
    assert claimed_user().encode().startswith(claimed.encode())

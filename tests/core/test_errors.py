"""What a Python program sees of an error of ours."""

from __future__ import annotations

import pickle
import traceback

from daskpki.errors import NotFoundError


def test_a_traceback_shows_the_way_out_also_on_another_machine() -> None:
    error = NotFoundError("no login fits name bob", hint="logins are lab/alice")
    for seen in (error, pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own bytes
        assert "".join(traceback.format_exception(seen)).endswith(
            "no login fits name bob\nhint: logins are lab/alice\n"
        )
    assert "hint" not in "".join(traceback.format_exception(NotFoundError("no login fits name bob")))

"""The cluster's other secrets, on both stores: binary safe, versioned, rolled back by adding, never from argv."""

from __future__ import annotations

import base64
import io
import re
import sys
from collections.abc import Callable

import pytest

from tests.support.running import Run

ODD = bytes(range(256)) + b"\r\n\x00"


@pytest.fixture
def put(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    run("init-ca")

    def put(name: str, value: bytes, *options: str) -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(value)))
        return int(run("secret", "set", name, *options, "--json").json()["version"])

    return put


def value(run: Run, *arguments: str) -> bytes:
    return base64.b64decode(run("secret", "get", *arguments, "--json").json()["base64"])


def test_bytes_come_back_as_they_went(run: Run, put: Callable[..., int]) -> None:
    assert put("odd", ODD) == 1
    assert value(run, "odd") == ODD
    assert put("text", b"swordfish") == 1
    assert run("secret", "get", "text").out == "swordfish"
    assert [entry["name"] for entry in run("secret", "list", "--json").json()] == ["odd", "text"]


def test_sixty_four_kib_and_not_a_byte_more(run: Run, put: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    put("large", bytes(65_536))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(bytes(65_537))))
    assert "65,537" in run("secret", "set", "large", code=2).err.replace("65537", "65,537")
    assert value(run, "large") == bytes(65_536)


def test_rollback_adds_the_old_value_again_and_twice_goes_two_back(run: Run, put: Callable[..., int]) -> None:
    for text in (b"one", b"two", b"three"):
        put("s", text)
    assert run("secret", "rollback", "s", "--json").json() == {"name": "s", "version": 4, "restores": 2}
    assert value(run, "s") == b"two"
    run("secret", "rollback", "s")
    assert value(run, "s") == b"one"
    assert "no readable version before" in run("secret", "rollback", "s", code=4).err
    before = len(run("secret", "versions", "s", "--json").json())
    assert run("secret", "rollback", "s", "--to", "0", code=4).err, "no version has that number"
    assert len(run("secret", "versions", "s", "--json").json()) == before
    run("secret", "rollback", "s", "--to", "3")
    assert value(run, "s") == b"three"
    versions = run("secret", "versions", "s", "--json").json()
    assert [line["number"] for line in versions] == [6, 5, 4, 3, 2, 1]
    assert all(line["who"] for line in versions)


def test_old_versions_are_disabled_and_destroyed_but_never_the_newest(run: Run, put: Callable[..., int]) -> None:
    put("s", b"one")
    put("s", b"two")
    for verb in ("disable", "destroy"):
        assert "newest" in run("secret", verb, "s", "2", code=2).err
        run("secret", verb, "s", "9", code=4)
    run("secret", "disable", "s", "1")
    run("secret", "get", "s", "--version", "1", code=1)
    run("secret", "disable", "s", "1", "--undo")
    assert value(run, "s", "--version", "1") == b"one"
    run("secret", "destroy", "s", "1")
    run("secret", "get", "s", "--version", "1", code=1)
    assert value(run, "s") == b"two"


def test_an_end_and_a_reminder_are_shown(run: Run, put: Callable[..., int]) -> None:
    put("s", b"x", "--ttl", "30d", "--rotate-every", "10d")
    shown = run("secret", "list").out
    assert "in 30 days" in shown
    assert "in 10 days" in shown


def test_a_new_value_counts_its_times_anew_and_never_ends_them(run: Run, put: Callable[..., int]) -> None:
    put("s", b"x", "--ttl", "1m", "--rotate-every", "90d")
    first = run("secret", "list", "--json").json()[0]
    put("s", b"y", "--ttl", "30d")
    second = run("secret", "list", "--json").json()[0]
    assert second["ends"] > first["ends"]
    assert second["rotate_by"] >= first["rotate_by"]
    put("s", b"z", "--ttl", "never")
    third = run("secret", "list", "--json").json()[0]
    assert (third["ends"], third["rotate_by"] is not None) == (None, True)
    assert "is not a lifetime" in run("secret", "set", "s", "--ttl", "soon", code=2).err


def test_versions_say_when_and_by_whom(run: Run, put: Callable[..., int]) -> None:
    put("s", b"x")
    (line,) = run("secret", "versions", "s", "--json").json()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line["created"])
    assert "@" in line["who"]
    assert re.search(r"1 +enabled +\d{4}-\d\d-\d\d \d\d:\d\d UTC +\S+@", run("secret", "versions", "s").out)


def test_what_is_not_there_is_told(run: Run, put: Callable[..., int]) -> None:
    put("s", b"x")
    for arguments in (("get", "t"), ("versions", "t"), ("rollback", "t")):
        assert "has no secret 't'" in run("secret", *arguments, code=4).err
    run("secret", "get", "Bad_Name", code=2)
    run("secret", "set", "s", "--file", "/no/such/file", code=4)

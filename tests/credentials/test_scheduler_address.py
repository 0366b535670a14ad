"""A scheduler's address: one form, which every option, variable and document of ours is read by."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskpki.boot.options import parse_arguments
from daskpki.boot.settings import parse_settings
from daskpki.credentials.contexts import Context, Contexts, is_canonical, parse_scheduler, read_scheduler_file
from daskpki.credentials.saved_logins import logins_that_list
from daskpki.credentials.source_selection import Wanted
from daskpki.errors import CorruptError, DaskpkiError, NotFoundError, UsageError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tls://10.0.0.2", "tls://10.0.0.2:8786"),
        ("tls://scheduler.lab:9", "tls://scheduler.lab:9"),
        ("tls://dask_scheduler:9", "tls://dask_scheduler:9"),
        ("tls://Host:8786", "tls://host:8786"),
        ("TLS://host", "tls://host:8786"),
        ("tls://scheduler.lab.", "tls://scheduler.lab.:8786"),
        ("tls://" + "a" * 63, "tls://" + "a" * 63 + ":8786"),
        ("tls://[::1]", "tls://[::1]:8786"),
        ("tls://[0:0:0:0:0:0:0:1]:77", "tls://[::1]:77"),
        ("tls://[FD00::5]:77", "tls://[fd00::5]:77"),
        ("tls://10.0.0.2:08786", "tls://10.0.0.2:8786"),
    ],
)
def test_every_spelling_has_one_form(text: str, address: str) -> None:
    assert parse_scheduler(text) == address
    assert parse_settings(parse_arguments(["worker", "--scheduler", text]), {}).scheduler == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tls://",
        "10.0.0.5",
        "10.0.0.5:8786",
        "tcp://10.0.0.5:8786",
        "tls://h:",
        "tls://h:0",
        "tls://h:65536",
        "tls://h:x",
        "tls://h:\uff18\uff17",
        "tls://h:" + "9" * 5000,
        "tls://h:8786/",
        "tls://h/x",
        "tls://u@h",
        "tls://a b",
        " tls://h",
        "tls://h\n",
        "tls://::1",
        "tls://[::1%lo]",
        "tls://[1.2.3.4]",
        "tls://10.0.0",
        "tls://010.0.0.5",
        "tls://8786",
        "tls://0x7f000001",
        "tls://0x",
        "tls://10.0.0.5.",
        "tls://\u212aing",
        "tls://a..b",
        "tls://" + "a" * 64,
        "tls://-",
        "ws://h",
    ],
)
def test_what_one_command_refuses_every_other_one_does(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a scheduler's address") as caught:
        parse_scheduler(text)
    assert len(str(caught.value)) < 300
    contexts = Contexts(tmp_path)
    with contexts.locked():
        login = Context("local:/s", "lab", "alice", ("tls://h:8786",), b"leaf", (), b"trust")
        contexts.write(contexts.saved(login))
    assert not logins_that_list(contexts, Wanted(address=text))
    assert logins_that_list(contexts, Wanted(address="tls://H"))
    if text:  # an empty option is none
        with pytest.raises(UsageError, match="is not a scheduler's address"):
            parse_settings(parse_arguments(["worker", "--scheduler", text]), {})


@given(st.ip_addresses(v=6), st.integers(1, 65_535))
def test_an_address_of_ipv6_is_the_same_in_any_spelling(ip: ipaddress.IPv6Address, port: int) -> None:
    short, long = parse_scheduler(f"tls://[{ip}]:{port}"), parse_scheduler(f"tls://[{ip.exploded.upper()}]:{port}")
    assert short == long
    assert is_canonical(short)


@given(st.text() | st.from_regex(r"\Atls://[0-9a-f:.\[\]]{1,30}\Z"))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        parsed = parse_scheduler(text)
    except UsageError:
        return
    assert parse_scheduler(parsed) == parsed


def test_the_file_that_dasks_scheduler_writes_is_read(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps({"type": "Scheduler", "address": "tls://[0:0::1]:8786", "workers": {}}))
    assert read_scheduler_file(tmp_path / "s.json") == "tls://[::1]:8786"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (None, NotFoundError),
        ("", CorruptError),
        ("[]", CorruptError),
        ("[" * 500_000, CorruptError),
        ('{"address": null}', CorruptError),
        ('{"address": "tcp://10.0.0.5:8786"}', UsageError),
        ('{"address": "--preload=x"}', UsageError),
        ('{"address": "' + "x" * (2 << 20) + '"}', CorruptError),
    ],
)
def test_a_file_that_names_no_such_address_is_refused(
    tmp_path: Path, content: str | None, kind: type[DaskpkiError]
) -> None:
    if content is not None:
        (tmp_path / "s.json").write_text(content)
    with pytest.raises(kind):
        read_scheduler_file(tmp_path / "s.json")

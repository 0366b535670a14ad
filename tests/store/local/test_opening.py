"""What a local store is unlocked by: an option before the environment, and never two at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from daskpki.errors import AccessDeniedError, UsageError
from daskpki.settings import LocalUrl, parse_store_url
from daskpki.store.local.key_slots import Unlocking, read_passphrase_file, with_environment
from daskpki.store.opening import local_directory

KEY, PASSPHRASE = Path("/run/key"), Path("/run/passphrase")


@pytest.mark.parametrize(
    ("named", "environ", "key_file", "passphrase_file"),
    [
        (Unlocking(), {}, None, None),
        (Unlocking(), {"DASKPKI_KEY_FILE": "/run/key"}, KEY, None),
        (Unlocking(), {"DASKPKI_PASSPHRASE_FILE": "/run/passphrase"}, None, PASSPHRASE),
        (Unlocking(), {"DASKPKI_KEY_FILE": ""}, None, None),
        (Unlocking(key_file=KEY), {"DASKPKI_KEY_FILE": "/other"}, KEY, None),
        (Unlocking(key_file=KEY), {"DASKPKI_PASSPHRASE_FILE": "/other"}, KEY, None),
        (Unlocking(passphrase_file=PASSPHRASE), {"DASKPKI_KEY_FILE": "/other"}, None, PASSPHRASE),
    ],
)
def test_an_option_comes_before_the_environment(
    named: Unlocking, environ: dict[str, str], key_file: Path | None, passphrase_file: Path | None
) -> None:
    ways = with_environment(named, environ)
    assert (ways.key_file, ways.passphrase_file) == (key_file, passphrase_file)


@pytest.mark.parametrize(
    ("named", "environ"),
    [
        (Unlocking(key_file=KEY, passphrase_file=PASSPHRASE), {}),
        (Unlocking(), {"DASKPKI_KEY_FILE": "/run/key", "DASKPKI_PASSPHRASE_FILE": "/run/passphrase"}),
    ],
)
def test_two_ways_at_once_are_refused(named: Unlocking, environ: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="both a key file") as refused:
        with_environment(named, environ)
    assert "DASKPKI_KEY_FILE" in (refused.value.hint or "")


@pytest.mark.parametrize(
    ("content", "passphrase"),
    [
        (b"hunter2", b"hunter2"),
        (b"hunter2\n", b"hunter2"),
        (b" a b \r\nmore\n", b" a b "),
        ("\u00fc\n".encode(), b"\xc3\xbc"),
    ],
)
def test_a_passphrase_is_a_file_s_first_line(tmp_path: Path, content: bytes, passphrase: bytes) -> None:
    path = tmp_path / "passphrase"
    path.touch(0o600)
    path.write_bytes(content)
    assert read_passphrase_file(path).reveal() == passphrase


def test_a_passphrase_file_is_private_and_not_empty(tmp_path: Path) -> None:
    path = tmp_path / "passphrase"
    path.touch(0o600)
    path.write_text("\nsecond line\n")
    with pytest.raises(UsageError, match="no passphrase in its first line"):
        read_passphrase_file(path)
    path.chmod(0o604)
    with pytest.raises(AccessDeniedError, match="open to others"):
        read_passphrase_file(path)


def test_the_default_store_lies_under_daskpki_s_home() -> None:
    assert local_directory(LocalUrl(None), {"DASKPKI_HOME": "/h"}) == Path("/h/store")
    url = parse_store_url("local:/srv/pki")
    assert isinstance(url, LocalUrl)
    assert local_directory(url, {"DASKPKI_HOME": "/h"}) == Path("/srv/pki")

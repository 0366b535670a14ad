"""The public file of a login, the keyring's line, and the addresses: what is written is read back, the rest refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskpki.confidential import Confidential
from daskpki.credentials.contexts import Context, Contexts, NewestTrust, encode_context, parse_context, parse_scheduler
from daskpki.credentials.os_keyring import MAX_CHARACTERS
from daskpki.credentials.saved_logins import Entry, encode_entry, parse_entry
from daskpki.errors import AccessDeniedError, CorruptError, DaskpkiError, NotTrustedError, UsageError
from daskpki.pki.keys import KeyType, generate_key, serialize_key

_LABELS = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?\Z")
_BYTES = st.binary(max_size=80)
_ADDRESSES = st.builds(
    lambda host, port: f"tls://{host}:{port}",
    st.one_of(
        _LABELS.filter(lambda label: not (label.isdigit() or label.startswith("0x"))),  # no name ends with a number
        st.ip_addresses(v=4).map(str),
        st.ip_addresses(v=6).map(lambda ip: f"[{ip}]"),
    ),
    st.integers(1, 65_535),
)
_CONTEXTS = st.builds(
    Context,
    store=st.text(max_size=40),
    cluster=_LABELS,
    name=_LABELS,
    schedulers=st.lists(_ADDRESSES, max_size=3).map(tuple),
    leaf=_BYTES,
    chain=st.lists(_BYTES, max_size=3).map(tuple),
    trust=_BYTES,
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)


@given(_CONTEXTS)
def test_a_context_is_read_back_as_it_was_written(context: Context) -> None:
    data = encode_context(context)
    assert parse_context(data) == context
    assert encode_context(parse_context(data)) == data


@given(_CONTEXTS, st.sampled_from(["format", *Context._fields]), _JSON)
def test_a_field_of_another_kind_is_refused_or_harmless(context: Context, field: str, value: object) -> None:
    document = json.loads(encode_context(context))
    document[field] = value
    _parses_or_refuses(json.dumps(document).encode())


@given(st.binary(max_size=200) | _JSON.map(lambda value: json.dumps(value).encode()))
def test_foreign_bytes_are_no_context(data: bytes) -> None:
    with pytest.raises(CorruptError):
        parse_context(data)


def _parses_or_refuses(data: bytes) -> None:
    try:
        parsed = parse_context(data)
    except DaskpkiError as error:
        assert isinstance(error, CorruptError | NotTrustedError)
    else:
        assert parse_context(encode_context(parsed)) == parsed


def test_a_newer_format_is_named(tmp_path: Path) -> None:
    directory = tmp_path / "contexts"
    directory.mkdir(mode=0o700)
    file = directory / "0123456789abcdef.json"
    file.write_text('{"format": 2}')
    file.chmod(0o600)
    with pytest.raises(NotTrustedError, match=r"0123456789abcdef\.json: .* has format 2; this daskpki reads up to 1"):
        Contexts(tmp_path).all()


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    contexts = Contexts(tmp_path)
    saved = contexts.saved(Context("local:/s", "default", "alice", (), b"leaf", (), b"trust"))
    with contexts.locked():
        contexts.write(saved)
    assert contexts.all() == [saved]
    (contexts.directory / f"{saved.id}.json").chmod(0o644)
    with pytest.raises(AccessDeniedError, match="open to others"):
        contexts.all()
    with contexts.locked():
        contexts.remove(saved)
    assert not contexts.directory.exists()


def test_logins_come_and_go_beside_each_other(tmp_path: Path) -> None:
    """Each removes the empty directory, and lists the logins while the other ones remove theirs."""

    def come_and_go(name: str) -> None:
        contexts, kept = Contexts(tmp_path), NewestTrust(tmp_path, name)
        saved = contexts.saved(Context("local:/s", "default", name, (), b"leaf", (), b"trust"))
        for _ in range(100):
            with contexts.locked():
                contexts.write(saved)
                kept.keep(Confidential(b"trust"))
                assert contexts.load(saved.id) == saved
            assert saved in contexts.all()
            with contexts.locked():
                contexts.remove(saved)
                kept.forget()

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(come_and_go, ["alice", "bob", "carol", "dora"]))
    assert list(tmp_path.iterdir()) == []


def test_ids_differ_by_home_store_cluster_and_name(tmp_path: Path) -> None:
    here, elsewhere = Contexts(tmp_path / "a"), Contexts(tmp_path / "b")
    places = [("local:/s", "c", "n"), ("local:/t", "c", "n"), ("local:/s", "d", "n"), ("local:/s", "c", "m")]
    ids = {contexts.id_of(*place) for contexts in (here, elsewhere) for place in places}
    assert len(ids) == 8


@given(st.integers(0, 10**18 - 1), st.binary(min_size=32, max_size=32), st.binary(min_size=1, max_size=400))
def test_an_entry_is_read_back_as_it_was_written(epoch: int, digest: bytes, key: bytes) -> None:
    entry = Entry(epoch, digest.hex(), Confidential(key))
    assert parse_entry(encode_entry(entry)) == entry


@pytest.mark.parametrize("kind", list(KeyType))
def test_every_kind_of_key_fits_an_entry(kind: KeyType) -> None:
    entry = Entry(10**18 - 1, "0" * 64, serialize_key(generate_key(kind)))
    line = encode_entry(entry)
    assert len(line) <= MAX_CHARACTERS
    assert parse_entry(line) == entry


def test_a_key_that_is_too_long_for_every_keyring_is_refused() -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=3, key_size=3072)
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with pytest.raises(UsageError, match="does not fit a keyring entry"):
        encode_entry(Entry(1, "0" * 64, Confidential(der)))


@given(st.text(max_size=60) | st.from_regex(r"\A1\.[0-9]{1,20}\.[0-9a-f]{64}\.primes\.[A-Za-z0-9+/]{0,60}={0,2}\Z"))
def test_foreign_text_is_no_entry(text: str) -> None:
    with pytest.raises((CorruptError, NotTrustedError)):
        parse_entry(Confidential(text))


@given(_ADDRESSES)
def test_an_address_is_compared_in_one_form(address: str) -> None:
    parsed = parse_scheduler(address)
    assert parse_scheduler(parsed) == parsed
    assert parse_scheduler(address.upper().replace("TLS", "tls")) == parsed


def test_the_port_defaults_to_dasks() -> None:
    assert parse_scheduler("tls://Host") == "tls://host:8786"


@pytest.mark.parametrize(
    "text", ["tcp://host:8786", "host:8786", "tls://", "tls://host:0", "tls://host:65536", "tls://a b:1", "tls://h:1/x"]
)
def test_what_is_no_address_of_a_scheduler_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a scheduler's address"):
        parse_scheduler(text)

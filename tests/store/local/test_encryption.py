"""Boxes and sealed payloads: what opens them, and what does not."""

from __future__ import annotations

import hashlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskpki.confidential import Confidential
from daskpki.errors import AccessDeniedError, CorruptError, DaskpkiError, NotTrustedError, UsageError
from daskpki.store.encryption import (
    DEFAULT_COST,
    Cost,
    context,
    decrypt,
    derive,
    encrypt,
    open_with_key,
    open_with_passphrase,
    random_key,
    seal_with_key,
    seal_with_passphrase,
)
from tests.support.local_places import CHEAP

DATA = Confidential("-----BEGIN PRIVATE KEY-----")
PASSPHRASE = Confidential("correct horse")
BOUND = b"CA key of c"


def sealed(data: Confidential = DATA, cost: Cost = CHEAP) -> bytes:
    return seal_with_passphrase(data, PASSPHRASE, context=BOUND, cost=cost)


def redigested(box: bytes) -> bytes:
    """The box as someone forges it who knows the format: with a digest that fits."""
    return box[:-8] + hashlib.sha256(box[:-8]).digest()[:8]


@given(data=st.binary(max_size=200), passphrase=st.binary(min_size=1, max_size=40), bound=st.binary(max_size=40))
def test_what_was_sealed_by_a_passphrase_opens_by_it(data: bytes, passphrase: bytes, bound: bytes) -> None:
    box = seal_with_passphrase(Confidential(data), Confidential(passphrase), context=bound, cost=CHEAP)
    assert open_with_passphrase(box, Confidential(passphrase), context=bound).reveal() == data
    assert len(data) < 4 or data not in box[13:]


def test_the_default_cost_is_what_owasp_recommends_and_takes_its_time() -> None:
    started = time.perf_counter()
    box = sealed(cost=DEFAULT_COST)
    assert time.perf_counter() - started > 0.05
    assert (DEFAULT_COST, DEFAULT_COST.memory) == (Cost(17, 8, 1), 128 << 20)
    assert open_with_passphrase(box, PASSPHRASE, context=BOUND) == DATA


def test_sealing_twice_gives_nothing_in_common() -> None:
    first, second = sealed(), sealed()
    assert first[:13] == second[:13]  # magic, format and parameters
    assert not any(a == b for a, b in zip(_blocks(first[13:]), _blocks(second[13:]), strict=True))


def test_a_wrong_passphrase_is_told_apart_from_damage() -> None:
    with pytest.raises(AccessDeniedError, match="passphrase is wrong"):
        open_with_passphrase(sealed(), Confidential("incorrect horse"), context=BOUND)


@settings(max_examples=200)
@given(st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject) -> None:
    box = bytearray(sealed())
    at = data.draw(st.integers(0, len(box) - 1))
    box[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises((CorruptError, NotTrustedError)):
        open_with_passphrase(bytes(box), PASSPHRASE, context=BOUND)


@settings(max_examples=200)
@given(st.data())
def test_any_forged_byte_is_noticed_too(data: st.DataObject) -> None:
    box = bytearray(sealed())
    at = data.draw(st.integers(0, len(box) - 9))
    box[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises((CorruptError, NotTrustedError, AccessDeniedError)):
        open_with_passphrase(redigested(bytes(box)), PASSPHRASE, context=BOUND)


def test_a_forged_ciphertext_is_corrupt_though_the_passphrase_is_right() -> None:
    box = bytearray(sealed())
    box[-9] ^= 1
    with pytest.raises(CorruptError, match="does not open"):
        open_with_passphrase(redigested(bytes(box)), PASSPHRASE, context=BOUND)


def test_another_context_does_not_open() -> None:
    with pytest.raises(CorruptError, match="belongs elsewhere"):
        open_with_passphrase(sealed(), PASSPHRASE, context=b"CA key of d")


@given(st.binary(max_size=120))
def test_what_was_never_sealed_is_refused(data: bytes) -> None:
    for box in (data, b"dpki-box" + data):
        with pytest.raises(NotTrustedError):
            open_with_passphrase(box, PASSPHRASE, context=BOUND)


def test_every_shorter_box_is_refused() -> None:
    box = sealed()
    for length in range(len(box)):
        with pytest.raises(CorruptError):
            open_with_passphrase(box[:length], PASSPHRASE, context=BOUND)


@pytest.mark.parametrize(
    "cost", [(30, 8, 1), (17, 255, 1), (17, 8, 200), (0, 8, 1), (255, 8, 1), (17, 0, 1), (16, 1, 1), (17, 8, 0)]
)
def test_a_forged_header_is_refused_before_it_costs_memory(cost: tuple[int, int, int]) -> None:
    box = bytearray(sealed())
    box[10:13] = cost
    started = time.process_time()
    with pytest.raises(CorruptError, match="sealed data asks for"):
        open_with_passphrase(redigested(bytes(box)), PASSPHRASE, context=BOUND)
    assert time.process_time() - started < 0.05


def test_a_newer_format_is_refused_by_name() -> None:
    box = bytearray(sealed())
    box[8] = 2
    with pytest.raises(NotTrustedError, match="format 2; this daskpki reads 1"):
        open_with_passphrase(redigested(bytes(box)), PASSPHRASE, context=BOUND)


def test_a_box_of_the_other_kind_does_not_open() -> None:
    key = random_key()
    by_key = seal_with_key(DATA, key, context=BOUND)
    assert open_with_key(by_key, key, context=BOUND) == DATA
    with pytest.raises(CorruptError, match="another kind"):
        open_with_passphrase(by_key, key, context=BOUND)
    with pytest.raises(CorruptError, match="another kind"):
        open_with_key(sealed(), key, context=BOUND)
    with pytest.raises(AccessDeniedError):
        open_with_key(by_key, random_key(), context=BOUND)


def test_weak_secrets_are_refused() -> None:
    with pytest.raises(UsageError):
        seal_with_passphrase(DATA, Confidential(""), context=BOUND)
    with pytest.raises(UsageError):
        seal_with_key(DATA, Confidential(b"short"), context=BOUND)


def test_no_error_shows_the_passphrase_or_the_data() -> None:
    box = sealed()
    for attempt in (b"garbage", box[:-1], box):
        with pytest.raises(DaskpkiError) as refused:
            open_with_passphrase(attempt, Confidential("wrong horse"), context=BOUND)
        assert "horse" not in str(refused.value) + repr(refused.value) + (refused.value.hint or "")


@given(data=st.binary(max_size=100), parts=st.lists(st.text(max_size=5) | st.integers(), max_size=4))
def test_a_sealed_payload_opens_in_its_context_only(data: bytes, parts: list[str | int]) -> None:
    key = random_key().reveal()
    box = encrypt(key, Confidential(data), context(*parts))
    assert decrypt(key, box, context(*parts)).reveal() == data
    for other_key, other in ((key, context(*parts, 1)), (random_key().reveal(), context(*parts))):
        with pytest.raises(CorruptError):
            decrypt(other_key, box, other)
    with pytest.raises(CorruptError):
        decrypt(key, box[:27], context(*parts))


@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_contexts_are_unambiguous(first: list[str], second: list[str]) -> None:
    assert (context(*first) == context(*second)) == (first == second)


def test_derived_keys_are_rfc_5869_s() -> None:
    # RFC 5869, A.1: PRK, info and OKM
    prk = Confidential(bytes.fromhex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"))
    okm = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    assert derive(prk, bytes.fromhex("f0f1f2f3f4f5f6f7f8f9"), 42).hex() == okm


def _blocks(data: bytes) -> list[bytes]:
    return [data[at : at + 8] for at in range(0, len(data) - 7, 8)]

"""A CA that was dropped leads whoever trusted it to its successor, and nobody else does."""

from __future__ import annotations

import json

import pytest

from daskpki.errors import CorruptError, NotTrustedError
from daskpki.pki.keys import KeyType
from daskpki.pki.trust import carried, heirs, sign_succession
from daskpki.pki.trust_document import Anchor, Succession, encode_document, parse_document
from tests.support.pki_material import authority
from tests.support.trust_documents import anchor, document, verify

ONE, TWO, THREE = (authority(generation=number) for number in (1, 2, 3))
WORDS = (sign_succession("default", ONE, anchor(TWO)), sign_succession("default", TWO, anchor(THREE)))
FORMER = document((ONE, "active"))
LATER = document((THREE, "active"), epoch=9)


def root(which: Anchor) -> bytes:
    return which.certificate


def test_words_lead_from_a_ca_that_is_long_gone() -> None:
    now = LATER._replace(successions=WORDS)
    assert verify(now, [THREE], previous=FORMER) == now
    with pytest.raises(NotTrustedError, match="not signed by a CA of the one before"):
        verify(LATER, [THREE], previous=FORMER)


def test_a_ca_of_two_tiers_is_succeeded_by_the_key_that_signs_documents() -> None:
    old, new = authority(tiers=2, generation=1), authority(tiers=2, kind=KeyType.P384, generation=2)
    word = sign_succession("default", old, anchor(new))
    now = document((new, "active"), epoch=5)._replace(successions=(word,))
    assert verify(now, [new], previous=document((old, "active"))) == now


@pytest.mark.parametrize(
    "words",
    [
        (WORDS[1],),  # a link is missing
        (WORDS[1], WORDS[0]),  # nobody vouches for the first yet
        (WORDS[0]._replace(signature=WORDS[1].signature), WORDS[1]),
        (WORDS[0]._replace(certificate=root(anchor(THREE)), issuing=root(anchor(THREE)), successor=3),),
        (sign_succession("other", ONE, anchor(TWO)), WORDS[1]),
        (sign_succession("default", authority(generation=4), anchor(TWO))._replace(generation=1), WORDS[1]),
    ],
    ids=["gap", "order", "signature", "successor", "cluster", "signer"],
)
def test_false_words_lead_nowhere(words: tuple[Succession, ...]) -> None:
    with pytest.raises(NotTrustedError, match="not signed by a CA of the one before"):
        verify(LATER._replace(successions=words), [THREE], previous=FORMER)


def test_a_ca_that_was_dropped_is_no_longer_asked() -> None:
    """Its stolen key names a successor of the thief's: whoever has moved on does not follow."""
    thief = authority(generation=7)
    taken = document((thief, "active"), epoch=10)._replace(
        successions=(*WORDS, sign_succession("default", ONE, anchor(thief)))
    )
    with pytest.raises(NotTrustedError, match="not signed by a CA of the one before"):
        verify(taken, [thief], previous=LATER)


def test_a_known_generation_stays_who_it_is() -> None:
    thief = anchor(authority(generation=7))._replace(generation=2)
    forged = sign_succession("default", ONE, thief)
    theirs = sign_succession("default", authority(generation=7), anchor(THREE))._replace(generation=2)
    trusted = [anchor(ONE), anchor(TWO)]
    assert root(anchor(THREE)) not in heirs("default", trusted, (forged, theirs))
    assert root(anchor(THREE)) in heirs("default", trusted, (WORDS[1],))


def test_a_document_carries_the_newest_words_that_fit() -> None:
    many = WORDS * 9
    kept = carried(many)
    assert 1 < len(kept) < len(many)
    assert kept == many[-len(kept) :]
    huge = WORDS[0]._replace(signature=bytes(9000))
    assert carried([*WORDS, huge]) == (huge,)
    assert carried(()) == ()


def sized(*size: int, generation: int = 1) -> Succession:
    """A statement whose certificates and signature have these sizes."""
    certificate, issuing, signature = map(bytes, size)
    return Succession(generation, generation + 1, certificate, issuing, signature)


@pytest.mark.parametrize(("last", "fits"), [(999, True), (1000, True), (1001, False)])
def test_4096_bytes_of_words_fit(last: int, *, fits: bool) -> None:
    one, two, three = sized(500, 500, last), sized(1001, 31, 7, generation=2), sized(999, 57, 1, generation=3)
    assert carried([one, two, three]) == ((one, two, three) if fits else (two, three))


def test_an_older_word_does_not_pass_one_that_does_not_fit() -> None:
    small, huge, newest = sized(1, 1, 1), sized(4000, 90, 7, generation=2), sized(1, 1, 1, generation=3)
    assert carried([small, huge, newest]) == (newest,)


@pytest.mark.parametrize(
    "value",
    [{}, [1], [{}], [{"generation": 0}], [{"generation": 1, "successor": 2, "certificate": "?"}], "words"],
)
def test_what_is_no_succession_is_refused(value: object) -> None:
    fields = json.loads(encode_document(LATER))
    assert parse_document(json.dumps(fields)) == LATER
    with pytest.raises(CorruptError):
        parse_document(json.dumps(fields | {"successions": value}))

"""The trust document: each rule of `daskpki.pki.trust` broken once, beside the document that keeps it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from daskpki.authority.session import random_serial
from daskpki.confidential import Confidential
from daskpki.errors import CorruptError, DaskpkiError, NotTrustedError, UsageError
from daskpki.identity import Role
from daskpki.pki import issuer, keys
from daskpki.pki.certificates import der, seconds
from daskpki.pki.crl import MAX_CRL, REASONS, Revocation, crl_pem, sign_crl, verify_crl
from daskpki.pki.issuer import Issuer
from daskpki.pki.json_fields import base64_text
from daskpki.pki.keys import KeyType
from daskpki.pki.pem import fingerprint
from daskpki.pki.profile import DAY, LeafRequest, make_policy
from daskpki.pki.revoked import (
    check_fresh,
    crl_der,
    crl_part,
    every_revoked_serial,
    is_crl_due,
    next_update,
    revoked_serials,
)
from daskpki.pki.trust import sign_succession, sign_trust, verify_trust
from daskpki.pki.trust_document import (
    ACTIVE,
    HALF_FULL,
    NEXT,
    RETIRING,
    Anchor,
    CrlPart,
    DroppedCa,
    Signature,
    TrustDocument,
    encode_document,
    encode_envelope,
    fill,
    parse_document,
    parse_trust,
    signed_bytes,
)
from tests.support.pki_material import NOW, TD, authority, identity, key, leaf

YEAR = timedelta(days=365)
ONE, TWO = authority(), authority(generation=2)


def anchor(issuer: Issuer, state: str = ACTIVE) -> Anchor:
    return Anchor(issuer.generation, state, der(issuer.root), tuple(map(der, issuer.chain)))


def part(issuer: Issuer, number: int = 1, revoked: Sequence[Revocation] = ()) -> CrlPart:
    return crl_part(issuer.generation, sign_crl(issuer, revoked, number=number, now=NOW))


def document(*states: tuple[Issuer, str], epoch: int = 1, number: int = 1) -> TrustDocument:
    issuers = states or ((ONE, ACTIVE),)
    return TrustDocument(
        format=1,
        min_reader=1,
        cluster="default",
        trust_domain=TD,
        epoch=epoch,
        prev=epoch - 1,
        operation="op-1",
        issued_at=seconds(NOW),
        authorities=tuple(anchor(issuer, state) for issuer, state in issuers),
        crls=tuple(part(issuer, number) for issuer, _ in issuers),
        log=(3, "0" * 64),
        schedulers=("tls://10.0.0.5:8786",),
    )


def verify(doc: TrustDocument, issuers: Sequence[Issuer] = (ONE,), **known: Any) -> TrustDocument:
    """The document after it was signed by these, stored, read and verified."""
    return verify_trust(parse_trust(sign_trust(doc, issuers)), now=NOW, **known)


BEFORE = document()
SIGNED = sign_trust(BEFORE, [ONE]).reveal()


@pytest.mark.parametrize("tiers", [1, 2])
@pytest.mark.parametrize("kind", KeyType)
def test_a_document_is_read_back(tiers: int, kind: KeyType) -> None:
    issuer = authority(tiers=tiers, kind=kind)
    doc = document((issuer, ACTIVE))
    assert verify(doc, (issuer,), cluster="default") == doc
    assert revoked_serials(doc) == {1: {}}
    assert doc.roots == (der(issuer.root),)


def test_another_cluster_is_refused() -> None:
    with pytest.raises(NotTrustedError, match="of cluster default, not of prod"):
        verify(document(), cluster="prod")


@pytest.mark.parametrize("field", ["format", "min_reader"])
def test_a_newer_document_names_both_versions(field: str) -> None:
    payload = json.dumps(json.loads(encode_document(document())) | {field: 2})
    with pytest.raises(NotTrustedError, match=f"has {field} 2, and this daskpki reads up to 1"):
        parse_trust(encode_envelope(payload, ()))


def test_a_changed_payload_is_refused() -> None:
    signed = parse_trust(sign_trust(document(), [ONE]))
    changed = document()._replace(schedulers=("tls://10.6.6.6:8786",))
    forged = encode_envelope(encode_document(changed), signed.signatures)
    with pytest.raises(NotTrustedError, match="signature by CA generation 1 is false"):
        verify_trust(parse_trust(forged), now=NOW)


def test_a_signature_over_something_else_is_refused() -> None:
    """The type of what is signed is signed with it, so no other signature of the CA's key can be passed off."""
    payload = encode_document(document())
    for data in (payload.encode(), signed_bytes(payload).replace(b".trust.", b".other.")):
        forged = encode_envelope(payload, (Signature(1, keys.sign(ONE.key, data)),))
        with pytest.raises(NotTrustedError, match="is false"):
            verify_trust(parse_trust(forged), now=NOW)


@pytest.mark.parametrize("issuers", [(), (TWO,)])
def test_its_own_active_ca_has_to_sign(issuers: Sequence[Issuer]) -> None:
    with pytest.raises(NotTrustedError, match="not signed by its own active CA"):
        verify(document(), issuers)
    both = document((ONE, RETIRING), (TWO, ACTIVE))
    with pytest.raises(NotTrustedError, match="not signed by its own active CA"):
        verify(both, (ONE,))
    assert verify(both, (TWO,)) == both


def test_a_worker_cannot_pose_as_an_intermediate() -> None:
    """Its leaf leads to the anchor, but is no CA."""
    worker = leaf(ONE, LeafRequest(identity(Role.WORKER)))
    thief = Issuer(worker, key(), generation=1, root=ONE.root, chain=[worker])
    with pytest.raises(NotTrustedError, match="not a CA"):
        sign_trust(document((thief, ACTIVE)), [thief])


@pytest.mark.parametrize("active", [0, 2])
def test_exactly_one_ca_is_active(active: int) -> None:
    states = [ACTIVE] * active + [NEXT] * (2 - active)
    with pytest.raises(CorruptError, match=f"{active} active CAs"):
        verify(document(*zip((ONE, TWO), states, strict=True)), (ONE, TWO))


def test_every_ca_has_exactly_one_crl() -> None:
    doc = document((ONE, ACTIVE), (TWO, NEXT))
    assert verify(doc, (ONE, TWO)) == doc
    for crls in (doc.crls[:1], (*doc.crls, doc.crls[0]), (doc.crls[0], doc.crls[0])):
        with pytest.raises(NotTrustedError, match="exactly one CRL"):
            verify(doc._replace(crls=crls), (ONE, TWO))


def test_generations_are_distinct() -> None:
    doc = document()
    twice = doc._replace(authorities=doc.authorities * 2)
    with pytest.raises(CorruptError, match="2 active CAs"):
        sign_trust(twice, [ONE])
    other = doc._replace(authorities=(*doc.authorities, anchor(TWO, NEXT)._replace(generation=1)))
    with pytest.raises(NotTrustedError, match="generation twice"):
        sign_trust(other, [ONE])


def test_a_ca_of_another_domain_is_refused() -> None:
    elsewhere = authority(policy=make_policy("prod.example.org"))
    with pytest.raises(NotTrustedError, match="not constrained to trust domain"):
        sign_trust(document((elsewhere, ACTIVE)), [elsewhere])


def test_an_offline_root_alone_cannot_vouch() -> None:
    issuer = authority(tiers=2)
    bare = document((issuer, ACTIVE))._replace(authorities=(Anchor(1, ACTIVE, der(issuer.root)),))
    with pytest.raises(NotTrustedError, match="not one that issues leaves"):
        sign_trust(bare, [issuer])


def test_a_rollover_step_by_step() -> None:
    """Add, promote, drop: each document is trusted by whoever holds the one before."""
    start = document()
    add = document((ONE, ACTIVE), (TWO, NEXT), epoch=2)
    promote = document((ONE, RETIRING), (TWO, ACTIVE), epoch=3)
    finish = document((TWO, ACTIVE), epoch=4)
    assert verify(add, (ONE, TWO), previous=start) == add
    assert verify(promote, (ONE, TWO), previous=add) == promote
    assert verify(finish, (TWO,), previous=promote) == finish


def test_a_new_ca_signs_the_document_that_adds_it() -> None:
    """So nobody adds a CA whose key they do not hold."""
    add = document((ONE, ACTIVE), (TWO, NEXT), epoch=2)
    with pytest.raises(NotTrustedError, match="adds CA generation 2, which did not sign it"):
        verify(add, (ONE,), previous=document())


def test_a_ca_of_the_one_before_has_to_sign() -> None:
    """So whoever can merely add a version to the store cannot add a CA."""
    coup = document((TWO, ACTIVE), epoch=2)
    with pytest.raises(NotTrustedError, match="not signed by a CA of the one before"):
        verify(coup, (TWO,), previous=document())
    assert verify(coup, (ONE, TWO), previous=document()) == coup  # the emergency form, while the old key is there
    assert verify(coup, (TWO,)) == coup  # and a node that starts afresh, without a pin


def test_a_generation_keeps_its_anchor() -> None:
    twin = Issuer(TWO.certificate, TWO.key, generation=1, root=TWO.root)
    swapped = document((twin, ACTIVE), epoch=2)
    with pytest.raises(NotTrustedError, match="replaces the CA of generation 1"):
        verify(swapped, (ONE, twin), previous=document())


def test_the_epoch_never_goes_back() -> None:
    new, old = document(epoch=5), document(epoch=4)
    with pytest.raises(NotTrustedError, match="went back from epoch 5 to 4"):
        verify(old, previous=new)
    assert verify(new, previous=old) == new
    assert verify(new, previous=new) == new


def test_an_epoch_has_one_document() -> None:
    one = document(epoch=5)
    with pytest.raises(NotTrustedError, match="two different trust documents of epoch 5"):
        verify(one._replace(operation="op-2"), previous=one)


def test_crl_numbers_never_go_back() -> None:
    before = document(epoch=1, number=8)
    with pytest.raises(NotTrustedError, match="CRL of CA generation 1 went back from number 8 to 7"):
        verify(document(epoch=2, number=7), previous=before)
    assert verify(document(epoch=2, number=8), previous=before)
    assert verify(document(epoch=2, number=9), previous=before)


@pytest.mark.parametrize("change", [{"cluster": "prod"}, {"trust_domain": f"x.{TD}"}])
def test_cluster_and_trust_domain_stay(change: dict[str, str]) -> None:
    with pytest.raises(NotTrustedError, match="changes the cluster or the trust domain"):
        verify(document(epoch=2)._replace(**change), previous=document())  # type: ignore[arg-type]  # both are texts


def test_a_pin_holds_the_first_boot() -> None:
    pin = fingerprint(der(ONE.root))
    assert verify(document(), pin_sha256=pin)
    assert verify(document(), pin_sha256=":".join(pin[i : i + 2] for i in range(0, 64, 2)).upper())
    with pytest.raises(NotTrustedError, match="pinned CA"):
        verify(document((TWO, ACTIVE)), (TWO,), pin_sha256=pin)
    with pytest.raises(NotTrustedError, match="pinned CA"):  # being named is not enough, the pinned CA has to sign
        verify(document((TWO, ACTIVE), (ONE, RETIRING)), (TWO,), pin_sha256=pin)


def test_known_anchors_hold_it_too() -> None:
    assert verify(document(), anchors=[der(ONE.root), der(TWO.root)])
    with pytest.raises(NotTrustedError, match="a CA that is known here"):
        verify(document(), anchors=[der(TWO.root)])


def test_a_pinned_epoch() -> None:
    assert verify(document(epoch=7), min_epoch=7)
    with pytest.raises(NotTrustedError, match="has epoch 6, and at least 7"):
        verify(document(epoch=6), min_epoch=7)


@pytest.mark.parametrize(("ahead", "trusted"), [(300, True), (301, False)])
def test_a_document_from_the_future_names_both_times(ahead: int, trusted: bool) -> None:  # noqa: FBT001
    doc = document()._replace(issued_at=seconds(NOW) + ahead)
    if trusted:
        assert verify(doc) == doc
        return
    with pytest.raises(NotTrustedError, match=r"2026-11-23T12:05:01Z, and it is 2026-11-23T12:00:00Z"):
        verify(doc)


def test_freshness_is_asked_apart() -> None:
    doc = document()
    third = timedelta(seconds=35 * DAY // 3)
    assert next_update(doc) == seconds(NOW) + 35 * DAY
    assert [is_crl_due(doc, NOW + third - timedelta(seconds=1)), is_crl_due(doc, NOW + third)] == [False, True]
    check_fresh(doc, NOW + timedelta(days=35))
    late = NOW + timedelta(days=35, seconds=1)
    with pytest.raises(NotTrustedError, match="ran out"):
        check_fresh(doc, late)
    assert verify_trust(parse_trust(sign_trust(doc, [ONE])), now=late) == doc


def test_revocations_inline() -> None:
    revoked = [Revocation(random_serial(), seconds(NOW), "keyCompromise") for _ in range(500)]
    doc = document()._replace(crls=(part(ONE, 1, revoked),))
    assert crl_der(doc.crls[0])
    assert revoked_serials(verify(doc)) == {1: {entry.serial: entry for entry in revoked}}
    assert every_revoked_serial(doc) == {entry.serial for entry in revoked}


def damaged(part: CrlPart, how: str) -> bytes:
    der = crl_der(part)
    return {
        "cut off": part.compressed[:-1],
        "something follows": part.compressed + b"x",
        "no stream": der,
        "no DER": zlib.compress(crl_pem(der).encode()),
        "too long": zlib.compress(der + bytes(MAX_CRL)),
    }[how]


@pytest.mark.parametrize("how", ["cut off", "something follows", "no stream", "no DER", "too long"])
def test_a_crl_that_does_not_decompress_is_refused(how: str) -> None:
    part = document().crls[0]
    doc = document()._replace(crls=(part._replace(compressed=damaged(part, how)),))
    with pytest.raises(CorruptError, match="the CRL of CA generation 1"):
        revoked_serials(verify(doc))


def test_the_serials_of_all_generations_together() -> None:
    old, new = (Revocation(random_serial(), seconds(NOW)) for _ in range(2))
    doc = document((ONE, ACTIVE), (TWO, RETIRING))._replace(crls=(part(ONE, 1, [old]), part(TWO, 1, [new])))
    assert every_revoked_serial(doc) == {old.serial, new.serial}


@pytest.mark.parametrize("ask", [revoked_serials, every_revoked_serial])
def test_a_crl_of_another_ca_does_not_count(ask: Callable[..., object]) -> None:
    """Even in a document that is signed: a bug or an insider who has a store but no CA key."""
    doc = document()._replace(crls=(part(TWO)._replace(generation=1),))
    with pytest.raises(NotTrustedError, match="the CRL is of"):
        ask(verify(doc))
    announced = document()
    announced = announced._replace(crls=(announced.crls[0]._replace(number=9),))
    with pytest.raises(NotTrustedError, match="not the one that the document announces"):
        ask(verify(announced))


def test_a_document_that_no_payload_holds_is_not_signed() -> None:
    with pytest.raises(DaskpkiError, match="and 65536 fit") as full:
        sign_trust(document()._replace(schedulers=("tls://" + "x" * 65_536,)), [ONE])
    assert "daskpki rotate-ca --emergency" in str(full.value.hint)


def test_fifteen_hundred_revoked_fit_while_a_rollover_is_under_way() -> None:
    """With offline roots and the words of two dropped CAs, which take room as well; a third of them of dropped CAs."""
    old, new = authority(generation=3, tiers=2), authority(generation=4, tiers=2)
    revoked = [Revocation(random_serial(), seconds(NOW) - index * 977, REASONS[index % 9]) for index in range(1000)]
    dropped = [tuple(random_serial() for _ in range(250)) for _ in range(2)]
    doc = document((old, ACTIVE), (new, NEXT))
    doc = doc._replace(
        crls=(part(old, 1, revoked[:900]), part(new, 1, revoked[900:])),
        schedulers=("tls://scheduler.c.project.internal:8786",),
        root_crls=tuple(sign_crl(ONE, (), number=1, now=NOW) for _ in range(2)),
        successions=tuple(sign_succession("default", issuer, anchor(old)) for issuer in (ONE, TWO)),
        revoked_dropped=tuple(
            DroppedCa(number, f"default/daskpki intermediate {number}", serials)
            for number, serials in enumerate(dropped, start=1)
        ),
    )
    payload = encode_document(doc)
    signatures = tuple(Signature(issuer.generation, keys.sign(issuer.key, b"")) for issuer in (ONE, TWO, old, new))
    stored = parse_trust(encode_envelope(payload, signatures)).document
    assert stored == doc
    assert every_revoked_serial(stored) == {entry.serial for entry in revoked}.union(*dropped)
    assert fill(stored) > HALF_FULL


def test_a_ca_is_not_both_trusted_and_dropped() -> None:
    doc = document()._replace(revoked_dropped=(DroppedCa(1, "default/daskpki CA 1", (5,)),))
    with pytest.raises(NotTrustedError, match="twice"):
        verify(doc)


@pytest.mark.parametrize("serials", [None, (), (1,), (1 << 127, 7)])
def test_the_serials_of_a_dropped_ca_are_read_back(serials: tuple[int, ...] | None) -> None:
    doc = document((TWO, ACTIVE))._replace(revoked_dropped=(DroppedCa(1, "default/daskpki CA 1", serials),))
    assert verify(doc, (TWO,)) == doc
    assert every_revoked_serial(doc) == frozenset(serials or ())


def test_a_serial_that_is_cut_off_is_corrupt() -> None:
    payload = json.loads(encode_document(document((TWO, ACTIVE))))
    payload["revoked_dropped"] = [{"generation": 1, "issuer": "i", "serials": base64_text(bytes(17))}]
    with pytest.raises(CorruptError, match="has not 16 octets"):
        parse_document(json.dumps(payload))


@pytest.mark.parametrize("flip", [0x01, 0x02, 0x80, 0xFF])
def test_no_change_of_a_stored_byte_goes_unnoticed(flip: int) -> None:
    """Every byte in turn: our own error, or (in the envelope's blanks and keys) the same document as before."""
    for position in range(len(SIGNED)):
        payload = bytearray(SIGNED)
        payload[position] ^= flip
        try:
            assert verify_trust(parse_trust(Confidential(bytes(payload))), now=NOW) == BEFORE
        except NotTrustedError:
            continue


def _builder(template: issuer.Template) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(template.subject).issuer_name(template.subject)
    builder = builder.public_key(template.public_key).serial_number(template.serial)
    return builder.not_valid_before(NOW).not_valid_after(NOW + YEAR)


def test_a_ca_with_a_key_of_another_kind_is_refused() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    template = issuer.Template(
        issuer.ca_subject("default", "CA", 1), weak.public_key(), 5, ONE.lifetime, issuer.ca_extensions((TD,))
    )
    own_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(weak.public_key())
    with pytest.raises(UsageError, match="RSA key of 2048 bits"):
        issuer.sign_template(template, template.subject, weak, own_id)
    builder = _builder(template)
    for value, critical in template.extensions:
        builder = builder.add_extension(value, critical)
    foreign = builder.sign(weak, hashes.SHA256())
    with pytest.raises(NotTrustedError, match="RSA key of 2048 bits is not supported"):
        verify(BEFORE._replace(authorities=(Anchor(1, ACTIVE, der(foreign)),)))


@pytest.mark.parametrize("field", ["issued_at", "this_update", "next_update"])
def test_a_time_that_cannot_be_shown_is_refused_where_it_is_read(field: str) -> None:
    def changed(moment: int) -> TrustDocument:
        if field == "issued_at":
            return document()._replace(issued_at=moment)
        change: dict[str, Any] = {field: moment}
        return document()._replace(crls=(document().crls[0]._replace(**change),))

    assert parse_document(encode_document(changed(253_402_300_799)))
    for moment in (253_402_300_800, (1 << 63) - 1):
        with pytest.raises(CorruptError, match="after the year 9999"):
            parse_document(encode_document(changed(moment)))


def test_a_roots_crl_in_the_document_has_one_form() -> None:
    whole = document()
    crl = sign_crl(ONE, (), number=1, now=NOW)
    as_pem = crl_pem(crl).encode()
    assert verify_crl(as_pem, ONE.certificate, now=NOW) == verify_crl(crl, ONE.certificate, now=NOW)
    assert parse_document(encode_document(whole._replace(root_crls=(crl,))))
    with pytest.raises(CorruptError, match="not DER"):
        parse_document(encode_document(whole._replace(root_crls=(as_pem,))))


def test_a_lone_surrogate_is_no_text() -> None:
    for payload in ("\ud800", encode_document(BEFORE).replace("op-1", "\\ud800")):
        with pytest.raises(CorruptError, match="not a text"):
            parse_trust(Confidential(json.dumps({"format": 1, "payload": payload, "signatures": []})))


@settings(max_examples=60, deadline=None)
@given(
    field=st.sampled_from(TrustDocument._fields),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
        max_leaves=4,
    ),
)
def test_any_field_may_hold_anything(field: str, value: object) -> None:
    payload = json.dumps(json.loads(encode_document(BEFORE)) | {field: value})
    try:
        parse_trust(encode_envelope(payload, ()))
    except NotTrustedError as error:
        assert str(error)

"""The trust document: each rule of `daskpki.pki.trust` broken once, beside the document that keeps it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
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
from daskpki.pki.crl import (
    MAX_CRL,
    REASONS,
    Revocation,
    check_fresh,
    crl_der,
    crl_pem,
    every_revoked_serial,
    is_crl_due,
    next_update,
    revoked_serials,
    sign_crl,
)
from daskpki.pki.issuer import Issuer
from daskpki.pki.json_fields import base64_text
from daskpki.pki.keys import KeyType
from daskpki.pki.pem import fingerprint
from daskpki.pki.profile import DAY, LeafRequest, make_policy
from daskpki.pki.trust import check_own_signature, follows, is_forged, sign_succession, sign_trust, verify_trust
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
from tests.support.pki_material import CA_KINDS, NOW, TD, authority, identity, key, leaf
from tests.support.trust_documents import ONE, anchor, document, part, verify

YEAR = timedelta(days=365)
TWO = authority(generation=2)
BEFORE = document()
SIGNED = sign_trust(BEFORE, [ONE]).reveal()


@pytest.mark.parametrize("tiers", [1, 2])
@pytest.mark.parametrize("kind", CA_KINDS)
def test_a_document_is_read_back(tiers: int, kind: KeyType) -> None:
    issuer = authority(tiers=tiers, kind=kind)
    doc = document((issuer, ACTIVE))
    assert verify(doc, (issuer,), cluster="default") == doc
    assert revoked_serials(doc) == {1: {}}
    assert doc.roots == (der(issuer.root),)


def test_a_ca_of_a_late_generation_signs_as_the_first_does() -> None:
    late, next_one = authority(generation=1000), authority(generation=1001)
    start, add = document((late, ACTIVE)), document((late, ACTIVE), (next_one, NEXT), epoch=2)
    assert verify(start, (late,)) == start
    assert verify(add, (late, next_one), previous=start) == add
    forged = encode_envelope(encode_document(start), (Signature(1000, keys.sign(next_one.key, b"")),))
    assert is_forged(parse_trust(forged), start)


@pytest.mark.parametrize("cluster", ["alpha", "prod"])
def test_another_cluster_is_refused(cluster: str) -> None:
    with pytest.raises(NotTrustedError, match=f"of cluster default, not of {cluster}"):
        verify(document(), cluster=cluster)


@pytest.mark.parametrize("field", ["format", "min_reader"])
def test_a_newer_document_names_both_versions(field: str) -> None:
    payload = json.dumps(json.loads(encode_document(document())) | {field: 2})
    with pytest.raises(NotTrustedError, match=f"has {field} 2; this daskpki reads up to 1"):
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


@pytest.mark.parametrize(("named", "signer"), [(1, TWO), (2, ONE)])
def test_a_signature_in_another_cas_name_is_refused(named: int, signer: Issuer) -> None:
    payload = encode_document(document((ONE, ACTIVE), (TWO, NEXT)))
    data = signed_bytes(payload)
    true = [Signature(issuer.generation, keys.sign(issuer.key, data)) for issuer in (ONE, TWO)]
    assert verify_trust(parse_trust(encode_envelope(payload, tuple(true))), now=NOW)
    false = Signature(named, keys.sign(signer.key, data))
    with pytest.raises(NotTrustedError, match=f"signature by CA generation {named} is false"):
        verify_trust(parse_trust(encode_envelope(payload, (*true, false))), now=NOW)


def test_a_document_is_checked_against_itself_alone() -> None:
    both = document((ONE, RETIRING), (TWO, ACTIVE))
    check_own_signature(parse_trust(sign_trust(both, [TWO])))
    with pytest.raises(NotTrustedError, match="not signed by its own active CA"):
        check_own_signature(parse_trust(sign_trust(both, [ONE])))


def test_a_document_follows_another_when_a_ca_of_it_or_its_successor_signed() -> None:
    before, later = document(), document((TWO, ACTIVE), epoch=2)
    succeeded = later._replace(successions=(sign_succession("default", ONE, anchor(TWO)),))
    for doc, issuers, expected in (
        (document(epoch=2), [ONE], True),
        (document(epoch=2), [], False),
        (later, [ONE, TWO], True),
        (later, [TWO], False),
        (succeeded, [TWO], True),
    ):
        assert follows(parse_trust(sign_trust(doc, issuers)), before) is expected


def test_a_forged_document_bears_a_known_cas_name_over_anothers_signature() -> None:
    """A signature that is missing, or by a CA that is not known yet, is no forgery."""
    held = document((ONE, ACTIVE), (TWO, NEXT))
    three = authority(generation=3)
    payload = encode_document(document((three, ACTIVE), epoch=9))
    data = signed_bytes(payload)

    def forged(*signatures: tuple[int, Issuer]) -> bool:
        signed = tuple(Signature(generation, keys.sign(signer.key, data)) for generation, signer in signatures)
        return is_forged(parse_trust(encode_envelope(payload, signed)), held)

    assert not forged()
    assert not forged((3, three))
    assert not forged((1, ONE), (2, TWO), (3, three))
    assert not is_forged(parse_trust(sign_trust(document(), [ONE])), document((TWO, ACTIVE))), "an old generation"
    for generation, thief in ((1, TWO), (2, ONE), (1, three)):
        assert forged((generation, thief))
        assert forged((1, ONE), (3, three), (generation, thief))


def test_an_issuing_ca_that_replaced_another_under_its_root_forges_nothing() -> None:
    old = authority(tiers=2)
    root = offline_root(old)
    policy = make_policy(TD)
    new = issuer.create_intermediate(root, policy, key(which="replacement"), generation=1, serial=7, now=NOW)
    held, doc = document((old, ACTIVE)), document((new, ACTIVE), epoch=2)
    assert not is_forged(parse_trust(sign_trust(doc, [new])), held)
    thief = Issuer(new.certificate, key(which="thief"), generation=1, root=new.root, chain=new.chain)
    assert is_forged(parse_trust(sign_trust(doc, [thief])), held)
    worker = leaf(old, LeafRequest(identity(Role.WORKER)))
    posing = Issuer(worker, key(), generation=1, root=old.root, chain=[worker, *old.chain])
    payload = encode_document(document((posing, ACTIVE), epoch=2))
    signature = Signature(1, keys.sign(posing.key, signed_bytes(payload)))
    assert is_forged(parse_trust(encode_envelope(payload, (signature,))), held), "a leaf is no issuing CA"


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
    one, two = doc.crls
    for crls in ((one,), (two,), (one, two, one), (one, two, two), (one, one), (two, two)):
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


@pytest.mark.parametrize(("old", "new"), [(ONE, TWO), (TWO, ONE)])
def test_a_generation_keeps_its_anchor(old: Issuer, new: Issuer) -> None:
    twin = Issuer(new.certificate, new.key, generation=old.generation, root=new.root)
    swapped = document((twin, ACTIVE), epoch=2)
    with pytest.raises(NotTrustedError, match=f"replaces the CA of generation {old.generation}"):
        verify(swapped, (old, twin), previous=document((old, ACTIVE)))


def test_the_epoch_never_goes_back() -> None:
    new, old = document(epoch=5), document(epoch=4)
    with pytest.raises(NotTrustedError, match="went back from epoch 5 to 4"):
        verify(old, previous=new)
    assert verify(new, previous=old) == new
    assert verify(new, previous=new) == new


@pytest.mark.parametrize(("epoch", "trusted"), [(10_016, True), (10_017, False)])
def test_an_epoch_exceeds_the_one_before_by_10000_at_most(epoch: int, *, trusted: bool) -> None:
    jumps = f"jumps from epoch 16 to {epoch}, by more than 10000"
    with nullcontext() if trusted else pytest.raises(NotTrustedError, match=jumps):
        verify(document(epoch=epoch), previous=document(epoch=16))


@pytest.mark.parametrize("operation", ["op-0", "op-2"])
def test_an_epoch_has_one_document(operation: str) -> None:
    one = document(epoch=500)
    with pytest.raises(NotTrustedError, match="two different trust documents of epoch 500"):
        verify(one._replace(operation=operation), previous=one)


def later_crl(doc: TrustDocument, later: int) -> TrustDocument:
    """The next document, whose CRL has the same number and is from so many seconds later."""
    (crl,) = doc.crls
    return doc._replace(epoch=doc.epoch + 1, crls=(crl._replace(this_update=crl.this_update + later),))


@pytest.mark.parametrize(("later", "trusted"), [(-1, False), (0, True), (1, True)])
def test_a_crls_this_update_never_goes_back(later: int, *, trusted: bool) -> None:
    before = document()
    with nullcontext() if trusted else pytest.raises(NotTrustedError, match="CRL of CA generation 1 went back"):
        verify(later_crl(before, later), previous=before)


def test_crl_numbers_never_go_back() -> None:
    before = document(epoch=1, number=8)
    with pytest.raises(NotTrustedError, match="CRL of CA generation 1 went back from number 8 to 7"):
        verify(document(epoch=2, number=7), previous=before)
    assert verify(document(epoch=2, number=8), previous=before)
    assert verify(document(epoch=2, number=9), previous=before)


@pytest.mark.parametrize(
    "change", [{"cluster": "alpha"}, {"cluster": "prod"}, {"trust_domain": f"a.{TD}"}, {"trust_domain": f"x.{TD}"}]
)
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


def test_known_cas_hold_it_with_their_successors() -> None:
    known = document((ONE, ACTIVE), (TWO, NEXT)).authorities
    three = authority(generation=3)
    words = (sign_succession("default", TWO, anchor(three)),)
    unknown = document((three, ACTIVE), epoch=8)
    assert verify(document(), known=known[:1])
    assert verify(document(), known=known)
    assert verify(unknown._replace(successions=words), (three,), known=known)
    with pytest.raises(NotTrustedError, match="epoch 8 is not signed by a CA that was seen here before"):
        verify(unknown, (three,), known=known)


def test_a_pinned_epoch() -> None:
    assert verify(document(epoch=7), min_epoch=7)
    with pytest.raises(NotTrustedError, match="has epoch 6, below the required 7"):
        verify(document(epoch=6), min_epoch=7)


@pytest.mark.parametrize(("ahead", "trusted"), [(300, True), (301, False)])
def test_a_document_from_the_future_names_both_times(ahead: int, trusted: bool) -> None:  # noqa: FBT001
    doc = document()._replace(issued_at=seconds(NOW) + ahead)
    if trusted:
        assert verify(doc) == doc
        return
    with pytest.raises(NotTrustedError, match=r"2026-11-23T12:05:01Z; it is now 2026-11-23T12:00:00Z"):
        verify(doc)


def test_freshness_is_asked_apart() -> None:
    doc = document()
    third = timedelta(seconds=35 * DAY // 3)
    assert next_update(doc) == seconds(NOW) + 35 * DAY
    assert [is_crl_due(doc, NOW + third - timedelta(seconds=1)), is_crl_due(doc, NOW + third)] == [False, True]
    check_fresh(doc, NOW + timedelta(days=35))
    late = NOW + timedelta(days=35, seconds=1)
    with pytest.raises(NotTrustedError, match="CRL expired"):
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
    assert parse_document(encode_document(whole._replace(root_crls=(crl,))))
    with pytest.raises(CorruptError, match="not DER"):
        parse_document(encode_document(whole._replace(root_crls=(as_pem,))))


def offline_root(below: Issuer) -> Issuer:
    """The root of a CA of two tiers, with its key."""
    return Issuer(below.root, key(which=f"root{below.generation}"), generation=below.generation, root=below.root)


LOWER, UPPER = (authority(tiers=2, generation=number) for number in (1, 2))
TIERS = document((LOWER, ACTIVE), (UPPER, RETIRING))
BOTH = (LOWER, UPPER)


def root_crl(below: Issuer, number: int = 1, later: int = 0, revoked: Sequence[Revocation] = ()) -> bytes:
    return sign_crl(offline_root(below), revoked, number=number, now=NOW + timedelta(seconds=later))


def test_offline_roots_have_a_crl_each() -> None:
    assert verify(TIERS._replace(root_crls=(root_crl(UPPER), root_crl(LOWER))), BOTH)
    with pytest.raises(NotTrustedError, match="two CRLs of the root of CA generation 2"):
        verify(TIERS._replace(root_crls=(root_crl(LOWER), root_crl(UPPER), root_crl(UPPER, 2))), BOTH)


@pytest.mark.parametrize("signer", [ONE, authority(tiers=2, generation=3)])
def test_a_crl_that_no_offline_root_signed_is_refused(signer: Issuer) -> None:
    """Also that of a CA of one tier, whose CRL stands elsewhere."""
    crl = sign_crl(signer, (), number=1, now=NOW)
    with pytest.raises(NotTrustedError, match="no offline root of its CAs signed"):
        verify(TIERS._replace(root_crls=(crl,)), BOTH)
    with pytest.raises(NotTrustedError, match="no offline root of its CAs signed"):
        verify(document()._replace(root_crls=(crl,)))


def test_a_ca_that_its_offline_root_revoked_is_refused() -> None:
    gone, other = (Revocation(serial, seconds(NOW)) for serial in (UPPER.certificate.serial_number, random_serial()))
    assert verify(TIERS._replace(root_crls=(root_crl(UPPER, revoked=[other]),)), BOTH)
    with pytest.raises(NotTrustedError, match="CA generation 2 of the trust document was revoked by its offline root"):
        verify(TIERS._replace(root_crls=(root_crl(UPPER, revoked=[gone]),)), BOTH)


@pytest.mark.parametrize(
    ("now", "trusted"),
    [((8, 0), True), ((8, 1), True), ((9, -1), True), ((8, -1), False), ((7, 1), False), (None, False)],
)
def test_the_crl_of_an_offline_root_never_goes_back_nor_goes(now: tuple[int, int] | None, *, trusted: bool) -> None:
    before = TIERS._replace(root_crls=(root_crl(LOWER), root_crl(UPPER, 8)))
    crls = (root_crl(LOWER), *([root_crl(UPPER, *now)] if now else []))
    with nullcontext() if trusted else pytest.raises(NotTrustedError, match="went back from number 8, or is missing"):
        verify(TIERS._replace(epoch=2, root_crls=crls), BOTH, previous=before)


def test_the_crl_of_an_offline_root_goes_with_its_ca_and_no_other_does() -> None:
    before = TIERS._replace(root_crls=(root_crl(LOWER), root_crl(UPPER, 8)))
    after = document((UPPER, ACTIVE), epoch=2)
    assert verify(after._replace(root_crls=(root_crl(UPPER, 8),)), (UPPER,), previous=before)
    with pytest.raises(NotTrustedError, match="went back from number 8, or is missing"):
        verify(after, (UPPER,), previous=before)


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

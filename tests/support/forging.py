"""What somebody does who has one permission and no key: forged versions on Secret Manager, SQL on a local store."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from daskpki import secret_names
from daskpki.confidential import Confidential
from daskpki.pki.certificates import der
from daskpki.pki.crl import crl_part, sign_crl
from daskpki.pki.issuer import Issuer, create_root
from daskpki.pki.keys import KeyType, generate_key
from daskpki.pki.profile import make_policy
from daskpki.pki.trust import sign_trust
from daskpki.pki.trust_document import ACTIVE, Anchor, parse_trust
from daskpki.records import (
    CA_CREATED,
    CA_RESERVED,
    PUBLISHED,
    RELEASED,
    CommitSignature,
    Draft,
    Head,
    Record,
    Stamp,
    chain,
)
from daskpki.signed_commits import sign_commit
from daskpki.store.gsm.log_format import LogHead, decode_part, encode_part, place_of
from daskpki.store.port import SecretStore

CLUSTER: Final = "default"
RECORDS: Final = secret_names.records_id(CLUSTER)
TRUST: Final = secret_names.trust_id(CLUSTER)
STAMP: Final = Stamp(1_790_000_000, "forged", "mallory@example.com", "daskpki")
GREATEST: Final = 2**63 - 3


def own_ca(generation: int = 2) -> Issuer:
    """A CA that nobody asked for."""
    policy = make_policy(f"{CLUSTER}.daskpki.internal", [], max_ttl=None)
    key = generate_key(KeyType.P256)
    now = datetime.now(UTC) - timedelta(minutes=5)
    return create_root(CLUSTER, policy, key, generation=generation, serial=77, now=now)


def new_ca(issuer: Issuer) -> list[Draft]:
    """The events of the first attack: a CA whose key lies in the attacker's own project."""
    settings: dict[str, Any] = {"permit_dns": [], "max_ttl": None}
    body = {"key_uri": "gsm://mallory", "trust_domain": f"{CLUSTER}.daskpki.internal", "settings": settings}
    certificate = base64.b64encode(der(issuer.root)).decode()
    return [
        Draft(CA_RESERVED, {"generation": issuer.generation, "sealing": "none"} | body),
        Draft(CA_CREATED, {"generation": issuer.generation, "certificate": certificate}),
    ]


def drafts_of(attack: str, serial: int) -> list[Draft]:
    """The events that each forger of records would have."""
    return {
        "a CA": new_ca(own_ca()),
        "a release": [Draft(RELEASED, {"serial": f"{serial:x}"})],
        "a publication": [Draft(PUBLISHED, {"epoch": GREATEST, "version": 9, "due": 1, "next_update": 2})],
    }[attack]


Signing = Callable[[Sequence[Record], str], tuple[CommitSignature, ...] | None]


def signed_by(issuer: Issuer) -> Signing:
    """Signs a forged commit as the CA would, if it were the CA."""

    def sign(records: Sequence[Record], place: str) -> tuple[CommitSignature, ...]:
        return (sign_commit(CLUSTER, issuer, Head(records[-1].seq, records[-1].hash), place),)

    return sign


def unsigned(_records: Sequence[Record], _place: str) -> tuple[CommitSignature, ...]:
    return ()


def append(secrets: SecretStore, drafts: Sequence[Draft], sign: Signing = unsigned, **changes: Any) -> int:
    """Add a version to the records which fits the chain, as whoever has read the log once can."""
    newest = max(version.number for version in secrets.versions(RECORDS))
    head = decode_part(secrets.latest(RECORDS).data.reveal())
    assert isinstance(head, LogHead)
    records = chain(head.end, drafts, STAMP)
    link = head.link._replace(seq=head.link.seq + 1, prev=newest)
    forged = head._replace(link=link, tail=(*head.tail, *records))._replace(**changes)
    if records:
        records[-1] = records[-1]._replace(signatures=sign(records, place_of(forged)))
        forged = forged._replace(tail=(*head.tail, *records))
    return secrets.add(RECORDS, Confidential(encode_part(forged)))


def own_trust(secrets: SecretStore, issuer: Issuer, *, epoch: int) -> Confidential:
    """A trust document of the forger's own making, after the newest one, signed by `issuer` alone."""
    newest = secrets.latest(TRUST)
    before = parse_trust(newest.data).document
    now = datetime.now(UTC) - timedelta(minutes=1)
    anchor = Anchor(issuer.generation, ACTIVE, der(issuer.root))
    crl = crl_part(issuer.generation, sign_crl(issuer, (), number=epoch, now=now))
    document = before._replace(
        epoch=epoch,
        prev=newest.number,
        operation="forged",
        authorities=(anchor,),
        crls=(crl,),
        successions=(),
        revoked_dropped=(),
    )
    return sign_trust(document, [issuer])

"""What a cluster's certificates look like today, gathered in one pass over the inventory; `report_page.py` draws it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from daskpki.authority.policy import anchor_der, chain_der
from daskpki.authority.publishing import current_trust
from daskpki.authority.session import Session
from daskpki.inventory import EXPIRED, AuthorityRecord, CertificateRecord, Inventory
from daskpki.pki.certificates import lifetime, load_certificate
from daskpki.pki.pem import fingerprint
from daskpki.pki.profile import DAY
from daskpki.pki.trust import TrustDocument
from daskpki.records import ISSUED, REVOKED, REVOKING, Head

SOON: Final = 14 * DAY
"""What ends within this many seconds is said to end soon."""
_LONGEST: Final = 60
_STEPS: Final = (DAY, 7 * DAY, 30 * DAY)


class Bin(NamedTuple):
    """A stretch of the expiry timeline, and how many valid leaves of each role end in it. Seconds since the epoch."""

    begin: int
    end: int
    counts: Counter[str]


class ChainLink(NamedTuple):
    """A CA certificate: which generation it belongs to, in what state, and what it says."""

    generation: int
    status: str
    subject: str
    fingerprint: str
    not_before: int
    not_after: int


class Report(NamedTuple):
    """All that the page shows, as of `now` (seconds since the epoch).

    `holders` are the newest leaves of each name, valid or expired, those that end first at the front; `revoked` are
    those that were revoked, the latest first.
    """

    cluster: str
    trust_domain: str
    now: int
    head: Head
    trust: TrustDocument
    states: Counter[str]
    soon: int
    timeline: Sequence[Bin]
    holders: Sequence[CertificateRecord]
    revoked: Sequence[CertificateRecord]
    reasons: Counter[str]
    chain: Sequence[ChainLink]


def gather(session: Session) -> Report:
    """The report of now; NotFoundError without a CA."""
    trust = current_trust(session)
    view = session.log.inventory()
    now = int(session.now().timestamp())
    states, holders, revoked = _sorted_out(view, now)
    ends = [entry for entry in holders if entry.not_after >= now]
    return Report(
        cluster=session.cluster,
        trust_domain=trust.trust_domain,
        now=now,
        head=view.head,
        trust=trust,
        states=states,
        soon=sum(entry.not_after < now + SOON for entry in ends),
        timeline=timeline(ends, now),
        holders=holders,
        revoked=revoked,
        reasons=Counter(entry.reason or "unspecified" for entry in revoked),
        chain=[link for entry in view.authorities() for link in _links(entry)],
    )


def _sorted_out(view: Inventory, now: int) -> tuple[Counter[str], list[CertificateRecord], list[CertificateRecord]]:
    states: Counter[str] = Counter()
    holders, revoked = [], []
    for entry in view.certificates():
        state = entry.state(now)
        states[state] += 1
        if state in (ISSUED, EXPIRED) and not entry.superseded:
            holders.append(entry)
        elif state in (REVOKED, REVOKING):
            revoked.append(entry)
    holders.sort(key=lambda entry: (entry.not_after, entry.role, entry.name))
    revoked.sort(key=lambda entry: entry.revoked_at or 0, reverse=True)
    return states, holders, revoked


def timeline(entries: Iterable[CertificateRecord], now: int) -> list[Bin]:
    """Days, weeks or months from today (UTC) to the last end, whichever gives at most 60 of them."""
    ends = [(entry.not_after, entry.role) for entry in entries]
    start = now - now % DAY
    reach = max((end for end, _ in ends), default=start) - start
    step = next((step for step in _STEPS if reach // step < _LONGEST), -(-reach // _LONGEST // DAY) * DAY)
    bins = [Bin(start + n * step, start + (n + 1) * step, Counter()) for n in range(reach // step + 1)]
    for end, role in ends:
        bins[(end - start) // step].counts[role] += 1
    return bins


def _links(entry: AuthorityRecord) -> list[ChainLink]:
    """The intermediates of a generation, the one that issues first, and its trust anchor."""
    if entry.certificate is None:
        return []
    links = []
    for der in (*chain_der(entry), anchor_der(entry)):
        certificate = load_certificate(der)
        subject, span = certificate.subject.rfc4514_string(), lifetime(certificate)
        links.append(
            ChainLink(entry.generation, entry.status, subject, fingerprint(der), span.not_before, span.not_after)
        )
    return links

"""What a cluster's certificates look like today, gathered in one pass over the inventory; `report_page.py` draws it.

The report as one HTML page: no script, no font, no request; light or dark as the reader's system is.

All that comes from the log is escaped. Long tables are cut, and say by how much; `daskpki list --csv` has all of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Final, NamedTuple

from daskpki.authority.lookup import STATES, anchor_der, chain_der
from daskpki.authority.publication import current_trust
from daskpki.authority.session import Session
from daskpki.identity import Role
from daskpki.inventory import EXPIRED, AuthorityRecord, CertificateRecord, Inventory
from daskpki.pki.certificates import lifetime, load_certificate
from daskpki.pki.pem import fingerprint
from daskpki.pki.profile import DAY
from daskpki.pki.trust import TrustDocument
from daskpki.quoting import day, rfc3339
from daskpki.records import CA_RETIRED, ISSUED, REVOKED, REVOKING, Head

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


ROWS: Final = 500
"""The most that a table shows."""
_WIDTH: Final = 960
_HEIGHT: Final = 240
_LEFT: Final = 44
_BOTTOM: Final = 34
_TOP: Final = 12
_LABELS: Final = 8


def page(report: Report) -> str:
    """The whole page."""
    template = Template(files("daskpki.authority").joinpath("report.html").read_text("utf-8"))
    crl = max(report.trust.crls, key=lambda part: part.number)
    return template.substitute(
        cluster=escape(report.cluster),
        trust_domain=escape(report.trust_domain),
        now=rfc3339(report.now),
        tiles=_tiles(report),
        timeline=_timeline(report.timeline),
        timeline_table=_table(("from", "to", *Role), map(_bin_row, report.timeline)),
        holders=_table(_HOLDERS, (_holder(entry, report.now) for entry in report.holders[:ROWS])),
        holders_note=_note(len(report.holders)),
        reasons=_reasons(report),
        revoked=_table(_REVOKED, map(_revocation, report.revoked[:ROWS])),
        revoked_note=_note(len(report.revoked)),
        chain=_table(_CHAIN, map(_link, report.chain)),
        crl_number=crl.number,
        crl_next=day(crl.next_update),
        epoch=report.trust.epoch,
        records=f"{report.head.seq:,}",
        head=report.head.hash,
    )


class _Code(str):
    """Text to be set as code, such as a serial."""

    __slots__ = ()


_CA_STATES: Final = {**STATES, CA_RETIRED: "retired"}
_HOLDERS: Final = ("who", "state", "from", "until", "left", "key", "further names", "serial")
_REVOKED: Final = ("who", "revoked", "why", "until", "serial")
_CHAIN: Final = ("generation", "state", "subject", "from", "until", "SHA-256")


def _holder(entry: CertificateRecord, now: int) -> tuple[object, ...]:
    days = (entry.not_after - now) // DAY
    left = f"{days} day{'' if days == 1 else 's'}" if days >= 0 else "over"
    names = ", ".join(san.partition(":")[2] for san in entry.sans)
    who = entry.slug
    span = (day(entry.not_before), day(entry.not_after))
    return who, entry.state(now), *span, left, entry.key_type, names, _Code(f"{entry.serial:x}")


def _revocation(entry: CertificateRecord) -> tuple[object, ...]:
    when = day(entry.revoked_at or entry.reserved_at)
    reason = entry.reason or "unspecified"
    return entry.slug, when, reason, day(entry.not_after), _Code(f"{entry.serial:x}")


def _link(link: ChainLink) -> tuple[object, ...]:
    span = (day(link.not_before), day(link.not_after))
    return link.generation, _CA_STATES.get(link.status, link.status), link.subject, *span, _Code(link.fingerprint)


def _bin_row(entry: Bin) -> tuple[object, ...]:
    return day(entry.begin), day(entry.end - 1), *(entry.counts[role] for role in Role)


def _table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in rows)
    if not body:
        return '<p class="none">None.</p>'
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _cell(value: object) -> str:
    text = escape(str(value))
    if value == EXPIRED:
        return f'<td class="bad">{text}</td>'
    if isinstance(value, _Code):
        return f"<td><code>{text}</code></td>"
    return f'<td class="number">{text}</td>' if isinstance(value, int) else f"<td>{text}</td>"


def _note(count: int) -> str:
    if count <= ROWS:
        return ""
    return f'<p class="note">The first {ROWS:,} of {count:,}; <code>daskpki list --csv</code> has all of them.</p>'


def _tiles(report: Report) -> str:
    expired = sum(entry.not_after < report.now for entry in report.holders)
    unfinished = report.states["reserved"] + report.states["revoking"]
    tiles = (
        ("valid", len(report.holders) - expired, ""),
        ("end within 14 days", report.soon, "warn" if report.soon else ""),
        ("expired, not renewed", expired, "bad" if expired else ""),
        ("revoked", len(report.revoked), ""),
        ("half done", unfinished, "warn" if unfinished else ""),
    )
    return "".join(
        f'<div class="tile {kind}"><strong>{count:,}</strong><span>{name}</span></div>' for name, count, kind in tiles
    )


def _reasons(report: Report) -> str:
    most = max(report.reasons.values(), default=0)
    return "".join(
        f'<div class="bar"><span>{escape(reason)}</span><i style="width:{round(60 * count / most, 1)}%"></i>'
        f"<b>{count:,}</b></div>"
        for reason, count in report.reasons.most_common()
    )


def _timeline(bins: Sequence[Bin]) -> str:
    """Stacked bars: how many valid leaves of each role end when."""
    most = max((entry.counts.total() for entry in bins), default=0)
    if not most:
        return '<p class="none">No certificate is valid.</p>'
    ticks = "".join(_tick(value, _top(most)) for value in _grid(most))
    pitch = (_WIDTH - _LEFT) / len(bins)
    bars = "".join(_bar(entry, _LEFT + n * pitch, min(pitch - 2, 64), _top(most)) for n, entry in enumerate(bins))
    every = -(-len(bins) // _LABELS)
    dates = "".join(
        f'<text class="date" x="{_LEFT + n * pitch:.1f}" y="{_HEIGHT - 12}">{day(bins[n].begin)}</text>'
        for n in range(0, len(bins), every)
    )
    label = f"{sum(entry.counts.total() for entry in bins):,} valid certificates by the time at which they end"
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{ticks}{bars}{dates}</svg>'


def _grid(most: int) -> list[int]:
    return sorted({0, _top(most) // 2, _top(most)})


def _top(most: int) -> int:
    """The smallest of 2, 4, 10, 20, 40, 100, ... that is not below."""
    scale = 1
    while True:
        for factor in (2, 4, 10):
            if factor * scale >= most:
                return factor * scale
        scale *= 10


def _y(value: float, top: int) -> float:
    return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _BOTTOM - _TOP)


def _tick(value: int, top: int) -> str:
    y = _y(value, top)
    line = f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text class="count" x="{_LEFT - 8}" y="{y + 4:.1f}">{value:,}</text>'


def _bar(entry: Bin, x: float, width: float, top: int) -> str:
    shapes, below = "", 0
    for role in Role:
        if count := entry.counts[role]:
            y, height = _y(below + count, top), _y(0, top) - _y(count, top)
            shapes += f'<rect class="{role}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
            below += count
    if not shapes:
        return ""
    told = ", ".join(f"{count:,} {role}" for role in Role if (count := entry.counts[role]))
    return f"<g><title>{day(entry.begin)} to {day(entry.end - 1)}: {told}</title>{shapes}</g>"

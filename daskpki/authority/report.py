"""The report on a cluster's certificates, gathered in one pass over the inventory, and its HTML page.

The page makes no request, and is light or dark as the reader's system is. Everything from the log is escaped. Long
tables are cut, and say by how much; `daskpki list --csv` has all of it.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Final, NamedTuple

from jinja2 import Environment, StrictUndefined, Template

from daskpki.authority.lookup import STATES
from daskpki.authority.publication import current_trust
from daskpki.authority.renewal import is_due
from daskpki.authority.session import Session
from daskpki.identity import Role
from daskpki.inventory import EXPIRED, AuthorityRecord, CertificateRecord, Inventory
from daskpki.pki.certificates import lifetime, load_certificate
from daskpki.pki.pem import fingerprint
from daskpki.pki.profile import DAY
from daskpki.pki.trust_document import TrustDocument
from daskpki.quoting import day, rfc3339
from daskpki.records import CA_RETIRED, ISSUED, RELEASED, REVOKED, REVOKING, Head

_LONGEST: Final = 60
_STEPS: Final = (DAY, 7 * DAY, 30 * DAY)


class Bin(NamedTuple):
    """A span of a timeline (seconds since the epoch), and the number of each sort in it."""

    begin: int
    end: int
    counts: Counter[str]


class Report(NamedTuple):
    """The contents of the page, as of `now` (seconds since the epoch).

    `holders` are the newest leaves of each name, valid or expired, earliest end first; `due` of them are valid and due
    for renewal. `revoked` are the revoked leaves, latest first. `timeline` counts by role the valid leaves that end in
    each span, `history` the leaves that were issued or revoked in it. `chain` has the rows of the table of CAs.
    """

    cluster: str
    trust_domain: str
    now: int
    head: Head
    trust: TrustDocument
    states: Counter[str]
    due: int
    timeline: Sequence[Bin]
    history: Sequence[Bin]
    holders: Sequence[CertificateRecord]
    revoked: Sequence[CertificateRecord]
    reasons: Counter[str]
    chain: Sequence[tuple[object, ...]]


def gather(session: Session) -> Report:
    """Gather the report of this moment; NotFoundError without a CA."""
    trust = current_trust(session)
    view = session.log.inventory()
    now = int(session.now().timestamp())
    states, holders, revoked, events = _sorted_out(view, now)
    ends = [entry for entry in holders if entry.not_after >= now]
    return Report(
        cluster=session.cluster,
        trust_domain=trust.trust_domain,
        now=now,
        head=view.head,
        trust=trust,
        states=states,
        due=sum(is_due(entry, now) for entry in ends),
        timeline=timeline(ends, now),
        history=bins(events, min((moment for moment, _ in events), default=now), now),
        holders=holders,
        revoked=revoked,
        reasons=Counter(entry.reason or "unspecified" for entry in revoked),
        chain=[link for entry in view.authorities() for link in _links(entry)],
    )


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key by which gpu-2 comes before gpu-10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def _sorted_out(
    view: Inventory, now: int
) -> tuple[Counter[str], list[CertificateRecord], list[CertificateRecord], list[tuple[int, str]]]:
    states: Counter[str] = Counter()
    holders, revoked, events = [], [], []
    for entry in view.certificates():
        state = entry.state(now)
        states[state] += 1
        if entry.status in (ISSUED, RELEASED, REVOKING, REVOKED):
            events.append((entry.reserved_at, ISSUED))
        if entry.revoked_at is not None:
            events.append((entry.revoked_at, REVOKED))
        if state in (ISSUED, EXPIRED) and not entry.superseded:
            holders.append(entry)
        elif state in (REVOKED, REVOKING):
            revoked.append(entry)
    holders.sort(key=lambda entry: (entry.not_after, entry.role, natural(entry.name)))
    revoked.sort(key=lambda entry: entry.revoked_at or 0, reverse=True)
    return states, holders, revoked, events


def timeline(entries: Iterable[CertificateRecord], now: int) -> list[Bin]:
    """The ends of these leaves by role, from today (UTC) to the last end."""
    ends = [(entry.not_after, entry.role) for entry in entries]
    return bins(ends, now, max((end for end, _ in ends), default=now))


def bins(moments: Iterable[tuple[int, str]], begin: int, end: int) -> list[Bin]:
    """Count each sort by day, week or month, whichever is the shortest that gives at most 60 bins."""
    start = begin - begin % DAY
    reach = max(end, begin) - start
    step = next((step for step in _STEPS if reach // step < _LONGEST), -(-reach // _LONGEST // DAY) * DAY)
    found = [Bin(start + n * step, start + (n + 1) * step, Counter()) for n in range(reach // step + 1)]
    for moment, sort in moments:
        found[min(max(moment - start, 0) // step, len(found) - 1)].counts[sort] += 1
    return found


def _links(entry: AuthorityRecord) -> Iterator[tuple[object, ...]]:
    """Yield a row for each certificate of a generation: its intermediates from the issuing one up, its trust anchor."""
    for der in (*entry.chain_der, entry.anchor_der) if entry.certificate else ():
        certificate = load_certificate(der)
        subject, span = certificate.subject.rfc4514_string(), map(day, lifetime(certificate))
        yield entry.generation, _CA_STATES.get(entry.status, entry.status), subject, *span, fingerprint(der)


ROWS: Final = 5_000
"""The most that a table shows."""
DUE: Final = "due"
"""A holder's state in the table, beside those of the log: valid, and past two thirds of its life."""
_WIDTH: Final = 960
_HEIGHT: Final = 240
_BOTTOM: Final = 34
_TOP: Final = 12
_LABELS: Final = 8
_DIGIT: Final = 8
"""Width of a digit in the charts, generously."""
_CODES: Final = frozenset({"serial", "SHA-256"})
_CA_STATES: Final = {**STATES, CA_RETIRED: "retired"}


_Bar = tuple[str, list[tuple[str, float, float, float, float]]]
"""One bin's bar: its tooltip, and sort, x, y, width and height of each part."""


class Chart(NamedTuple):
    """Stacked bars: how many of each sort fall into each bin, drawn and in numbers.

    `ticks` are y and text of the lines across it, `dates` x and text of the dates below it.
    """

    label: str
    sorts: tuple[str, ...]
    left: int
    ticks: Sequence[tuple[float, str]]
    bars: Sequence[_Bar]
    dates: Sequence[tuple[float, str]]
    numbers: Sequence[tuple[object, ...]]
    width: int = _WIDTH
    height: int = _HEIGHT


@lru_cache(maxsize=1)
def _template() -> tuple[Template, str, str]:
    own = files(__package__)
    page, style, script = (own.joinpath(f"report.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(page), style, script


def render_page(report: Report) -> str:
    """The whole page."""
    template, style, script = _template()
    crl = max(report.trust.crls, key=lambda part: part.number)
    return template.render(
        report=report,
        style=style,
        script=script,
        policy=f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; base-uri 'none'",
        now=rfc3339(report.now),
        late=sum(entry.not_after < report.now for entry in report.holders),
        ends=_chart(report.timeline, tuple(Role), "{:,} valid certificates by the time at which they expire"),
        history=_chart(report.history, (ISSUED, REVOKED), "{:,} issues and revocations over time"),
        reasons=report.reasons.most_common(),
        codes=_CODES,
        revoked=[_revocation(entry) for entry in report.revoked[:ROWS]],
        chain=report.chain,
        crl=crl,
        crl_next=day(crl.next_update),
        roles=list(Role),
        states=sorted({_state(entry, report.now) for entry in report.holders}),
        holders=[_holder(entry, report.now) for entry in report.holders[:ROWS]],
    )


def _digest(text: str) -> str:
    """The source expression by which a Content Security Policy allows this text alone."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _state(entry: CertificateRecord, now: int) -> str:
    state = entry.state(now)
    return DUE if state == ISSUED and is_due(entry, now) else state


def _holder(entry: CertificateRecord, now: int) -> tuple[object, ...]:
    state = _state(entry, now)
    left = 0 if state == EXPIRED else (entry.not_after - now) // DAY
    names = ", ".join(san.partition(":")[2] for san in entry.sans)
    span = (day(entry.not_before), day(entry.not_after))
    return entry.role, entry.name, state, *span, left, entry.key_type, names, f"{entry.serial:x}"


def _revocation(entry: CertificateRecord) -> tuple[object, ...]:
    when, reason = day(entry.revoked_at or entry.reserved_at), entry.reason or "unspecified"
    return f"{entry.role}/{entry.name}", when, reason, day(entry.not_after), f"{entry.serial:x}"


# --- charts


def _chart(bins: Sequence[Bin], sorts: tuple[str, ...], label: str) -> Chart | None:
    """The chart of these bins; None when there is nothing in them."""
    most = max((entry.counts.total() for entry in bins), default=0)
    if not most:
        return None
    top = _round_up(most)
    left = _DIGIT * len(f"{top:,}") + 16
    pitch = (_WIDTH - left) / len(bins)
    every = -(-len(bins) // _LABELS)
    return Chart(
        label=label.format(sum(entry.counts.total() for entry in bins)),
        sorts=sorts,
        left=left,
        ticks=[(_y(value, top), f"{value:,}") for value in sorted({0, top // 2, top})],
        bars=[_bar(one, sorts, left + n * pitch, min(pitch - 2, 64), top) for n, one in enumerate(bins) if one.counts],
        dates=[(round(left + n * pitch, 1), day(bins[n].begin)) for n in range(0, len(bins), every)],
        numbers=[(day(entry.begin), day(entry.end - 1), *(entry.counts[sort] for sort in sorts)) for entry in bins],
    )


def _round_up(most: int) -> int:
    """The smallest of 2, 4, 10, 20, 40, 100, ... that is at least `most`."""
    scale: int = 10 ** (len(str(max(most - 1, 1))) - 1)
    return next(factor * scale for factor in (2, 4, 10) if factor * scale >= most)


def _y(value: float, top: int) -> float:
    return round(_HEIGHT - _BOTTOM - value / top * (_HEIGHT - _BOTTOM - _TOP), 1)


def _bar(entry: Bin, sorts: tuple[str, ...], x: float, width: float, top: int) -> _Bar:
    parts, below = [], 0
    for sort in sorts:
        if count := entry.counts[sort]:
            y = _y(below + count, top)
            parts.append((sort, round(x, 1), y, round(width, 1), round(_y(below, top) - y, 1)))
            below += count
    told = ", ".join(f"{count:,} {sort}" for sort in sorts if (count := entry.counts[sort]))
    return f"{day(entry.begin)} to {day(entry.end - 1)}: {told}", parts

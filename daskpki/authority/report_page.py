"""The report as one HTML page: no script, no font, no request; light or dark as the reader's system is.

All that comes from the log is escaped. Long tables are cut, and say by how much; `daskpki list --csv` has all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from string import Template
from typing import Final

from daskpki.authority.lookup import rfc3339
from daskpki.authority.policy import STATES
from daskpki.authority.report import Bin, ChainLink, Report
from daskpki.identity import Role
from daskpki.inventory import EXPIRED, CertificateRecord
from daskpki.pki.profile import DAY
from daskpki.records import CA_RETIRED

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
        crl_next=_day(crl.next_update),
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
    who = f"{entry.role}/{entry.name}"
    span = (_day(entry.not_before), _day(entry.not_after))
    return who, entry.state(now), *span, left, entry.key_type, names, _Code(f"{entry.serial:x}")


def _revocation(entry: CertificateRecord) -> tuple[object, ...]:
    when = _day(entry.revoked_at or entry.reserved_at)
    reason = entry.reason or "unspecified"
    return f"{entry.role}/{entry.name}", when, reason, _day(entry.not_after), _Code(f"{entry.serial:x}")


def _link(link: ChainLink) -> tuple[object, ...]:
    span = (_day(link.not_before), _day(link.not_after))
    return link.generation, _CA_STATES.get(link.status, link.status), link.subject, *span, _Code(link.fingerprint)


def _bin_row(entry: Bin) -> tuple[object, ...]:
    return _day(entry.begin), _day(entry.end - 1), *(entry.counts[role] for role in Role)


def _day(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"


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
        f'<text class="date" x="{_LEFT + n * pitch:.1f}" y="{_HEIGHT - 12}">{_day(bins[n].begin)}</text>'
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
    return f"<g><title>{_day(entry.begin)} to {_day(entry.end - 1)}: {told}</title>{shapes}</g>"

"""The report page: self-contained, complete, and nothing in it that a name could break."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskpki.authority.report import ROWS, Bin, ChainLink, Report, page, timeline
from daskpki.inventory import CertificateRecord
from daskpki.pki.profile import DAY
from daskpki.pki.trust import CrlPart, TrustDocument
from daskpki.records import EMPTY, ISSUED
from tests.support.running import Run

NOW = 1_800_000_000
VOID = {"meta"}


class Reader(HTMLParser):
    """What a browser would see: the text, and any attribute that could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [name for name, _ in attrs if name in ("src", "href", "onload", "onclick")]
        self.loads += [tag] if tag in ("script", "link", "iframe", "img", "object") else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    assert reader.loads == []
    assert "url(" not in html
    assert "@import" not in html
    return reader


def leaf(serial: int, *, end: int = NOW + DAY, role: str = "worker", name: str = "w") -> CertificateRecord:
    return CertificateRecord(serial, role, name, 1, NOW - DAY, end, NOW - DAY, "op", ISSUED)


def report_of(holders: list[CertificateRecord], **changes: Any) -> Report:
    crl = CrlPart(1, 7, NOW, NOW + 35 * DAY, b"")
    trust = TrustDocument(1, 1, "c", "c.example", 3, 2, "op", NOW, (), (crl,), (0, ""), ())
    report = Report(
        "c", "c.example", NOW, EMPTY, trust, Counter(), 0, timeline(holders, NOW), holders, (), Counter(), ()
    )
    return report._replace(**changes)


def test_the_page_says_who_holds_what_and_why_what_was_revoked(run: Run, tmp_path: Path) -> None:
    run("init-ca", "--with", "scheduler,worker,client/alice,client/bob", "--permit-dns", "example.org")
    run("issue", "worker", "--name", "gpu", "--dns", "gpu.example.org")
    run("revoke", "client/bob", "--reason", "keyCompromise")
    file = tmp_path / "report.html"
    told = run("report", "--html", str(file), "--json").json()
    assert told["states"] == {"issued": 4, "revoked": 1}
    text = read(file.read_text()).text
    for entry in run("list", "--json").json():
        assert f"{entry['role']}/{entry['name']}" in text
        assert entry["serial"] in text
    for said in ("gpu.example.org", "keyCompromise", "active", "CRL number 2", "4 valid certificates"):
        assert said in text or said in file.read_text()
    before = file.read_bytes()
    assert "--force" in run("report", "--html", str(file), code=1).err
    assert file.read_bytes() == before
    run("report", "--html", str(file), "--force")
    run("--cluster", "absent", "report", "--html", str(tmp_path / "x"), code=4)


def test_nothing_that_was_recorded_becomes_markup() -> None:
    hostile = "<script>alert(1)</script>&\"'"
    entry = leaf(1, name=hostile)._replace(sans=(f"dns:{hostile}",), key_type=hostile, reason=hostile)
    link = ChainLink(1, hostile, hostile, hostile, NOW, NOW)
    html = page(report_of([entry], cluster=hostile, revoked=[entry], reasons=Counter([hostile]), chain=[link]))
    assert hostile not in html
    assert read(html).text.count(hostile) >= 6


def test_a_cluster_without_leaves_has_a_page_too() -> None:
    assert "No certificate is valid." in read(page(report_of([]))).text


def test_long_tables_are_cut_and_say_so() -> None:
    text = read(page(report_of([leaf(n, name=f"w-{n}") for n in range(ROWS + 1)]))).text
    assert f"The first {ROWS} of {ROWS + 1}" in text
    assert f"w-{ROWS - 1}" in text
    assert f"w-{ROWS} " not in text
    assert "The first" not in read(page(report_of([leaf(n) for n in range(ROWS)]))).text


@given(st.lists(st.integers(0, 4000 * DAY), max_size=60))
def test_each_end_is_counted_once_in_its_stretch(ends: list[int]) -> None:
    bins = timeline([leaf(n, end=NOW + end) for n, end in enumerate(ends)], NOW)
    assert sum(entry.counts.total() for entry in bins) == len(ends)
    assert 1 <= len(bins) <= 61
    for entry in bins:
        assert entry.counts.total() == sum(entry.begin <= NOW + end < entry.end for end in ends)
    read(page(report_of([leaf(n, end=NOW + end) for n, end in enumerate(ends)])))


@pytest.mark.parametrize(("days", "step"), [(0, 1), (59, 1), (61, 7), (400, 7), (500, 30)])
def test_the_timeline_has_days_weeks_or_months(days: int, step: int) -> None:
    first: Bin = timeline([leaf(1, end=NOW + days * DAY)], NOW)[0]
    assert first.end - first.begin == step * DAY

"""The report page: self-contained, complete, and nothing in it that a name could break."""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskpki.authority.report import ROWS, Bin, Report, bins, natural, render_page, timeline
from daskpki.inventory import CertificateRecord
from daskpki.pki.profile import DAY
from daskpki.pki.trust_document import CrlPart, TrustDocument
from daskpki.records import EMPTY, ISSUED, REVOKED
from tests.support.browser import browser
from tests.support.running import Run

NOW = 1_800_000_000
VOID = {"meta", "input"}


class Reader(HTMLParser):
    """What a browser would see: the text, and any attribute that could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.scripts = 0
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [name for name, _ in attrs if name in ("src", "href", "onload", "onclick")]
        self.loads += [tag] if tag in ("link", "iframe", "img", "object") else []
        self.scripts += tag == "script"
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
    assert "fetch" not in html
    assert reader.scripts == 1
    return reader


def leaf(serial: int, *, end: int = NOW + DAY, role: str = "worker", name: str = "w") -> CertificateRecord:
    return CertificateRecord(serial, role, name, 1, NOW - DAY, end, NOW - DAY, "op", ISSUED)


def report_of(holders: list[CertificateRecord], **changes: Any) -> Report:
    crl = CrlPart(1, 7, NOW, NOW + 35 * DAY, b"")
    trust = TrustDocument(1, 1, "c", "c.example", 3, 2, "op", NOW, (), (crl,), (0, ""), ())
    ends = timeline(holders, NOW)
    report = Report("c", "c.example", NOW, EMPTY, trust, Counter(), 0, ends, (), holders, (), Counter(), ())
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
        assert entry["name"] in text
        assert entry["serial"] in text
    for said in (
        "gpu.example.org",
        "keyCompromise",
        "active",
        "CRL number 2",
        "4 valid certificates",
        "6 issues and revocations",
    ):
        assert said in text or said in file.read_text()
    before = file.read_bytes()
    assert "--force" in run("report", "--html", str(file), code=1).err
    assert file.read_bytes() == before
    run("report", "--html", str(file), "--force")
    run("--cluster", "absent", "report", "--html", str(tmp_path / "x"), code=4)


def test_nothing_that_was_recorded_becomes_markup() -> None:
    hostile = "<script>alert(1)</script>&\"'"
    entry = leaf(1, name=hostile)._replace(sans=(f"dns:{hostile}",), key_type=hostile, reason=hostile)
    link = (1, hostile, hostile, "2026-11-30", "2026-12-01", hostile)
    html = render_page(report_of([entry], cluster=hostile, revoked=[entry], reasons=Counter([hostile]), chain=[link]))
    assert hostile not in html
    assert read(html).text.count(hostile) >= 6


def test_a_cluster_without_leaves_has_a_page_too() -> None:
    assert "No certificate is valid." in read(render_page(report_of([]))).text


def test_long_tables_are_cut_and_say_so() -> None:
    text = read(render_page(report_of([leaf(n, name=f"w-{n}") for n in range(ROWS + 1)]))).text
    assert f"The first {ROWS:,} of {ROWS + 1:,}" in text
    assert f"w-{ROWS - 1}" in text
    assert f"w-{ROWS} " not in text
    assert "The first" not in read(render_page(report_of([leaf(n) for n in range(ROWS)]))).text


def test_labels_have_room_at_any_height() -> None:
    (widest,) = re.findall(
        r'<text class="count" x="([0-9]+)"[^>]*>10,000<', render_page(report_of([leaf(n) for n in range(5_000)]))
    )
    assert int(widest) >= 6 * 8  # the text ends there, and a digit is less than 8 wide


def test_gpu_2_comes_before_gpu_10() -> None:
    assert sorted(["gpu-10", "gpu-2", "gpu", "7", "a1b"], key=natural) == ["7", "a1b", "gpu", "gpu-2", "gpu-10"]


def test_what_is_due_stands_apart_from_what_is_late() -> None:
    due, late, valid = (
        leaf(1, end=NOW + 3600, name="due"),
        leaf(2, end=NOW - 1, name="late"),
        leaf(3, end=NOW + 30 * DAY),
    )
    html = render_page(report_of([late, due, valid], due=1))
    assert re.findall(r"<strong>([0-9]+)</strong><span>([a-z ,]+)</span>", html)[:3] == [
        ("2", "valid"),
        ("1", "due for renewal"),
        ("1", "expired, not renewed"),
    ]


SHOWN = "[...document.querySelectorAll('#holders tbody tr:not([hidden])')].map(row => row.cells[1].textContent).join()"
FILTER = """(() => {
    const field = document.querySelector('.filters').elements[%r];
    field.value = %r;
    field.dispatchEvent(new Event('input', { bubbles: true }));
    return document.querySelector('.filters output').value;
})()"""


def test_a_browser_searches_filters_and_sorts_by_itself(tmp_path: Path) -> None:
    people = [leaf(10, role="client", name="alice"), leaf(11, role="client", name="bob", end=NOW - 1)]
    workers = [leaf(n, name=f"gpu-{n}", end=NOW + (20 - n) * DAY) for n in (2, 10, 1)]
    file = tmp_path / "report.html"
    file.write_text(
        render_page(report_of([*people, *workers], history=bins([(NOW - DAY, ISSUED), (NOW, REVOKED)], NOW - DAY, NOW)))
    )
    (tmp_path / "home").mkdir()
    pictures = os.environ.get("DASKPKI_PICTURES")

    async def scenario() -> None:
        async with browser(tmp_path / "home") as tab:
            assert await tab.open(file.as_uri()) is None
            await tab.until("document.querySelector('.filters:not([hidden])')")  # the policy let the script through
            assert await tab.evaluate(SHOWN) == "alice,bob,gpu-2,gpu-10,gpu-1"
            assert await tab.evaluate(FILTER % ("search", "GPU-1")) == "2 of 5"
            assert await tab.evaluate(SHOWN) == "gpu-10,gpu-1"
            assert await tab.evaluate(FILTER % ("search", "")) == "5 of 5"
            assert await tab.evaluate(FILTER % ("role", "client")) == "2 of 5"
            assert await tab.evaluate(FILTER % ("state", "expired")) == "1 of 5"
            assert await tab.evaluate(SHOWN) == "bob"
            await tab.evaluate(FILTER % ("state", ""))
            await tab.evaluate(FILTER % ("role", ""))
            heading = "document.querySelectorAll('#holders th button')[1].click()"
            await tab.evaluate(heading)
            assert await tab.evaluate(SHOWN) == "alice,bob,gpu-1,gpu-2,gpu-10"
            await tab.evaluate(heading)
            assert await tab.evaluate(SHOWN) == "gpu-10,gpu-2,gpu-1,bob,alice"
            assert await tab.evaluate("performance.getEntriesByType('resource').length") == 0
            assert await tab.evaluate("getComputedStyle(document.querySelector('.tile')).borderRadius") == "10px"
            for width, scheme in ((1400, "light"), (1400, "dark"), (390, "light")) if pictures else ():
                picture = await tab.picture(width, 1400, scheme)
                await asyncio.to_thread(Path(str(pictures), f"report-{width}-{scheme}.png").write_bytes, picture)

    asyncio.run(scenario())


@given(st.lists(st.integers(0, 4000 * DAY), max_size=60))
def test_each_end_is_counted_once_in_its_stretch(ends: list[int]) -> None:
    found = timeline([leaf(n, end=NOW + end) for n, end in enumerate(ends)], NOW)
    assert sum(entry.counts.total() for entry in found) == len(ends)
    assert 1 <= len(found) <= 61
    for entry in found:
        assert entry.counts.total() == sum(entry.begin <= NOW + end < entry.end for end in ends)
    read(render_page(report_of([leaf(n, end=NOW + end) for n, end in enumerate(ends)])))


@pytest.mark.parametrize(("days", "step"), [(0, 1), (59, 1), (61, 7), (400, 7), (500, 30)])
def test_the_timeline_has_days_weeks_or_months(days: int, step: int) -> None:
    first: Bin = timeline([leaf(1, end=NOW + days * DAY)], NOW)[0]
    assert first.end - first.begin == step * DAY

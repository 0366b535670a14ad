"""Every promise has its row in docs/evidence.md, and every test that is named there exists."""

from __future__ import annotations

import re

import pytest

from tests.support.paths import DOCS, ROOT

EVIDENCE = (DOCS / "evidence.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[^`\s]+)`", EVIDENCE)))


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its first two lines."""
    lines = text.partition(f"\n## {heading}\n")[2].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table[2:]


def security_promises() -> list[str]:
    """What SECURITY.md lists as above all."""
    text = " ".join((ROOT / "SECURITY.md").read_text().split())
    return [part.strip() for part in text.partition("above all ")[2].partition(". ")[0].split(";")]


PROMISED = {
    "README": [row[0] for row in rows((ROOT / "README.md").read_text(), "What it replaces")],
    "Threat model": [
        row[0]
        for row in rows((DOCS / "explanation" / "threat-model.md").read_text(), "Who attacks, and what stops them")
    ],
    "SECURITY.md": security_promises(),
}


TEST = re.compile(r"`tests/[^`]*test_[^`]*`")


def unshown(promised: list[str], evidence: list[list[str]]) -> list[str]:
    """Promises without a row, and rows that show no test or do not say what would make it fail."""
    shown = {row[0]: row[1:] for row in evidence}
    missing = [entry for entry in promised if entry and entry not in shown]
    empty = [entry for entry, (test, control) in shown.items() if not TEST.search(test) or not control]
    return missing + empty


def exists(named: str) -> bool:
    """Whether a file, or a test in it, is there."""
    path, _, test = named.partition("::")
    if not (ROOT / path).exists():
        return False
    return not test or bool(re.search(rf"^(async )?def {test}\(", (ROOT / path).read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PROMISED)
def test_every_promise_has_its_row(page: str) -> None:
    assert len(list(filter(None, PROMISED[page]))) >= 4
    assert unshown(PROMISED[page], rows(EVIDENCE, page)) == []


@pytest.mark.parametrize("page", PROMISED)
def test_a_promise_without_evidence_is_noticed(page: str) -> None:
    first, *others = rows(EVIDENCE, page)
    assert unshown([*PROMISED[page], "it also makes coffee"], [first, *others]) == ["it also makes coffee"]
    assert unshown([first[0]], others) == [first[0]]
    for bare in ([first[0], "trust us", first[2]], [first[0], first[1], ""]):
        assert unshown([first[0]], [bare, *others]) == [first[0]]


def test_every_fault_names_a_test() -> None:
    assert [row for row in rows(EVIDENCE, "Faults that were found") if len(row) != 3 or not TEST.search(row[2])] == []


@pytest.mark.parametrize("named", NAMED)
def test_every_test_that_is_named_exists(named: str) -> None:
    assert exists(named)


@pytest.mark.parametrize("named", [f"{NAMED[0].partition('::')[0]}::test_of_nothing", "tests/core/test_nothing.py"])
def test_a_test_that_does_not_exist_is_noticed(named: str) -> None:
    assert not exists(named)


def test_every_fault_has_a_severity() -> None:
    assert {row[0] for row in rows(EVIDENCE, "Faults that were found")} <= {"critical", "high", "medium", "low"}

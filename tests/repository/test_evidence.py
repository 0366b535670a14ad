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


@pytest.mark.parametrize("page", PROMISED)
def test_every_promise_has_its_row(page: str) -> None:
    promised = [entry for entry in PROMISED[page] if entry]
    assert len(promised) >= 4
    shown = [row[0] for row in rows(EVIDENCE, page)]
    assert [entry for entry in promised if entry not in shown] == []


@pytest.mark.parametrize("heading", [*PROMISED, "Faults that were found"])
def test_every_row_names_a_test(heading: str) -> None:
    width = {len(row) for row in rows(EVIDENCE, heading)}
    assert width == {3}
    assert all("`tests/" in row[1] or "`tests/" in row[2] for row in rows(EVIDENCE, heading))


@pytest.mark.parametrize("named", NAMED)
def test_every_test_that_is_named_exists(named: str) -> None:
    path, _, test = named.partition("::")
    assert (ROOT / path).exists()
    assert not test or re.search(rf"^(async )?def {test}\(", (ROOT / path).read_text(), re.MULTILINE)


def test_every_fault_has_a_severity() -> None:
    assert {row[0] for row in rows(EVIDENCE, "Faults that were found")} <= {"critical", "high", "medium", "low"}

"""The places at which a newcomer is told to start are there, and are what is said of them."""

from __future__ import annotations

import re

import pytest

from tests.support.paths import ROOT, tracked

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
JOURNEYS = re.findall(r"^\| (.+) \| (`daskpki/.+`) \|$", PAGE, re.MULTILINE)


def test_there_are_five_journeys() -> None:
    assert len(JOURNEYS) == 5


@pytest.mark.parametrize(("journey", "files"), JOURNEYS)
def test_every_file_of_a_journey_exists_once(journey: str, files: str) -> None:
    named = re.findall(r"`([^`]+)`", files)
    assert 5 <= len(named) == len(set(named)), journey
    assert not [name for name in named if not (ROOT / name).is_file()]


def test_every_long_test_is_in_the_table() -> None:
    """Those that `--long` makes longer, or runs at all, by the folder that is given to it."""
    switches = (
        r"^from .* import .*\b(by_day|sample|NIGHTLY|ONE_PLACE)\b",
        r"^@pytest\.mark\.long$",
        r"""environ\.get\("DASKPKI_NIGHTLY"\)""",
    )
    marked = re.compile("|".join(switches), re.MULTILINE)
    inner = [path for path in tracked("tests/*.py") if len(path.parts) > 2 and path.parts[1] != "support"]
    found = {path.parts[1] for path in inner if marked.search((ROOT / path).read_text())}
    listed = {
        folder for row in re.findall(r"^\| `scripts/test --long (.+)` \|", PAGE, re.MULTILINE) for folder in row.split()
    }
    assert found <= {folder.removeprefix("tests/") for folder in listed}
    assert len(found) >= 7

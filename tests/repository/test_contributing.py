"""The places at which a newcomer is told to start are there, and are what is said of them."""

from __future__ import annotations

import re

import pytest

from tests.support.paths import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
JOURNEYS = re.findall(r"^\| (.+) \| (`daskpki/.+`) \|$", PAGE, re.MULTILINE)


def test_there_are_four_journeys() -> None:
    assert len(JOURNEYS) == 4


@pytest.mark.parametrize(("journey", "files"), JOURNEYS)
def test_every_file_of_a_journey_exists_once(journey: str, files: str) -> None:
    named = re.findall(r"`([^`]+)`", files)
    assert 6 <= len(named) == len(set(named)), journey
    assert not [name for name in named if not (ROOT / name).is_file()]

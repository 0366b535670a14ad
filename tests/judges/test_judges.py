"""Eight validators that others wrote accept whatever is issued, for its purpose, and refuse what has to be refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.judges.cases import cases
from tests.judges.judging import JUDGES
from tests.support.nightly import NIGHTLY

PRESENT = [name for name, judge in JUDGES.items() if NIGHTLY or not judge.in_long_runs]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PRESENT)
def test_a_judge_accepts_and_refuses(name: str, tmp_path: Path) -> None:
    judge = JUDGES[name]
    known = [case for case in cases() if judge.knows(case)]
    verdicts = judge.ask(known, tmp_path)
    wrong = {}
    for case in known:
        said, expected = verdicts[case.name], "" if judge.accepts(case) else judge.words[case.verdict]
        if not (re.search(expected, said) if expected else said == ""):
            wrong[case.name] = said
    assert wrong == {}


def test_each_judge_knows_most_of_it() -> None:
    for judge in JUDGES.values():
        assert sum(map(judge.knows, cases())) >= len(cases()) * 0.7

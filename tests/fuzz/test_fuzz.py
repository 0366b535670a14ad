"""No bytes make a parser raise anything but its own refusals: a corpus, and what a fuzzer tries."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import HERE, TARGETS, Target, inputs
from tests.support.nightly import by_day
from tests.support.paths import ROOT

RUNS = 20_000
QUICK = [name for name in TARGETS if name not in {"backup", "bundle", "sealed"}]
SECONDS_EACH = 300


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_raises_refusals_only(name: str) -> None:
    for data in inputs(name):
        TARGETS[name].run(data)


def test_every_corpus_belongs_to_a_target() -> None:
    assert {path.name for path in (HERE / "corpus").iterdir()} <= set(TARGETS)


def test_what_is_no_refusal_is_noticed() -> None:
    with pytest.raises(KeyError):
        Target(lambda data: {b"": 0}[data], []).run(b"x")


@pytest.mark.timeout(SECONDS_EACH * 3)
@pytest.mark.parametrize("names", by_day([QUICK], night=[[name] for name in TARGETS]))
def test_a_fuzzer_finds_nothing(names: list[str], tmp_path: Path) -> None:
    """All parsers by turns, for a number of inputs; in the long run each for some minutes."""
    limit = by_day(f"-runs={RUNS}", night=f"-max_total_time={SECONDS_EACH}")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DASKPKI_FUZZ_KEEP": str(tmp_path / "corpus")}
    command = [sys.executable, "-m", "tests.fuzz", *names, limit, "-seed=1", *by_day(["-max_len=4096"], night=[])]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    tried = re.search(r"Done (\d+) runs", done.stderr)
    assert tried is not None
    assert int(tried[1]) > by_day(RUNS - 1, night=0)

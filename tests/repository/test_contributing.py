"""The places at which a newcomer is told to start are there, and are what is said of them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.entered import entered
from tests.support.paths import BIN, ROOT, tracked

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
JOURNEYS = re.findall(r"^\| (.+) \| (`daskpki/.+`) \|$", PAGE, re.MULTILINE)


def test_there_are_five_journeys() -> None:
    assert len(JOURNEYS) == 5


@pytest.mark.parametrize(("journey", "files"), JOURNEYS)
def test_every_file_of_a_journey_exists_once(journey: str, files: str) -> None:
    named = re.findall(r"`([^`]+)`", files)
    assert 5 <= len(named) == len(set(named)), journey
    assert not [name for name in named if not (ROOT / name).is_file()]


AFTER_EXEC = ["boot/preload.py", "cluster/preload.py"]
"""Loaded by Dask, which the entrypoint has become by then."""


def listed(beginning: str) -> list[str]:
    """The files of the journey whose name begins so, below `daskpki/`."""
    (row,) = (files for journey, files in JOURNEYS if journey.startswith(beginning))
    return re.findall(r"`daskpki/([^`]+)`", row)


def test_the_journeys_through_a_command_are_in_the_order_of_first_entry(tmp_path: Path) -> None:
    store = ("--store", f"local:{tmp_path / 'store'}", "--key-file", str(tmp_path / "key"), "--quiet")
    subprocess.run([str(BIN / "daskpki"), *store, "init-ca"], capture_output=True, check=True)
    issuing = listed("`daskpki issue worker`")
    assert [file for file in entered("daskpki", *store, "issue", "worker") if file in issuing] == issuing
    exported = str(tmp_path / "made")
    subprocess.run(
        [str(BIN / "daskpki"), *store, "export", "worker", "--out", exported], capture_output=True, check=True
    )
    worker = ("worker", "--credential-dir", exported, "--scheduler", "tls://127.0.0.1:8786")
    booting = listed("a worker boots")
    assert booting[-len(AFTER_EXEC) :] == AFTER_EXEC
    booted = [file for file in entered("daskpki-entrypoint", *worker) if file in booting]
    assert booted == booting[: -len(AFTER_EXEC)]


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

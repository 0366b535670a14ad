"""How many files a reader of `daskpki issue` passes through (docs/adr/0017)."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.entered import entered
from tests.support.paths import BIN


def test_issue_enters_few_files(tmp_path: Path) -> None:
    store = ("--store", f"local:{tmp_path / 'store'}", "--key-file", str(tmp_path / "key"), "--quiet")
    made = entered("daskpki", *store, "init-ca")
    assert "authority/creation.py" in made
    issued = entered("daskpki", *store, "issue", "client/alice")
    assert {"cli/issue.py", "authority/issuance.py", "pki/profile.py", "store/local/record_log.py"} <= set(issued)
    assert "authority/creation.py" not in issued
    assert len(issued) <= 40


def test_the_entrypoint_is_counted_until_it_would_become_dask(tmp_path: Path) -> None:
    store = ("--store", f"local:{tmp_path / 'store'}", "--key-file", str(tmp_path / "key"), "--quiet")
    for arguments in (["init-ca", "--with", "scheduler"], ["export", "scheduler", "--out", str(tmp_path / "made")]):
        subprocess.run([str(BIN / "daskpki"), *store, *arguments], capture_output=True, check=True)
    booted = entered("daskpki-entrypoint", "scheduler", "--credential-dir", str(tmp_path / "made"))
    assert {"boot/verify.py", "boot/launch.py"} <= set(booted)
    assert not {name for name in booted if name.startswith("cluster/")}

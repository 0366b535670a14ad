"""`daskpki rotate-ca` on both stores and transports."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.running import Run


def test_a_rollover_step_by_step(run: Run, tmp_path: Path) -> None:
    run("init-ca", "--with", "scheduler,worker,client/alice")
    run("export", "worker", "--out", str(tmp_path / "before"))
    started = run("rotate-ca", "start", "--json").json()
    assert [(entry["generation"], entry["state"]) for entry in started["authorities"]] == [(1, "active"), (2, "next")]
    assert "rotate-ca promote" in started["next"]
    run("verify", str(tmp_path / "before" / "cert.pem"))
    promoted = run("rotate-ca", "promote", "--json").json()
    assert promoted["reissued"] == 3
    assert promoted["issuing"] == 2
    assert run("rotate-ca", "promote", "--json").json()["reissued"] == 0
    run("verify", str(tmp_path / "before" / "cert.pem"))
    run("export", "worker", "--out", str(tmp_path / "during"))
    assert "dropped CA 1" in run("rotate-ca", "finish").out
    assert "nothing to finish" in run("rotate-ca", "finish").out
    run("verify", str(tmp_path / "before" / "cert.pem"), code=3)
    run("verify", str(tmp_path / "during" / "cert.pem"))
    assert (tmp_path / "during" / "ca.pem").read_text().count("BEGIN CERTIFICATE") == 2
    final = run("rotate-ca", "status", "--json").json()
    assert (final["phase"], final["published"], final["next"]) == ("none", True, None)


def test_aborting_before_and_after_promote(run: Run) -> None:
    run("init-ca", "--with", "worker")
    run("rotate-ca", "start")
    assert run("rotate-ca", "abort", "--json").json()["phase"] == "none"
    assert "nothing to abort" in run("rotate-ca", "abort").out
    run("rotate-ca", "start")
    run("rotate-ca", "promote")
    back = run("rotate-ca", "abort", "--json").json()
    assert (back["issuing"], back["reissued"], back["phase"]) == (1, 1, "retiring")
    assert run("rotate-ca", "abort", "--json").json()["issuing"] == 1
    assert "dropped CA 3" in run("rotate-ca", "finish").out
    assert run("show", "worker", "--json").json()["issuer"] == 1


@pytest.mark.parametrize("arguments", [("--emergency",), ("start", "--emergency")])
def test_an_emergency_says_how_long_it_took(local: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    local("init-ca", "--with", "scheduler,worker,client/alice")
    local("export", "worker", "--out", str(tmp_path / "before"))
    done = local("rotate-ca", *arguments, "--json").json()
    assert 0 < done["cutAfterSeconds"] <= done["seconds"] < 30
    assert done["reissued"] == 3
    assert [entry["generation"] for entry in done["authorities"]] == [2]
    local("verify", str(tmp_path / "before" / "cert.pem"), code=3)


def test_steps_are_refused_with_the_way_out(local: Run) -> None:
    assert "daskpki init-ca" in local("rotate-ca", "status", code=4).err
    local("init-ca", "--with", "worker")
    assert "start, status, promote" in local("rotate-ca", code=2).err
    assert "rotate-ca start" in local("rotate-ca", "promote", code=1).err
    local("rotate-ca", "start")
    assert "promote, or abort" in local("rotate-ca", "finish", code=1).err
    assert "Ed25519" in local("rotate-ca", "start", "--key-type", "ed25519", code=3).err
    assert "--offline-root FILE" in local("rotate-ca", "start", "--root-passphrase-file", "/x", code=2).err

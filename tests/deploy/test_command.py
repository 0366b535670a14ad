"""`daskpki deploy gcp` as it is run, as far as that takes no gcloud; the rest is in `test_gcloud.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shlex import quote

import pytest

from daskpki.deploy.export import script, user_data
from daskpki.deploy.settings import Deployment
from daskpki.settings import parse_store_url, require_gsm
from tests.support.deployments import IMAGE, STORE

Run = Callable[..., subprocess.CompletedProcess[str]]
PLACE = ("--zone=europe-west1-b", f"--image={IMAGE}")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """With a gcloud that knows of nothing and makes nothing: every list is empty, and every change fails."""
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(
        '#!/bin/sh\ncase "$*" in *--format=json*) echo "[]";; *) echo "ERROR: no $2" >&2; exit 1;; esac\n'
    )
    gcloud.chmod(0o700)

    def deploy(
        *arguments: str, store: str = STORE, path: str = f"{tmp_path}:/usr/bin:/bin"
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "daskpki", f"--store={store}", "--cluster=lab", "deploy", "gcp", *arguments]
        return subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)

    return deploy


@pytest.mark.parametrize("form", ["script", "cloud-init"])
def test_an_export_reads_nothing_and_needs_no_gcloud(run: Run, form: str) -> None:
    done = run(*PLACE, f"--export={form}", path="/nonexistent")
    wanted = Deployment(store=require_gsm(parse_store_url(STORE)), cluster="lab", zone="europe-west1-b", image=IMAGE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (script(wanted) if form == "script" else user_data(wanted))
    document = json.loads(run(*PLACE, f"--export={form}", "--json", path="/nonexistent").stdout)
    assert document == {"format": form, "text": done.stdout}


def test_terraform_is_written_to_a_directory_and_edits_are_kept(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "terraform"
    done = run(*PLACE, "--export=terraform", f"--out={out}", path="/nonexistent")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.split()) == sorted(map(str, out.iterdir()))
    again = run(*PLACE, "--export=terraform", f"--out={out}", path="/nonexistent")
    assert again.returncode == 2
    assert "may have been edited" in again.stderr
    files = json.loads(run(*PLACE, "--export=terraform", "--json", path="/nonexistent").stdout)["files"]
    assert files == {path.name: path.read_text() for path in out.iterdir()}


def test_a_place_that_takes_no_files_is_an_error_in_one_line(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "below"):
        refused = run(*PLACE, "--export=terraform", f"--out={out}", path="/nonexistent")
        assert refused.returncode == 1, refused.stderr
        assert refused.stderr.startswith(f"error: {out}: "), refused.stderr
    assert file.read_text() == "mine"


def test_the_pin_of_the_command_is_the_vms_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pin = "0a" * 32
    spelled = ":".join(["0A"] * 32)
    said = run(*PLACE, "--export=cloud-init", f"--ca-sha256={spelled}")
    assert f"DASKPKI_CA_SHA256={pin}" in said.stdout, said.stderr
    for malformed in ("", "ab", "x --privileged"):  # the first is that of a script whose variable is not set
        wrong = run(*PLACE, "--export=cloud-init", f"--ca-sha256={malformed}")
        assert (wrong.returncode, wrong.stdout, "64 hexadecimal digits" in wrong.stderr) == (2, "", True)
        assert repr(malformed) in wrong.stderr
    monkeypatch.setenv("DASKPKI_CA_SHA256", pin)
    assert run(*PLACE, "--export=cloud-init").stdout == said.stdout
    monkeypatch.setenv("DASKPKI_CA_SHA256", "")
    unpinned = run(*PLACE, "--export=cloud-init")
    assert (unpinned.returncode, "DASKPKI_CA_SHA256" in unpinned.stdout) == (0, False)


def test_a_plan_is_shown_and_nothing_is_done(run: Run) -> None:
    done = run(*PLACE)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert all(line.startswith(("+ created: ", "    ", "  ")) for line in lines)
    assert "nothing was changed: add --apply" in done.stderr
    assert "[9/9] read " in done.stderr
    shown = run(*PLACE, "--show-commands").stdout
    assert shown.count("\n    $ ") == shown.count("+ created: ")
    assert f"{shown.count('+ created: ')} to create, 0 to change in place, 0 to replace" in done.stderr


def test_a_ca_is_sealed_by_a_file_named_in_full_and_else_the_plan_says_so(run: Run) -> None:
    assert "the CA's key is stored unsealed" in run(*PLACE).stderr
    sealed = run(*PLACE, "--ca-passphrase-file=secrets/ca", "--show-commands")
    assert "unsealed" not in sealed.stderr
    option = f"--ca-passphrase-file={Path('secrets/ca').absolute()}"
    assert f"{quote(option)} init-ca" in sealed.stdout


def test_where_nothing_is_there_is_nothing_to_destroy(run: Run) -> None:
    assert run("--destroy").stdout == "nothing to change\n"
    assert run("--destroy", "--apply").stdout == "nothing to change\n"
    assert run("--destroy", "--detailed-exit-code").returncode == 6


def test_what_fails_is_named_with_its_step(run: Run) -> None:
    done = run(*PLACE, "--apply")
    assert done.returncode == 1
    assert done.stdout.startswith("+ created: services")  # the plan comes first
    assert "step 1 of " in done.stderr
    assert "it goes on where it stopped" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--zone=europe-west1-b",), "needs a zone and an image"),
        ((*PLACE, "--export=script", "--apply"), "--export only writes the plan"),
        ((*PLACE, "--export=cloud-init", "--part=worker"), "has no part 'worker'"),
        ((*PLACE, "--export=terraform"), "is several files"),
        ((*PLACE, "--machine-type=g2-standard-4"), "has GPUs or TPUs"),
        ((*PLACE, "--machine-type=n1-standard-8", "--accelerator=nvidia-tesla-t4"), "has GPUs or TPUs"),
        ((*PLACE, "--clients-from=0.0.0.0/0"), "names everybody"),
    ],
)
def test_misuse_is_refused_with_a_way_out(run: Run, arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "hint: " in done.stderr


def test_a_local_store_cannot_be_deployed(run: Run) -> None:
    done = run(*PLACE, store="local:")
    assert done.returncode == 2
    assert "VMs cannot read the store 'local:'" in done.stderr


def test_without_gcloud_the_way_out_is_an_export(run: Run) -> None:
    done = run(*PLACE, path="/nonexistent")
    assert done.returncode == 2
    assert "gcloud is not installed" in done.stderr
    assert "--export" in done.stderr

"""The recipes for renewing regularly: their own programs find them well-formed, and exit codes are used rightly."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.doc_sessions import blocks
from tests.support.paths import DOCS

PAGE = DOCS / "how-to" / "renew-regularly.md"
SCRIPT, CLOUD = (block.text for block in blocks(PAGE) if block.language == "sh")
SERVICE, TIMER = (block.text for block in blocks(PAGE) if block.language == "ini")
(CRONTAB,) = (block.text for block in blocks(PAGE) if block.language == "cron")
RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def answering(directory: Path, code: int) -> dict[str, str]:
    """A PATH on which daskpki ends with that code, and says so."""
    program = directory / "daskpki"
    program.write_text(f"#!/bin/sh\necho out; echo said >&2; exit {code}\n")
    program.chmod(0o755)
    return {"PATH": f"{directory}:/usr/bin:/bin"}


@pytest.mark.parametrize(("code", "told"), [(0, 0), (6, 0), (75, 0), (1, 1), (3, 3), (5, 5)])
def test_cron_hears_of_what_needs_a_person(tmp_path: Path, code: int, told: int) -> None:
    script = tmp_path / "daskpki-renew"
    script.write_text(SCRIPT)
    done = subprocess.run(["sh", script], env=answering(tmp_path, code), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (told, "")
    assert done.stderr == ("" if code == 75 else "said\n"), (
        "a warning needs a person, and what passes by itself does not"
    )


@pytest.mark.parametrize("script", [SCRIPT, "#!/bin/sh\n" + CLOUD], ids=["cron", "cloud"])
def test_shellcheck_finds_nothing(script: str, tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text(script)
    subprocess.run(["shellcheck", file], check=True, capture_output=True)


def test_the_crontab_has_settings_and_one_job_in_five_fields() -> None:
    *settings, job = CRONTAB.splitlines()
    assert all(re.fullmatch(r"[A-Z_]+=\S+", line) for line in settings)
    *fields, user, command = job.split()
    for field, (low, high) in zip(fields, RANGES, strict=True):
        assert field == "*" or low <= int(field) <= high
    assert (user, command) == ("daskpki", "/usr/local/bin/daskpki-renew")


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    (tmp_path / "daskpki-renew.service").write_text(
        SERVICE.replace("/usr/local/bin/daskpki", "/bin/true").replace("User=daskpki", "User=root")
    )
    (tmp_path / "daskpki-renew.timer").write_text(TIMER)
    units = [str(tmp_path / name) for name in ("daskpki-renew.service", "daskpki-renew.timer")]
    verify = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units]
    judged = subprocess.run(verify, check=False, capture_output=True, text=True)
    assert judged.returncode == 0, judged.stderr
    assert str(tmp_path) not in judged.stderr, judged.stderr
    (tmp_path / "daskpki-renew.timer").write_text(TIMER.replace("03:17", "25:17"))  # the control
    assert "25:17" in subprocess.run(verify, check=False, capture_output=True, text=True).stderr
    assert re.search(r"^SuccessExitStatus=6 75$", SERVICE, re.MULTILINE)


@pytest.mark.needs_gcloud
def test_gcloud_knows_every_command_and_option(tmp_path: Path) -> None:
    commands = [shlex.join(shlex.split(command)) for command in CLOUD.replace("\\\n", " ").splitlines()]
    assert all(command.startswith("gcloud ") for command in commands)
    file = tmp_path / "commands"
    file.write_text(json.dumps([{"command_string": one} for one in (*commands, commands[0] + " --no-such-option=1")]))
    lint = ["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={file}"]
    environment = {"PATH": os.environ["PATH"], "CLOUDSDK_CONFIG": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(lint, env=environment, capture_output=True, text=True, check=False)
    judged = json.loads(done.stdout.splitlines()[0])
    assert [one["success"] for one in judged] == [*([True] * len(commands)), False], judged

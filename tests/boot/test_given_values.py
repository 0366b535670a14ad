"""Values where they don't belong: a setting that leads to a secret is named and never repeated, others are cut off."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from daskpki.boot.options import OPTIONS, Option, parse_arguments
from daskpki.boot.settings import parse_settings
from daskpki.errors import DaskpkiError
from tests.support.boot_cloud import Cloud, plain_environ, run_entrypoint
from tests.support.nightly import sample
from tests.support.running import Run, runner

MARK = "MARKEDSECRETMATERIAL"
CONTENTS = {
    "json": json.dumps({"type": "service_account", "private_key": f"-----BEGIN PRIVATE KEY-----\n{MARK}\n-----END"}),
    "words": f"{MARK} of several words",
    "one word": MARK,
    "a path's form": f"/{MARK}",
    "too long for a path": MARK * 300,
}


@pytest.mark.parametrize("content", sample(list(CONTENTS.values()), one_of=2), ids=sample(list(CONTENTS), one_of=2))
@pytest.mark.parametrize("log_format", ["json"])
@pytest.mark.parametrize("variable", ["GOOGLE_APPLICATION_CREDENTIALS", "DASKPKI_CREDENTIAL_DIR"])
def test_the_entrypoint_names_the_variable_alone(cloud: Cloud, variable: str, log_format: str, content: str) -> None:
    environ = cloud.environ | {variable: content, "DASKPKI_LOG_FORMAT": log_format}
    done = run_entrypoint(environ, "exec", "worker", "--", "true")
    assert done.returncode not in (0, 1)
    assert variable in done.stderr
    assert MARK not in done.stdout + done.stderr


@pytest.mark.parametrize("content", list(CONTENTS.values()), ids=list(CONTENTS))
def test_an_option_s_value_is_not_repeated_either(cloud: Cloud, content: str) -> None:
    given = ["--credential-dir", content]
    for argv in (given, ["--credental-dir=" + content], [*given, "--secret", "a=fd"]):
        done = run_entrypoint(cloud.environ, "exec", "worker", *argv, "--", "true")
        assert done.returncode in {2, 4, 5}, done.stderr
        assert MARK not in done.stdout + done.stderr


def cli(environ: dict[str, str], *argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "daskpki", *argv]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def founded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Commands where a local store opens by the key file `key`."""
    run = runner(capsys)
    run("--key-file", str(tmp_path / "key"), "init-ca")
    return run


ISSUE, FOUND = ("issue", "worker"), ("init-ca", "--cluster", "another")


@pytest.mark.parametrize("content", [CONTENTS["json"], CONTENTS["too long for a path"]], ids=["json", "too long"])
@pytest.mark.parametrize(
    "case",
    [
        (ISSUE, "DASKPKI_KEY_FILE", 5),
        (ISSUE, "DASKPKI_PASSPHRASE_FILE", 5),
        (ISSUE, "DASKPKI_CA_PASSPHRASE_FILE", 0),  # a CA whose key has no passphrase is opened without one
        (FOUND, "DASKPKI_KEY_FILE", 5),
        (FOUND, "DASKPKI_PASSPHRASE_FILE", 5),
        (FOUND, "DASKPKI_CA_PASSPHRASE_FILE", 4),
    ],
)
def test_a_command_names_the_setting_alone(
    founded: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, case: tuple[tuple[str, ...], str, int], content: str
) -> None:
    command, setting, code = case
    option = "--" + setting.removeprefix("DASKPKI_").lower().replace("_", "-")
    if setting == "DASKPKI_CA_PASSPHRASE_FILE":
        monkeypatch.setenv("DASKPKI_KEY_FILE", str(tmp_path / "key"))
    said = founded(option, content, *command, code=None)
    monkeypatch.setenv(setting, content)
    for done in (said, founded(*command, code=None)):
        assert done.code == code, done
        assert MARK not in done.out + done.err
        assert (option in done.err) == (code != 0)


def test_a_process_says_no_more_than_that(tmp_path: Path) -> None:
    environ = plain_environ(HOME=str(tmp_path))
    assert cli(environ, "--key-file", str(tmp_path / "key"), "init-ca").returncode == 0
    done = cli(environ | {"DASKPKI_KEY_FILE": CONTENTS["json"]}, *ISSUE)
    assert done.returncode == 5, done.stderr
    assert "--key-file" in done.stderr
    assert MARK not in done.stdout + done.stderr


@pytest.mark.parametrize("content", [CONTENTS["json"], CONTENTS["too long for a path"]], ids=["json", "too long"])
def test_googles_credentials_are_not_repeated_by_a_command(tmp_path: Path, content: str) -> None:
    for value in (content, str(tmp_path / "account.json")):
        (tmp_path / "account.json").write_text(content)
        environ = plain_environ(HOME=str(tmp_path), GOOGLE_APPLICATION_CREDENTIALS=value)
        done = cli(environ, "--store", "gsm://a-project", "list")
        assert (done.returncode, "GOOGLE_APPLICATION_CREDENTIALS" in done.stderr) == (5, True), done.stderr
        assert MARK not in done.stdout + done.stderr
        assert "gcloud auth application-default login" not in done.stderr  # which is not looked at meanwhile


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_no_other_value_takes_more_than_some_hundred_characters(option: Option) -> None:
    for text in ("x" * 100_000, "tls://" + "x" * 100_000, "gsm://" + "\n" * 100_000, "a=" + "/x" * 50_000):
        for argv, environ in (([f"--{option.name}={text}"], {}), ([], {option.variable: text})):
            message = ""
            try:
                parse_settings(parse_arguments(["exec", "worker", *argv, "--", "true"]), environ)
            except DaskpkiError as error:
                message = f"{error} {error.hint}"
            assert len(message) < 1000

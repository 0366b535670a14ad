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


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A home with a local store that opens by the key file `key`."""
    directory = tmp_path_factory.mktemp("home")
    environ = plain_environ(HOME=str(directory))
    assert cli(environ, "--key-file", str(directory / "key"), "init-ca").returncode == 0
    return environ


@pytest.mark.parametrize("content", [CONTENTS["json"], CONTENTS["too long for a path"]], ids=["json", "too long"])
@pytest.mark.parametrize("command", [("issue", "worker"), ("init-ca", "--cluster", "another")])
@pytest.mark.parametrize("setting", ["DASKPKI_KEY_FILE", "DASKPKI_PASSPHRASE_FILE", "DASKPKI_CA_PASSPHRASE_FILE"])
def test_a_command_names_the_setting_alone(
    home: dict[str, str], command: tuple[str, ...], setting: str, content: str
) -> None:
    key = {} if setting != "DASKPKI_CA_PASSPHRASE_FILE" else {"DASKPKI_KEY_FILE": f"{home['HOME']}/key"}
    option = "--" + setting.removeprefix("DASKPKI_").lower().replace("_", "-")
    for done in (cli(home | key | {setting: content}, *command), cli(home | key, option, content, *command)):
        assert MARK not in done.stdout + done.stderr
        if done.returncode:  # a CA whose key has no passphrase is opened without one
            assert option in done.stderr


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

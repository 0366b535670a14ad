"""Values that travel into systemd's and YAML's language, with hostile ones, through systemd's and cloud-init's parsers.

The shell is in `test_exports.py` and `tests/system/integrations/test_cloudprovider.py`, Terraform in
`test_terraform.py`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from daskpki.deploy.cloud_init import Container, docker_arguments, render_user_data, systemd_quoted
from daskpki.errors import UsageError
from tests.support.sandbox import AS_ROOT

texts = st.text(st.characters(max_codepoint=126, min_codepoint=32), max_size=20) | st.sampled_from(
    ["it's", "$(id)", "${HOME}", "$HOME", "%n", "%%", 'say "x"', '{"version": 1}', "a;b `id`", "two words", "\\",
     "\\x41", "# x", ": y", " z ", "- ", "&&", "|", "'", "@a", "-x", "+/bin/sh"]
)  # fmt: skip


@settings(deadline=None, max_examples=20)
@given(words=st.lists(texts.filter(lambda word: "/" not in word), min_size=10, max_size=40, unique=True))
def test_systemd_reads_a_word_as_it_was(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Judged by systemd-tmpfiles, which unquotes words and expands specifiers as in command lines.

    Only command lines expand variables; there `$$` is `$`.
    """
    directory = tmp_path_factory.mktemp("words")
    names = [f"x{word}" for word in words]
    lines = [f"f {systemd_quoted(f'{directory}/{name}')}".replace("$$", "$") for name in names]
    file = directory.with_suffix(".conf")
    file.write_text("\n".join(lines) + "\n")
    done = subprocess.run(["systemd-tmpfiles", "--create", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(one.name for one in directory.iterdir()) == sorted(names)


@pytest.mark.parametrize("text", ["a\nExecStart=/bin/sh", "\r", "\t", "\0", "\x85", "é", "\u2028", "\ufeff"])
def test_other_characters_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot stand in a VM's user-data"):
        systemd_quoted(text)


@settings(deadline=None)
@given(values=st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), texts, max_size=5))
def test_yaml_gives_systemd_the_unit_as_it_was_written(values: dict[str, str]) -> None:
    container = Container("lab", "docker.io/a/b:1", "worker", ("--", "--name", "x y"), values, ("8786",))
    document = yaml.safe_load(render_user_data(container))
    assert document.keys() == {"write_files", "runcmd"}
    (file,) = document["write_files"]
    lines = file["content"].replace(" \\\n  ", "\n").splitlines()
    first = lines.index("ExecStart=/usr/bin/docker run --rm")
    words = [systemd_quoted(word) for word in docker_arguments(container)]
    assert lines[first + 1 : first + len(words)] == words[1:]
    assert sum(line.startswith("ExecStart=") for line in lines) == 1


WRITE_FILES = """
import sys
from pathlib import Path
from cloudinit import util
from cloudinit.config.cc_write_files import write_files
for source in sorted(Path(sys.argv[1]).glob("*.yaml")):
    (file,) = util.load_yaml(source.read_text())["write_files"]
    write_files("write_files", [file | {"path": str(source.with_suffix(".service"))}], file["owner"])
"""
"""cloud-init's own parser and module, run by the Python that Debian's cloud-init is for."""


@settings(deadline=None, max_examples=5)
@given(several=st.lists(st.lists(texts, min_size=1, max_size=5), min_size=5, max_size=20))
def test_cloud_init_writes_the_unit_as_it_was(
    several: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("units")
    words = {}
    for number, values in enumerate(several):
        environment = {f"X{at}": value for at, value in enumerate(values)}
        container = Container("lab", "docker.io/a/b:1", "worker", (), environment, ("8786",))
        (directory / f"{number}.yaml").write_text(render_user_data(container))
        words[number] = [systemd_quoted(word) for word in docker_arguments(container)]
    subprocess.run([*AS_ROOT, "/usr/bin/python3", "-c", WRITE_FILES, directory], capture_output=True, check=True)
    for number, expected in words.items():
        unit = (directory / f"{number}.service").read_text()
        assert f"ExecStart=/usr/bin/docker run {' '.join(expected)}\n" in unit.replace(" \\\n  ", " ")


def test_cloud_init_takes_hostile_values(tmp_path: Path) -> None:
    values = {"A": 'it\'s "x" $(id) `id` %n \\', "B": "#cloud-config"}
    container = Container("lab", "docker.io/a/b:1", "worker", (), values, ("8786",))
    file = tmp_path / "user-data"
    file.write_text(render_user_data(container))
    done = subprocess.run(["cloud-init", "schema", "--config-file", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

"""A person at a terminal: final acts ask first, and Ctrl-C ends a command in one line."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pexpect
import pytest

from daskpki import CertificateAuthority
from daskpki.identity import Role
from tests.support.local_places import LocalPlace
from tests.support.nightly import sample
from tests.support.running import Run


def by_terminal() -> None:
    """In a child: let Ctrl-C end it, also where the tests themselves run in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


Terminal = Callable[..., "pexpect.spawn[str]"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> LocalPlace:
    """A store with some certificates."""
    place = LocalPlace(tmp_path_factory.mktemp("made"))
    with closing(place.create()) as store:
        ca = CertificateAuthority(store)
        ca.init()
        for role, names in ((Role.SCHEDULER, ["scheduler"]), (Role.CLIENT, ["alice", "bob"]), (Role.CLIENT, ["alice"])):
            list(ca.issue(ca.requests(role, names)))
    return place


@pytest.fixture
def terminal(tmp_path: Path, made: LocalPlace) -> Terminal:
    """Starts a command on a terminal of its own, on the store of `local`, a copy of that one."""
    shutil.copytree(made.directory, tmp_path / "store")
    shutil.copy(made.key_file, tmp_path / "store.key")
    store = f"local:{tmp_path / 'store'}"

    def start(*arguments: str, **environ: str) -> pexpect.spawn[str]:
        words = ["-m", "daskpki", "--store", store, "--key-file", str(tmp_path / "store.key"), *arguments]
        return pexpect.spawn(
            sys.executable,
            words,
            env={**os.environ, **environ},
            timeout=60,
            encoding="utf-8",
            dimensions=(100, 300),
            preexec_fn=by_terminal,
        )

    return start


def end(child: pexpect.spawn[str]) -> tuple[int | None, str]:
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus, str(child.before)


REVOKE = ("revoke", "client/alice", "--no-push")
FINAL = [
    (REVOKE, r"This revokes 2 certificates: client/alice \w+, client/alice \w+\. Go on\?"),
    (("revoke", "scheduler", "--no-push"), r"This revokes 1 certificate: scheduler/scheduler \w+\. Go on\?"),
    (("rotate-ca", "--emergency", "--no-push"), r"replaces the CA of cluster default at once: .*Go on\?"),
]


@pytest.mark.parametrize("answer", ["n\r", "\r", "\x04"], ids=["no", "nothing", "end of input"])
@pytest.mark.parametrize(("command", "question"), FINAL, ids=lambda value: " ".join(value) if len(value) < 9 else "")
def test_any_answer_but_yes_changes_nothing(
    terminal: Terminal, local: Run, command: tuple[str, ...], question: str, answer: str
) -> None:
    before = local("audit", "--json").json()
    child = terminal(*command)
    child.expect(rf"{question} \[y/N\] ")
    child.send(answer)
    code, said = end(child)
    assert code == 1
    assert "error: nothing was changed" in said
    assert local("audit", "--json").json() == before


def test_yes_goes_on(terminal: Terminal, local: Run) -> None:
    child = terminal(*REVOKE)
    child.expect(r"\[y/N\] ")
    child.sendline("y")
    assert end(child)[0] == 0
    assert {entry["state"] for entry in local("list", "--name", "alice", "--json").json()} == {"revoked"}


@pytest.mark.parametrize(("options", "environ"), [(("--yes",), {}), ((), {"DASKPKI_YES": "1"}), (("--json",), {})])
def test_nothing_is_asked_where_the_answer_was_given(
    terminal: Terminal, local: Run, options: tuple[str, ...], environ: dict[str, str]
) -> None:
    code, said = end(terminal(*REVOKE, *options, **environ))
    assert (code, "[y/N]" in said) == (0, False)
    assert {entry["state"] for entry in local("list", "--name", "alice", "--json").json()} == {"revoked"}


@pytest.mark.usefixtures("terminal")  # which makes the certificates
def test_nothing_is_asked_where_nobody_would_see_it(local: Run, tmp_path: Path) -> None:
    """Standard input is a terminal, and standard error a file: that is no conversation."""
    said = tmp_path / "said"
    ours = [sys.executable, "-m", "daskpki", "--store", f"local:{tmp_path / 'store'}", *REVOKE]
    child = pexpect.spawn(
        "sh", ["-c", f"{shlex.join(ours)} 2>{shlex.quote(str(said))}"],
        env={**os.environ, "DASKPKI_KEY_FILE": str(tmp_path / "store.key")}, timeout=60, encoding="utf-8",
    )  # fmt: skip
    assert end(child)[0] == 0
    assert "[y/N]" not in said.read_text()
    assert {entry["state"] for entry in local("list", "--name", "alice", "--json").json()} == {"revoked"}


def test_one_certificate_of_a_person_is_revoked_without_a_question(terminal: Terminal) -> None:
    code, said = end(terminal("revoke", "client/bob", "--no-push"))
    assert (code, "[y/N]" in said) == (0, False)


def test_the_old_ca_is_dropped_after_a_question(terminal: Terminal, local: Run) -> None:
    local("rotate-ca", "start")
    local("rotate-ca", "promote")
    child = terminal("rotate-ca", "finish", "--no-push")
    child.expect(r"This drops CA 1: nothing it issued stays trusted, and its key is erased\. Go on\? \[y/N\] ")
    child.sendline("")
    assert end(child)[0] == 1
    assert len(local("rotate-ca", "status", "--json").json()["authorities"]) == 2
    assert end(terminal("rotate-ca", "finish", "--no-push", "--yes"))[0] == 0
    assert "[y/N]" not in end(terminal("rotate-ca", "finish", "--no-push"))[1], "nothing is left to ask about"


def test_a_secret_is_erased_after_a_question(terminal: Terminal, local: Run, tmp_path: Path) -> None:
    value = tmp_path / "value"
    value.write_text("swordfish")
    local("secret", "set", "db-password", "--file", str(value))
    local("secret", "set", "db-password", "--file", str(value))
    child = terminal("secret", "destroy", "db-password", "1")
    child.expect(r"Erase version 1 of db-password for good\? \[y/N\] ")
    child.sendline("no")
    assert end(child)[0] == 1
    assert local("secret", "get", "db-password", "--version", "1").out == "swordfish"
    assert end(terminal("secret", "destroy", "db-password", "1", "--yes"))[0] == 0
    local("secret", "get", "db-password", "--version", "1", code=1)


def test_a_secret_nearly_named_is_suggested(local: Run, tmp_path: Path) -> None:
    local("init-ca")
    (tmp_path / "value").write_text("swordfish")
    local("secret", "set", "db-password", "--file", str(tmp_path / "value"))
    for verb in ("destroy", "disable"):
        assert "did you mean db-password?" in local("secret", verb, "db-pasword", "1", code=4).err
    assert "daskpki secret list shows all there are" in local("secret", "destroy", "other", "1", code=4).err


INTERRUPTED_AT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            for _ in range({times}):
                os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from daskpki.__main__ import main
sys.argv = ["daskpki", "list"]
sys.exit(main())
"""


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("module", ["daskpki.cli", "typer", "daskpki.cli.app", "daskpki.cli.list_show", "sqlite3"])
def test_an_interrupt_is_one_line_from_the_first_import_on(tmp_path: Path, module: str, times: int) -> None:
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "DASKPKI_KEY_FILE": str(tmp_path / "k")}
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_AT.format(module=module, times=times)],
        env=environ, capture_output=True, text=True, check=False, timeout=60, preexec_fn=by_terminal,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


def test_an_interrupted_count_says_how_far_it_got(terminal: Terminal, local: Run) -> None:
    child = terminal("issue", "worker", "--name", "w", "--count", "2000")
    child.expect(r"issuing.*[1-9]\d*/2000")
    child.sendintr()
    child.sendintr()
    code, said = end(child)
    assert code == 130, said[-1000:]
    (told,) = re.findall(r"error: interrupted: (\d+) of 2000 certificates were issued", said)
    assert "hint: the same command goes on with the rest" in said
    assert "Traceback" not in said
    valid = [entry for entry in local("list", "--role", "worker", "--json").json() if entry["state"] == "issued"]
    assert 0 < int(told) <= len(valid) < 2000


@pytest.mark.cluster
@pytest.mark.parametrize("moment", sample(["init-ca", r"daskpki-entrypoint scheduler", r"Worker at tls://"], one_of=3))
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, moment: str) -> None:
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    child = pexpect.spawn(
        sys.executable, ["-m", "daskpki", "demo"], env=environ, timeout=100, encoding="utf-8", preexec_fn=by_terminal
    )
    child.expect(moment)
    child.sendintr()
    child.sendintr()
    code, said = end(child)
    assert (code, said.count("error: interrupted"), "Traceback" in said) == (130, 1, False), said[-3000:]
    assert list(tmp_path.iterdir()) == []

"""One grammar: whom a command is about is understood alike, and nothing that is given counts for nothing in silence."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from daskpki.cli.app import COMMANDS, build
from daskpki.cli.invocation import (
    FLAGS,
    WITH_VALUE,
    GlobalOptions,
    given_options,
    hoist,
    parse_client,
    parse_role_and_name,
    with_options,
)
from daskpki.errors import UsageError
from daskpki.identity import Role
from daskpki.pki.profile import DAY, parse_ttl
from tests.support.running import Run


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("client/alice",), (Role.CLIENT, "alice")),
        (("client", "alice"), (Role.CLIENT, "alice")),
        (("client", None, "alice"), (Role.CLIENT, "alice")),
        (("client/alice", "alice", "alice"), (Role.CLIENT, "alice")),
        (("worker",), (Role.WORKER, "worker")),
        (("worker/worker",), (Role.WORKER, "worker")),
        (("worker", "gpu-1"), (Role.WORKER, "gpu-1")),
    ],
)
def test_the_ways_to_say_whom_mean_the_same(words: tuple[str, ...], meant: tuple[Role, str]) -> None:
    assert parse_role_and_name(*words) == meant


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("client",), "a client needs a name"),
        (("alice",), "'alice' is not a role"),
        (("client", "worker"), "'worker' is a role, and a name is expected"),
        (("client/client",), "'client' is a role, and a name is expected"),
        (("scheduler/worker",), "'worker' is a role, and a name is expected"),
        (("client/alice", "bob"), "the name is given as alice and as bob"),
        (("client", "alice", "bob"), "the name is given as alice and as bob"),
        (("client/",), "name '' is not a DNS label"),
        (("client/a/b",), "name 'a/b' is not a DNS label"),
    ],
)
def test_what_is_no_role_and_name_is_refused(words: tuple[str, ...], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_role_and_name(*words)


def test_a_number_is_a_count() -> None:
    with pytest.raises(UsageError) as refusal:
        parse_role_and_name("worker", "3")
    assert refusal.value.hint == "--count 3"
    assert parse_role_and_name("worker", None, "3") == (Role.WORKER, "3"), "whoever says --name means a name"


def test_a_client_may_be_named_without_its_role() -> None:
    assert parse_client("alice") == parse_client("client/alice") == parse_client(None, "client/alice") == "alice"
    assert parse_client("alice", "client/alice") == "alice"
    assert parse_client(None) is None
    for wrong in (("client",), ("worker/w",), ("alice", "bob")):
        with pytest.raises(UsageError):
            parse_client(*wrong)


def test_every_command_takes_a_name_in_either_form(local: Run, tmp_path: Path) -> None:
    local("init-ca", "--with", "scheduler", "--with", "client/ann,client/ben", "--with", "client/ann")
    assert [entry["name"] for entry in local("list", "--json").json()] == ["scheduler", "ann", "ben"]
    local("issue", "client", "alice")
    local("issue", "client/bob")
    local("issue", "worker", "gpu-1", "--ttl", "2w")
    listed = local("list", "--role", "client", "--role", "scheduler", "--json").json()
    assert {entry["role"] for entry in listed} == {"client", "scheduler"}
    assert [entry["name"] for entry in local("list", "--name", "client/bob", "--json").json()] == ["bob"]
    assert local("show", "alice").out == local("show", "client/alice").out
    exported = local("export", "client/alice", "--out", str(tmp_path / "alice"))
    assert "Client(...) where daskpki is installed uses it then" in exported.err
    assert "looks like a number of workers" in local("issue", "worker", "3", code=2).err


def test_what_cannot_be_undone_is_never_guessed(local: Run) -> None:
    local("init-ca", "--with", "client/alice,client/ada,worker/gpu-1,scheduler/gpu-1")
    assert "did you mean client/alice?" in local("revoke", "alice", code=2).err
    assert "did you mean client/alice?" in local("revoke", "client/alcie", code=4).err
    assert "did you mean client/alice?" in local("renew", "client/alcie", code=4).err
    assert "did you mean client/alice?" in local("show", "client/alcie", code=4).err
    assert "did you mean client/ada?" in local("show", "ada", code=4).err, "a serial comes first"
    assert "did you mean scheduler/gpu-1 or worker/gpu-1?" in local("show", "gpu-1", code=2).err
    assert {entry["state"] for entry in local("list", "--json").json()} == {"issued"}


@pytest.mark.parametrize("words", [("-h",), ("issue", "-h"), ("context", "-h"), ("context", "list", "-h")])
def test_help_by_one_letter(local: Run, words: tuple[str, ...]) -> None:
    assert local(*words).out == local(*words[:-1], "--help").out


def test_a_lifetime_in_weeks_and_years() -> None:
    assert (parse_ttl("2w"), parse_ttl("1y")) == (14 * DAY, 365 * DAY)
    with pytest.raises(UsageError, match="is not a lifetime"):
        parse_ttl("1q")


def test_a_hint_runs_as_printed(local: Run, tmp_path: Path) -> None:
    """With the store, cluster and key file that were given, quoted, in the next command and in a remedy."""
    store = f"local:{tmp_path / 'my store'}"
    given = ["--cluster", "zoo", "--store", store]
    said = local(*given, "init-ca", "--with", "client/alice").err
    (step,) = [line for line in said.splitlines() if line.startswith("next: ")]
    words = shlex.split(step.removeprefix("next: "))
    assert words[0] == "daskpki"
    assert {f"--store={store}", "--cluster=zoo"} <= set(words)
    assert words[-2:] == ["login", "alice"]
    remedy = local(*given, "show", "client/bob", code=4).err
    assert f"daskpki {shlex.join(word for word in words[1:-2])} list shows all" in remedy


def test_every_option_of_daskpki_may_stand_behind_the_command(local: Run) -> None:
    main: Any = typer.main.get_command(build([]))
    own = [option for option in main.params if option.name in GlobalOptions._fields]
    assert {option.opts[0] for option in own if not option.is_flag} == set(WITH_VALUE)
    assert {name for option in own if option.is_flag for name in option.opts} == set(FLAGS)
    pin = local("init-ca", "--json").json()["fingerprint"]
    local("list", "--ca-sha256", ":".join(pin[at : at + 2] for at in range(0, 64, 2)).upper())


def test_the_way_to_a_missing_ca_has_the_options_that_were_given(local: Run, tmp_path: Path) -> None:
    local("init-ca")
    given = [f"--store=local:{tmp_path / 'store'}", "--cluster=lab", f"--key-file={tmp_path / 'store.key'}"]
    for command in (["list"], ["export", "worker", "--out", str(tmp_path / "out")]):
        refused = local(*given, *command, code=4).err
        (hint,) = [line for line in refused.splitlines() if line.startswith("hint: daskpki ")]
        words = hint.removesuffix(" init-ca makes one").replace("--cluster lab", "--cluster=lab").split()
        assert sorted(words) == sorted(["hint:", "daskpki", *given])


def test_options_are_put_where_none_are() -> None:
    options = given_options(
        hoist(["issue", "--store=gsm://p", "worker", "--cluster", "a b", "--json", "--", "--cluster"])
    )
    assert options == "--store=gsm://p '--cluster=a b'"
    pinned = given_options(["--store=gsm://p", f"--ca-sha256={'0' * 64}", "rotate-ca", "--emergency"])
    assert pinned == "--store=gsm://p", "the pinned CA is about to be dropped"
    text = "daskpki list; daskpki --store=s list; daskpki-entrypoint worker; daskpki is a program"
    assert with_options(text, options, COMMANDS) == (
        "daskpki --store=gsm://p '--cluster=a b' list; daskpki --store=s list; "
        "daskpki-entrypoint worker --store=gsm://p '--cluster=a b'; daskpki is a program"
    )
    assert with_options(text, "", COMMANDS) == text


@pytest.mark.parametrize(
    ("options", "put"),
    [
        ("", "daskpki --cluster x list, --cluster lab"),
        ("--cluster=y", "daskpki --cluster x list, --cluster lab"),
        ("--store=gsm://p", "daskpki --store=gsm://p --cluster x list, --cluster lab"),
        ("--cluster=y '--store=local:/a b'", "daskpki '--store=local:/a b' --cluster x list, --cluster lab"),
    ],
)
def test_a_command_that_names_the_cluster_gets_the_other_options(options: str, put: str) -> None:
    assert with_options("daskpki --cluster x list, --cluster lab", options, COMMANDS) == put

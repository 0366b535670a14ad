"""Options and variables: what is understood, what is refused and by which rule, and that the help shows it all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskpki.boot.options import OPTIONS, help_text, log_format, parse_arguments
from daskpki.boot.settings import Settings, parse_settings
from daskpki.errors import DaskpkiError, UsageError
from daskpki.identity import Role
from tests.support.boot_cloud import plain_environ, run_entrypoint


def settings(*argv: str, **environ: str) -> Settings:
    return parse_settings(parse_arguments(argv), environ)


def test_an_option_comes_before_its_variable_and_that_before_the_default() -> None:
    assert settings("worker").deadline == 180
    assert settings("worker", DASKPKI_DEADLINE="7").deadline == 7
    assert settings("worker", "--deadline", "9", DASKPKI_DEADLINE="7").deadline == 9
    assert settings("worker", "--deadline=9").deadline == 9


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ("--name a --name b", {"name": "b"}),
        ("--secret a=/a --secret b=/b,c=fd --secret=d=/d", {"secret": "a=/a,b=/b,c=fd,d=/d"}),
        ("--metrics --name a", {"metrics": "yes", "name": "a"}),
        ("--metrics=no --name=a=b", {"metrics": "no", "name": "a=b"}),
    ],
)
def test_the_last_of_an_option_counts_and_secrets_add_up(options: str, given: dict[str, str]) -> None:
    assert parse_arguments(["worker", *options.split()]).given == given


@pytest.mark.parametrize(
    ("line", "variable", "form"),
    [
        ("worker", "", "text"),
        ("worker", "json", "json"),
        ("worker --log-format json --nothing", "", "json"),
        ("worker --log-format text --nothing", "json", "text"),
        ("worker --nothing --log-format json", "", "text"),
        ("exec --log-format=json", "", "json"),
        ("exec client --log-format json", "", "json"),
        ("worker -- --log-format json", "", "text"),
    ],
)
def test_the_log_format_is_found_in_a_wrong_command_line_up_to_its_error(line: str, variable: str, form: str) -> None:
    assert log_format(line.split(), {"DASKPKI_LOG_FORMAT": variable}) == form


def test_what_follows_the_dashes_is_for_dask() -> None:
    assert settings("worker", "--", "--nthreads", "4", "--", "x").rest == ("--nthreads", "4", "--", "x")


@pytest.mark.parametrize(
    ("argv", "roles"),
    [
        (["scheduler"], (Role.SCHEDULER,)),
        (["worker"], (Role.WORKER,)),
        (["node"], (Role.SCHEDULER, Role.WORKER)),
        (["exec", "client", "--name", "airflow", "--", "true"], (Role.CLIENT,)),
    ],
)
def test_each_command_boots_its_roles(argv: list[str], roles: tuple[Role, ...]) -> None:
    assert settings(*argv).roles == roles


def test_a_node_has_a_directory_below_for_each_role() -> None:
    node = settings("node", "--credential-dir", "/etc/dask")
    assert [node.directory_for(role) for role in node.roles] == ["/etc/dask/scheduler", "/etc/dask/worker"]
    worker = settings("worker", "--credential-dir", "/etc/dask", "--scheduler", "tls://s")
    assert worker.directory_for(Role.WORKER) == "/etc/dask"
    assert settings("scheduler").directory_for(Role.SCHEDULER) is None


def test_a_role_has_its_usual_name_and_a_client_none() -> None:
    assert settings("node").wanted == ((Role.SCHEDULER, "scheduler"), (Role.WORKER, "worker"))
    assert settings("worker", "--name", "w7").wanted == ((Role.WORKER, "w7"),)
    with pytest.raises(UsageError, match="a client needs a name"):
        _ = settings("exec", "client", "--", "true").wanted


@pytest.mark.parametrize(
    ("argv", "environ", "words"),
    [
        ([], {}, "'' is not a command"),
        (["boot"], {}, "'boot' is not a command"),
        (["boot"], {}, " commands are scheduler, worker, node, exec"),
        (["workers"], {}, "did you mean worker? commands are"),
        (["exec", "client", "python", "-c", "1"], {}, "'python' is not an option"),
        (["worker", "--nthreads", "4"], {}, "what follows `--` goes to Dask"),
        (["worker", "--schedular", "x"], {}, "did you mean --scheduler?"),
        (["worker", "--name"], {}, "--name needs a value"),
        (["worker", "--health", "8790"], {}, "is not ADDRESS:PORT"),
        (["worker", "--health", "0.0.0.0:70000"], {}, "is not ADDRESS:PORT"),
        (["worker", "--metrics"], {}, "--metrics adds to what --health serves"),
        (["worker", "--name", "No_Label"], {}, "is not a DNS label"),
        (["worker", "--cluster", "UPPER"], {}, "is not a DNS label"),
        (["worker"], {"DASKPKI_STORE": "s3://bucket"}, "is not a store"),
        (["worker"], {"DASKPKI_DEADLINE": "soon"}, "is not a whole number from 1"),
        (["worker"], {"DASKPKI_DEADLINE": "0"}, "is not a whole number from 1"),
        (["worker"], {"DASKPKI_MIN_EPOCH": "-1"}, "is not a whole number from 0"),
        (["worker"], {"DASKPKI_CA_SHA256": "abc"}, "is not a SHA-256 fingerprint"),
        (["worker"], {"DASKPKI_WORKER_CLIENTS": "all"}, "is none of deny, limited, allow"),
        (["worker"], {"DASKPKI_STALE_TRUST": "yes"}, "is none of refuse, allow"),
        (["worker"], {"DASKPKI_POLL": "0"}, "is not a whole number from 1"),
        (["worker"], {"DASKPKI_DASHBOARD": "public"}, "is none of loopback, mtls, off"),
        (["worker"], {"DASKPKI_TLS_MIN": "1.1"}, "is none of 1.3, 1.2"),
        (["worker"], {"THREADS_PER_WORKER": "0"}, "is not a whole number from 1"),
        (["worker"], {"MEMORY_PER_WORKER": "1GB"}, "is not a number of GB"),
        (["worker"], {"DASKPKI_SCHEDULER": "tcp://10.0.0.2:8786"}, "is not a scheduler's address"),
        (["worker", "--worker-user", "nobody"], {}, "is for node"),
        (["worker", "--store", "local:", "--credential-dir", "/d"], {}, "two sources"),
        (["exec", "worker"], {}, "needs a command"),
        (["exec", "boss", "--", "true"], {}, "is not a role"),
        (["exec"], {}, "exec needs a command"),
        (["exec", "--", "true"], {}, "'' is not a role"),
    ],
)
def test_what_is_refused_and_why(argv: list[str], environ: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings(*argv, **environ)
    assert words in f"{caught.value} {caught.value.hint}"


def test_a_directory_comes_before_the_store_and_says_so() -> None:
    both = settings("worker", DASKPKI_CREDENTIAL_DIR="/d", DASKPKI_STORE="gsm://my-project")
    assert (both.directory, both.store) == ("/d", None)
    assert both.source == "DASKPKI_CREDENTIAL_DIR; DASKPKI_STORE is ignored"
    assert settings("worker", "--store", "local:", DASKPKI_CREDENTIAL_DIR="/d").directory is None


@pytest.mark.parametrize("option", ["--credential-dir=", "--credential-file=", "--store="])
def test_an_empty_source_is_none(option: str) -> None:
    """As with every other option: a script's variable was empty."""
    assert settings("worker", option) == settings("worker")
    assert settings("worker", option, DASKPKI_CREDENTIAL_DIR="/d").directory == "/d"


def test_an_empty_pin_is_refused_since_the_node_would_trust_any_ca() -> None:
    pin = "ab" * 32
    with pytest.raises(UsageError, match="'' is not a SHA-256 fingerprint"):
        settings("worker", "--ca-sha256=")
    assert settings("worker", "--ca-sha256=", DASKPKI_CA_SHA256=pin).ca_sha256 == pin
    assert settings("worker", DASKPKI_CA_SHA256="").ca_sha256 is None


@given(
    st.lists(st.text(max_size=12), max_size=6),
    st.dictionaries(st.sampled_from([o.variable for o in OPTIONS]), st.text()),
)
def test_anything_else_is_refused_in_words(argv: list[str], environ: dict[str, str]) -> None:
    try:
        parse_settings(parse_arguments(["worker", *argv]), environ)
    except DaskpkiError as error:
        assert str(error)


def test_help_shows_every_option_and_an_example() -> None:
    done = run_entrypoint(plain_environ(), "--help")
    assert (done.returncode, done.stdout) == (0, help_text())
    for option in OPTIONS:
        assert f"--{option.name} " in done.stdout
        assert option.variable in done.stdout
    assert "daskpki-entrypoint worker --credential-dir /etc/dask" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_help_shows_each_default_behind_the_meaning() -> None:
    entries = help_text().split("\n  --")
    assert [entry.split()[0] for entry in entries[1:]] == [option.name for option in OPTIONS]
    for option, entry in zip(OPTIONS, entries[1:], strict=True):
        default = f" [{option.default}]" if option.default else ""
        assert entry.partition("\n\n")[0].endswith(f"{option.variable}\n        {option.meaning}{default}")


def test_the_example_of_the_help_is_understood() -> None:
    example = next(line.split() for line in help_text().splitlines() if "--credential-dir /etc/dask" in line)
    parsed = settings(*example[1:])
    assert (parsed.directory, parsed.scheduler) == ("/etc/dask", "tls://10.0.0.2:8786")


def test_without_arguments_the_usage_is_shown_as_an_error() -> None:
    done = run_entrypoint(plain_environ())
    assert done.returncode == 2
    assert "usage: daskpki-entrypoint" in done.stderr


def test_an_error_is_one_line_with_cause_and_remedy() -> None:
    done = run_entrypoint(plain_environ(), "worker", "--tls-min", "1.0")
    assert done.returncode == 2
    assert done.stderr == "daskpki-entrypoint: error: --tls-min '1.0' is none of 1.3, 1.2\n"

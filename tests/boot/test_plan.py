"""Programs, their arguments and their configuration, and the arguments for Dask that are refused."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from daskpki.boot.launch import _health
from daskpki.boot.options import pairs, parse_arguments
from daskpki.boot.plan import Program, check_arguments, dask_environment, plan_programs
from daskpki.boot.settings import parse_settings
from daskpki.errors import NotTrustedError, PolicyError, UsageError
from daskpki.identity import Role
from tests.support.boot_cloud import plain_environ
from tests.support.handovers import HANDOVER


def plan(*argv: str, known: tuple[str, ...] = (), cores: int = 8, **environ: str) -> tuple[Program, ...]:
    settings = parse_settings(parse_arguments(argv), environ)
    check_arguments(settings)
    return plan_programs(settings, known, cores)


def words(program: Program) -> str:
    return " ".join([program.argv[3].removeprefix("distributed.cli.dask_"), *program.argv[4:]])


PRELOADS = "--preload daskpki.boot.preload"


def test_a_scheduler_listens_to_its_dashboard_on_loopback() -> None:
    (program,) = plan("scheduler")
    assert words(program) == f"scheduler --dashboard-address 127.0.0.1:8787 {PRELOADS}"
    assert program.argv[:4] == (sys.executable, "-P", "-m", "distributed.cli.dask_scheduler")


def test_the_dashboard_off_is_still_bound_to_loopback() -> None:
    (program,) = plan("scheduler", DASKPKI_DASHBOARD="off")
    assert "--dashboard-address 127.0.0.1:8787 --no-dashboard" in words(program)


def test_a_dashboard_under_mutual_tls_is_on_all_interfaces_and_never_in_the_clear() -> None:
    (program,) = plan("scheduler", "--dashboard", "mtls")
    assert "--dashboard-address :8787 " in words(program)
    (program,) = plan("scheduler", "--dashboard=mtls", "--", "--dashboard-address", "10.0.0.2:9999")
    assert words(program).endswith("--dashboard-address 10.0.0.2:9999")
    environ = dask_environment(HANDOVER._replace(dashboard="mtls"), "/h", {})
    prefix = "DASK_DISTRIBUTED__SCHEDULER__DASHBOARD__TLS__"
    assert (environ[f"{prefix}CERT"], environ[f"{prefix}KEY"]) == (HANDOVER.cert, HANDOVER.key)
    assert not [name for name in dask_environment(HANDOVER, "/h", {}) if "DASHBOARD" in name]


def test_on_a_node_the_workers_have_the_health_port_after_the_schedulers() -> None:
    settings = parse_settings(parse_arguments(["node", "--health", "[::]:8790"]), {})
    assert [_health(settings, role) for role in (Role.SCHEDULER, Role.WORKER)] == ["[::]:8790", "[::]:8791"]
    settings = parse_settings(parse_arguments(["worker", "--health", "[::]:8790", "--scheduler", "tls://h"]), {})
    assert _health(settings, Role.WORKER) == "[::]:8790"


def test_the_variables_of_the_blog_post_are_honoured() -> None:
    (program,) = plan("worker", DASKPKI_SCHEDULER="tls://h", THREADS_PER_WORKER="2", MEMORY_PER_WORKER="3.5")
    assert words(program).startswith("worker tls://h:8786 --nworkers 4 --nthreads 2 --memory-limit 3.5GB ")


def test_dasks_own_options_come_before_the_variables() -> None:
    (program,) = plan("worker", "--", "--nthreads", "1", DASKPKI_SCHEDULER="tls://h", THREADS_PER_WORKER="2")
    assert words(program).count("--nthreads") == 1


def test_a_worker_without_sizes_leaves_them_to_dask() -> None:
    (program,) = plan("worker", DASKPKI_SCHEDULER="tls://h")
    assert "--nworkers" not in words(program)
    assert f"{PRELOADS} --preload-nanny daskpki.boot.preload" in words(program)


def test_a_node_has_one_worker_per_core() -> None:
    scheduler, worker = plan("node", "--worker-user", "dask")
    assert words(scheduler) == f"scheduler --dashboard-address 127.0.0.1:8787 {PRELOADS} --port 8786"
    assert words(worker).startswith("worker tls://127.0.0.1:8786 --nworkers 8 --nthreads 1 ")
    assert (scheduler.user, worker.user) == (None, "dask")
    assert (scheduler.role, worker.role) == (Role.SCHEDULER, Role.WORKER)


def test_a_nodes_workers_share_its_cores() -> None:
    _, worker = plan("node", NUM_WORKERS="3")
    assert "--nworkers 3 --nthreads 2" in words(worker)


def test_the_scheduler_is_found_in_the_trust_document() -> None:
    (program,) = plan("worker", known=("tls://10.0.0.9:8786",))
    assert words(program).startswith("worker tls://10.0.0.9:8786 ")
    (program,) = plan("worker", "--scheduler", "tls://h", known=("tls://10.0.0.9:8786",))
    assert words(program).startswith("worker tls://h:8786 ")
    (program,) = plan("worker", "--", "tls://x:1")
    assert words(program).endswith(" tls://x:1")


@pytest.mark.parametrize("known", ["--preload=http://evil.example/x.py", "tcp://10.0.0.9:8786", "tls://h:0", ""])
def test_what_the_trust_document_names_is_an_address_and_no_option(known: str) -> None:
    with pytest.raises(NotTrustedError, match=r"the trust document's scheduler: .* is not a scheduler's address"):
        plan("worker", known=(known,))
    assert "tls://h:8786" in words(*plan("worker", "--scheduler", "tls://h", known=(known,)))


@pytest.mark.parametrize("port", ["0", "65536", "\uff18\uff17", "9" * 5000])
def test_a_port_is_a_plain_number(port: str) -> None:
    with pytest.raises(UsageError, match="is not a scheduler's address"):
        plan("worker", "--scheduler", f"tls://h:{port}")
    assert "tls://h:65535" in words(*plan("worker", "--scheduler", "tls://h:65535"))


@pytest.mark.parametrize(
    ("argv", "known", "said"),
    [
        (["worker"], (), "does not know its scheduler"),
        (["worker"], ("tls://a:1", "tls://b:1"), "tls://a:1, tls://b:1"),
        (["worker", "--scheduler", "tls://h", "--", "tls://x:1"], (), "two schedulers"),
    ],
)
def test_a_worker_needs_one_scheduler(argv: list[str], known: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        plan(*argv, known=known)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--protocol", "tcp"],
        ["--protocol=tls"],
        ["--tls-cert", "/tmp/c"],
        ["--tls-key=/tmp/k"],
        ["--tls-ca-file", "/tmp/ca"],
        ["--jupyter"],
        ["tcp://10.0.0.2:8786"],
        ["--host", "ws://0.0.0.0"],
        ["--host=inproc://"],
        ["--contact-address", "ucx://h:1"],
        ["--preload", "mine.py", "wss://h:1"],
        ["--dashboard-address", ":8787"],
        ["--dashboard-address=0.0.0.0:8787"],
        ["--dashboard-address", "8787"],
        ["--dashboard-address", ""],
        ["--dashboard-address="],
        ["--dashboard-address", "10.0.0.2:8787"],
        ["--dashboard-address", "[::]:8787"],
        ["--dashboard-address", "localhost.example.org:8787"],
    ],
)
@pytest.mark.parametrize("command", ["scheduler", "worker", "node"])
def test_arguments_that_would_open_more_than_tls_are_refused(command: str, arguments: list[str]) -> None:
    with pytest.raises(PolicyError, match="refused"):
        plan(command, "--", *arguments, DASKPKI_SCHEDULER="tls://h")


def test_a_worker_may_find_its_scheduler_in_a_file() -> None:
    """Dask reads it, under our configuration: an address that is not tls:// is refused there, another role by TLS."""
    (program,) = plan("worker", "--", "--scheduler-file", "/shared/s.json", known=("tls://10.0.0.9:8786",))
    assert "tls://" not in words(program)
    assert words(program).endswith("--scheduler-file /shared/s.json")
    with pytest.raises(UsageError, match=r"two schedulers: tls://h:8786 .*DASKPKI_SCHEDULER.*, and a file"):
        plan("worker", "--", "--scheduler-file", "/shared/s.json", DASKPKI_SCHEDULER="tls://h")


@pytest.mark.parametrize(
    ("address", "usual"),
    [
        ("tls://worker-7:8801", None),
        ("tls://localhost:8801", None),
        ("10.0.0.7:8801", None),
        ("tls://10.0.0.7:08801", "tls://10.0.0.7:8801"),
        ("tls://[0:0:0:0:0:0:0:1]:8801", "tls://[::1]:8801"),
        ("tls://[FD00::7]:8801", "tls://[fd00::7]:8801"),
        ("tls://[::1%lo]:8801", None),
    ],
)
@pytest.mark.parametrize("command", [("worker", "--"), ("exec", "worker", "--", "dask", "worker", "tls://h")])
def test_an_address_that_the_scheduler_would_refuse_is_refused_before_dask_starts(
    command: tuple[str, ...], address: str, usual: str | None
) -> None:
    for arguments in (["--contact-address", address], [f"--contact-address={address}"]):
        with pytest.raises(
            PolicyError, match=r"--contact-address .* is refused: the scheduler takes tls://IP"
        ) as caught:
            plan(*command, *arguments, DASKPKI_SCHEDULER="tls://h")
        assert usual is None or caught.value.hint == f"for example {usual}"


@pytest.mark.parametrize("address", ["tls://10.0.0.7:8801", "tls://[fd00::7]:8801"])
def test_an_address_that_the_scheduler_takes_passes(address: str) -> None:
    (program,) = plan("worker", "--", "--contact-address", address, DASKPKI_SCHEDULER="tls://h")
    assert words(program).endswith(f"--contact-address {address}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--preload", "mine.py"],
        ["--preload-nanny", "https://intranet/x.py"],
        ["--dashboard-address", "127.0.0.1:9999"],
        ["--dashboard-address=localhost:9999"],
        ["--dashboard-address", "[::1]:9999"],
        ["--contact-address", "tls://h:1"],
        ["--no-jupyter"],
        ["--host", "10.0.0.2", "--port", "9999"],
    ],
)
def test_other_arguments_pass(arguments: list[str]) -> None:
    (program,) = plan("scheduler", "--", *arguments)
    assert program.argv[-len(arguments) :] == tuple(arguments)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ("--a", [("--a", None)]),
        ("--a=b", [("--a", "b")]),
        ("--a=b=c", [("--a", "b=c")]),
        ("--a b", [("--a", None), ("--a", "b")]),
        ("--a b=c", [("--a", None), ("--a", "b=c")]),
        ("--a -b c", [("--a", None), ("-b", None), ("-b", "c")]),
        ("--a b c", [("--a", None), ("--a", "b"), ("", "c")]),
        ("--a=b c", [("--a", "b"), ("", "c")]),
        ("--a= c", [("--a", ""), ("", "c")]),
        ("b --a", [("", "b"), ("--a", None)]),
    ],
)
def test_an_option_has_one_value_which_follows_it(arguments: str, found: list[tuple[str, str | None]]) -> None:
    assert list(pairs(arguments.split())) == found


def test_a_users_preload_does_not_take_the_place_of_ours() -> None:
    (program,) = plan("worker", "--", "--preload", "mine.py", DASKPKI_SCHEDULER="tls://h")
    assert words(program).count("--preload daskpki.boot.preload") == 1
    assert words(program).endswith("--preload mine.py")


def test_the_configuration_is_what_dask_reads() -> None:
    """Judged by Dask itself, in an environment that tries to say something else in every spelling it knows."""
    hostile = {
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "False",
        "DASK_DISTRIBUTED__COMM__REQUIRE-ENCRYPTION": "False",
        "dask_distributed__comm__require_encryption": "False",
        "DASK_DISTRIBUTED__COMM__TLS": "{'min-version': 1.2}",
        "DASK_DISTRIBUTED__COMM": "{}",
        "DASK_DISTRIBUTED__COMM__TLS__CIPHERS": "mine",
        "DASK_DISTRIBUTED__CLIENT__SECURITY-LOADER": "mine.loader",
        "DASK_DISTRIBUTED__WORKER__MEMORY__TARGET": "0.5",
    }
    environ = dask_environment(HANDOVER, "/proc/7/fd/9", plain_environ(**hostile))
    expected = {
        "comm.require-encryption": True,
        "comm.default-scheme": "tls",
        "comm.tls.min-version": 1.3,
        "comm.tls.ca-file": "/proc/7/fd/5",
        "comm.tls.worker.key": "/proc/7/fd/4",
        "comm.tls.client.cert": "/proc/7/fd/3",
        "comm.tls.scheduler.key": None,
        "comm.tls.ciphers": "mine",
        "client.security-loader": "daskpki.loader.security_loader",
        "scheduler.preload": ["daskpki.boot.preload"],
        "worker.preload": ["daskpki.boot.preload"],
        "nanny.preload": ["daskpki.boot.preload"],
        "worker.memory.target": 0.5,
    }
    script = """if 1:
        import dask, distributed, json, sys
        print(json.dumps({name: dask.config.get(f"distributed.{name}") for name in sys.argv[1:]}))"""
    said = subprocess.run(
        [sys.executable, "-c", script, *expected], env=environ, capture_output=True, text=True, check=True
    )
    assert json.loads(said.stdout) == expected
    assert environ["DASKPKI_HANDOVER"] == "/proc/7/fd/9"


ADDED = "--preload-nanny daskpki.boot.preload --dashboard-address 127.0.0.1:0"


@pytest.mark.parametrize(
    "command",
    [
        "/opt/python -m distributed.cli.dask_worker tls://10.0.0.2:8786 --nthreads 1",
        "/opt/bin/dask worker tls://10.0.0.2:8786",
        "python -P -m dask worker tls://10.0.0.2:8786",
    ],
)
def test_exec_tells_dasks_own_worker_what_no_configuration_does(command: str) -> None:
    (program,) = plan(*f"exec worker -- {command}".split())
    assert " ".join(program.argv) == f"{command} {ADDED}"


def test_exec_leaves_what_is_said_already() -> None:
    command = ("dask", "worker", "--dashboard-address=127.0.0.1:1", "--preload-nanny", "my.preload")
    (program,) = plan("exec", "worker", "--", *command)
    assert program.argv == command


@pytest.mark.parametrize(
    "command",
    [
        "python -m distributed.cli.dask_spec tls://10.0.0.2:8786",
        "echo dask",
        "python worker.py dask_worker",
        "worker dask",
        "python -m dask scheduler --name worker",
        "dask",
    ],
)
def test_exec_leaves_other_commands_alone(command: str) -> None:
    (program,) = plan("exec", "worker", "--", *command.split())
    assert " ".join(program.argv) == command

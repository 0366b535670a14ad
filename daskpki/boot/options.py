"""The entrypoint's options and variables in one table, from which parser and help are made; and Dask's own arguments.

Dask's arguments pass unless they would open something without TLS; those are refused by name. Pure.

The parser is written here, since every option has one value or none, and argparse costs 8 to 10 ms, a tenth of a boot.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from daskpki.credentials.contexts import is_canonical, parse_scheduler
from daskpki.errors import PolicyError, UsageError
from daskpki.identity import Role
from daskpki.quoting import did_you_mean, shown

_REFUSED: Final[Mapping[str, str]] = {  # with the reasons
    "--protocol": "Dask speaks tls:// here and nothing else",
    "--tls-ca-file": "the certificates are the ones that were fetched and checked",
    "--tls-cert": "the certificates are the ones that were fetched and checked",
    "--tls-key": "the key is the one that was fetched and checked",
    "--jupyter": "it opens a listener without any authentication",
}
_MAY_HOLD_URLS: Final = ("--preload", "--preload-nanny")
_WORKER: Final = (("dask", "worker"), ("-m", "distributed.cli.dask_worker"))
_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")


def check_dask_arguments(role: Role, arguments: Sequence[str], dashboard: str) -> None:
    """Raise PolicyError for the first argument that would weaken or circumvent TLS.

    Only with `dashboard` mtls may the dashboard be bound beyond loopback.
    """
    for option, value in pairs(arguments):
        if option in _REFUSED:
            raise PolicyError(f"Dask's {option} is refused: {_REFUSED[option]}")
        scheme, separator, _ = (value or "").partition("://")
        if option == "--dashboard-address":
            if value is not None and dashboard != "mtls" and value.rpartition(":")[0] not in _LOOPBACK:
                raise PolicyError(
                    f"Dask's --dashboard-address {shown(value)} is refused: the dashboard has no login, so it stays on "
                    "loopback",
                    hint="127.0.0.1:8787, and `ssh -L 8787:127.0.0.1:8787` from elsewhere; or --dashboard mtls",
                )
        elif option not in _MAY_HOLD_URLS and separator and scheme != "tls":
            raise PolicyError(f"Dask's address {shown(value)} is refused: only tls:// is spoken here")
    if role is Role.WORKER:
        check_contact_address(arguments)


def check_contact_address(arguments: Sequence[str]) -> None:
    """Raise PolicyError for a contact address that the scheduler would refuse, long before it could answer.

    Dask sends it unchanged, and the scheduler accepts only a form that cannot be another worker's address.
    """
    for option, value in pairs(arguments):
        if option == "--contact-address" and value and not is_canonical(value):
            usual = value
            with contextlib.suppress(UsageError):
                usual = parse_scheduler(value)
            raise PolicyError(
                f"Dask's --contact-address {shown(value)} is refused: the scheduler takes tls://IP:PORT with the "
                "number in its usual spelling, and no name, which might be another worker's",
                hint=f"for example {usual if is_canonical(usual) else 'tls://10.0.0.7:8801 or tls://[fd00::7]:8801'}",
            )


def pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield each word with the option before it: `--a=b` is ("--a", "b"), `--a b` is ("--a", None), ("--a", "b")."""
    option = ""
    for word in arguments:
        if word.startswith("-"):
            option, equals, value = word.partition("=")
            yield option, value if equals else None
        else:
            yield option, word
        if not word.startswith("-") or "=" in word:
            option = ""


def has_option(arguments: Sequence[str], *names: str) -> bool:
    """True if one of these options is among the arguments."""
    return any(option in names for option, _ in pairs(arguments))


def starts_worker(command: Sequence[str]) -> bool:
    """True if a command is Dask's worker: `dask worker`, `-m dask worker` or `-m distributed.cli...`."""
    words = [command[0].rpartition("/")[2], *command[1:]]
    return any(tuple(words[at : at + len(form)]) == form for form in _WORKER for at in range(len(words)))


COMMANDS: Final = ("scheduler", "worker", "node", "exec")


class Option(NamedTuple):
    """An option, its environment variable and its help; without `value` it is a flag."""

    name: str
    value: str
    variable: str
    meaning: str
    default: str = ""


OPTIONS: Final = (
    Option("store", "URL", "DASKPKI_STORE", "gsm://PROJECT, gsm://PROJECT/LOCATION, local:, local:/path", "local:"),
    Option("cluster", "NAME", "DASKPKI_CLUSTER", "the cluster", "default"),
    Option("name", "NAME", "DASKPKI_NAME", "name of the credential; @instance: the VM's name (default: the role)"),
    Option(
        "version",
        "N",
        "DASKPKI_VERSION",
        "boot this version of the credential (default: the newest), and keep it; for node scheduler=N,worker=N",
    ),
    Option("credential-dir", "DIR", "DASKPKI_CREDENTIAL_DIR", "a directory that `daskpki export` wrote, not a store"),
    Option(
        "credential-file",
        "FILE",
        "DASKPKI_CREDENTIAL_FILE",
        "a secret's payload or a PEM bundle (key, leaf, chain); trust document: trust.json beside it, or the store's",
    ),
    Option("scheduler", "ADDRESS", "DASKPKI_SCHEDULER", "the scheduler, tls://HOST:PORT, for workers"),
    Option("deadline", "SECONDS", "DASKPKI_DEADLINE", "how long to keep trying before exit code 75", "180"),
    Option("ca-sha256", "HEX", "DASKPKI_CA_SHA256", "trust only this CA (what `daskpki init-ca` printed)"),
    Option("min-epoch", "N", "DASKPKI_MIN_EPOCH", "refuse trust documents older than this epoch", "0"),
    Option(
        "worker-clients",
        "MODE",
        "DASKPKI_WORKER_CLIENTS",
        "what tasks may do as clients: deny, limited, allow [limited; node without --worker-user: allow]",
    ),
    Option(
        "scheduler-code",
        "MODE",
        "DASKPKI_SCHEDULER_CODE",
        "stock: all who may submit can run code in the scheduler; sealed: only admins can",
        "stock",
    ),
    Option(
        "helper-limits",
        "LIMITS",
        "DASKPKI_HELPER_LIMITS",
        "sealed helpers' limits, sizes in MiB [helpers=8,seconds=120,wait=60,memory=4096,reply=2048,tasks=5000000]",
    ),
    Option("helper-user", "USER", "DASKPKI_HELPER_USER", "run helpers as this user if there is no Landlock (as root)"),
    Option(
        "stale-trust",
        "MODE",
        "DASKPKI_STALE_TRUST",
        "after the revocation list expired: refuse new peers, or allow them, even if revoked since",
        "refuse",
    ),
    Option("poll", "SECONDS", "DASKPKI_POLL", "how often a running node looks for revocations and new CAs", "60"),
    Option("fetch-age", "SECONDS", "DASKPKI_FETCH_AGE", "warn if the last successful fetch is older", "86400"),
    Option("grace", "SECONDS", "DASKPKI_GRACE", "how long connections outlive their peer's certificate", "86400"),
    Option(
        "retire",
        "SECONDS",
        "DASKPKI_RETIRE",
        "on SIGTERM, how long a worker may hand its data to others; give it some seconds more before it is killed",
        "20",
    ),
    Option(
        "dashboard",
        "WHERE",
        "DASKPKI_DASHBOARD",
        "loopback; mtls: on all interfaces, for holders of a client's certificate; off",
        "loopback",
    ),
    Option("health", "ADDRESS:PORT", "DASKPKI_HEALTH", "serve only /health there, in plain HTTP"),
    Option(
        "metrics",
        "",
        "DASKPKI_METRICS",
        "with --health: /metrics there too, for Prometheus; worker processes take the ports after it",
        "no",
    ),
    Option("tls-min", "VERSION", "DASKPKI_TLS_MIN", "lowest TLS version: 1.3 or 1.2", "1.3"),
    Option("threads-per-worker", "N", "THREADS_PER_WORKER", "threads of each worker"),
    Option("memory-per-worker", "GB", "MEMORY_PER_WORKER", "memory of each worker, in GB"),
    Option("num-workers", "N", "NUM_WORKERS", "workers on this machine (default: cores divided by threads)"),
    Option("worker-user", "USER", "DASKPKI_WORKER_USER", "for node: run the workers as this user (needs root)"),
    Option(
        "secret",
        "NAME=WHERE",
        "DASKPKI_SECRETS",
        "mount a secret, NAME[@VERSION], at a /path on tmpfs or as fd; repeatable (in the variable, by commas)",
    ),
    Option(
        "allow-secrets-in-environment",
        "",
        "DASKPKI_ALLOW_SECRETS_IN_ENVIRONMENT",
        "also mount as env:VAR, which child processes, crash reports and readers of /proc/PID/environ see",
        "no",
    ),
    Option("log-format", "FORMAT", "DASKPKI_LOG_FORMAT", "text, or json: Cloud Logging's fields, for Dask too", "text"),
    Option(
        "endpoint", "URL", "DASKPKI_SECRET_MANAGER_ENDPOINT", "another Secret Manager: https://HOST, http://HOST:PORT"
    ),
)
REPEATABLE: Final = frozenset({"secret"})
_BY_FLAG: Final = {f"--{option.name}": option for option in OPTIONS}

USAGE: Final = """\
usage: daskpki-entrypoint scheduler|worker|node [options] [-- dask arguments]
       daskpki-entrypoint exec scheduler|worker|client [options] -- COMMAND...

Fetches this machine's own credential into memory, checks it, and becomes Dask, which then speaks only TLS.
`node` is a scheduler and its workers on one machine; `exec` starts any command with Dask's TLS configuration.

For example, on the VM of a worker:

    daskpki-entrypoint worker --store gsm://my-project --cluster lab --scheduler tls://10.0.0.2:8786

and without a store, from a directory that `daskpki export worker --out /etc/dask` wrote:

    daskpki-entrypoint worker --credential-dir /etc/dask --scheduler tls://10.0.0.2:8786 -- --nthreads 4

Options, each of them also an environment variable (none of them is secret):
"""
EXITS: Final = """
Exit codes before Dask runs: 1 other errors, 2 usage, 3 not trusted, 4 not found, 5 permission denied, 75 temporary.
"""


class Arguments(NamedTuple):
    """A parsed command line: `given` are its options (repeated ones joined by commas), `rest` follows `--`."""

    command: str
    role: str | None
    given: Mapping[str, str]
    rest: tuple[str, ...]


def help_text() -> str:
    """Return the text of --help."""
    lines = [
        f"  {f'--{option.name} {option.value}':<32}{option.variable}\n        {option.meaning}"
        f"{f' [{option.default}]' if option.default else ''}\n"
        for option in OPTIONS
    ]
    return USAGE + "".join(lines) + EXITS


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Parse the command line; UsageError says what is allowed."""
    own, rest = _split(argv)
    if not own or own[0] not in COMMANDS:
        raise _unknown(own[0] if own else "", "a command", COMMANDS, f"commands are {', '.join(COMMANDS)}")
    words = iter(own[1:])
    role = next(words, "") if own[0] == "exec" else None
    given: dict[str, str] = {}
    for name, value in _parse_options(words):
        given[name] = f"{given[name]},{value}" if name in given and name in REPEATABLE else value
    return Arguments(own[0], role, given, rest)


def _split(argv: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    if "--" not in argv:
        return list(argv), ()
    at = list(argv).index("--")
    return list(argv[:at]), tuple(argv[at + 1 :])


def _parse_options(words: Iterable[str]) -> Iterable[tuple[str, str]]:
    remaining = iter(words)
    for word in remaining:
        flag, equals, value = word.partition("=")
        option = _BY_FLAG.get(flag)
        if option is None:
            listed = "daskpki-entrypoint --help lists the options; what follows `--` goes to Dask"
            raise _unknown(flag, "an option", _BY_FLAG, listed)
        found = value if equals else next(remaining, None) if option.value else "yes"
        if found is None:
            raise UsageError(f"{flag} needs a value", hint=f"{flag} {option.value}: {option.meaning}")
        yield option.name, found


def log_format(argv: Sequence[str], environ: Mapping[str, str]) -> str:
    """Find the log format for an error about the rest of the command line."""
    given: dict[str, str] = {}
    with contextlib.suppress(UsageError):
        given.update(_parse_options(itertools.dropwhile(lambda word: not word.startswith("-"), _split(argv)[0])))
    return values(given, environ)["log-format"]


def _unknown(word: str, kind: str, known: Iterable[str], listed: str) -> UsageError:
    near = did_you_mean([word], known)
    return UsageError(f"{shown(word)} is not {kind}", hint=f"{near} {listed}" if near else listed)


def values(given: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return each option's value: from the command line, else the environment, else the default."""
    return {option.name: given.get(option.name) or environ.get(option.variable) or option.default for option in OPTIONS}

"""Which arguments for Dask are let through, and which would open something beside TLS and are refused by name. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from daskpki.errors import PolicyError
from daskpki.identity import Role

# Each with the reason, or with the way that leads there.
_REFUSED: Final[Mapping[str, str]] = {
    "--protocol": "Dask speaks tls:// here and nothing else",
    "--tls-ca-file": "the certificates are the ones that were fetched and checked",
    "--tls-cert": "the certificates are the ones that were fetched and checked",
    "--tls-key": "the key is the one that was fetched and checked",
    "--jupyter": "it opens a listener without any authentication",
}
_REFUSED_FOR_WORKERS: Final[Mapping[str, str]] = {
    "--scheduler-file": "name the scheduler with --scheduler tls://HOST:PORT, before `--`",
}
_MAY_HOLD_URLS: Final = ("--preload", "--preload-nanny")
_WORKER: Final = (("dask", "worker"), ("-m", "distributed.cli.dask_worker"))
_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")


def check_dask_arguments(role: Role, arguments: Sequence[str], dashboard: str) -> None:
    """Raise PolicyError that names the first argument which would weaken or circumvent TLS.

    `dashboard` is where that is served: only with mtls may it be bound beyond loopback.
    """
    refused = _REFUSED if role is Role.SCHEDULER else {**_REFUSED, **_REFUSED_FOR_WORKERS}
    for option, value in pairs(arguments):
        if option in refused:
            raise PolicyError(f"Dask's {option} is refused: {refused[option]}")
        if option == "--dashboard-address":
            if dashboard != "mtls":
                _check_loopback(value)
        elif option not in _MAY_HOLD_URLS:
            _check_scheme(value)


def pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each word with the option just before it: `--a=b` is ("--a", "b"), `--a b` is ("--a", ""), ("--a", "b")."""
    option = ""
    for word in arguments:
        if word.startswith("-"):
            option, _, value = word.partition("=")
            yield option, value
        else:
            yield option, word
        if not word.startswith("-") or "=" in word:
            option = ""


def has_option(arguments: Sequence[str], *names: str) -> bool:
    """Whether one of these options is among the arguments."""
    return any(option in names for option, _ in pairs(arguments))


def starts_worker(command: Sequence[str]) -> bool:
    """Whether a command is Dask's worker, as `dask worker`, `-m dask worker` or `-m distributed.cli...`."""
    words = [command[0].rpartition("/")[2], *command[1:]]
    return any(tuple(words[at : at + len(form)]) == form for form in _WORKER for at in range(len(words)))


def _check_scheme(value: str) -> None:
    scheme, separator, _ = value.partition("://")
    if separator and scheme != "tls":
        raise PolicyError(f"Dask's address {value!r} is refused: only tls:// is spoken here")


def _check_loopback(value: str) -> None:
    host = value.rpartition(":")[0]
    if value and host not in _LOOPBACK:
        raise PolicyError(
            f"Dask's --dashboard-address {value!r} is refused: the dashboard has no login, so it stays on loopback",
            hint="127.0.0.1:8787, and `ssh -L 8787:127.0.0.1:8787` from elsewhere; or --dashboard mtls",
        )

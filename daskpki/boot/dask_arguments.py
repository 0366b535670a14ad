"""Which arguments for Dask are let through, and which would open something beside TLS and are refused by name. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

from daskpki.credentials.addresses import is_canonical, parse_scheduler
from daskpki.errors import PolicyError, UsageError
from daskpki.identity import Role
from daskpki.quoting import shown

# Each with the reason, or with the way that leads there.
_REFUSED: Final[Mapping[str, str]] = {
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
    """Raise PolicyError that names the first argument which would weaken or circumvent TLS.

    `dashboard` is where that is served: only with mtls may it be bound beyond loopback.
    """
    for option, value in pairs(arguments):
        if option in _REFUSED:
            raise PolicyError(f"Dask's {option} is refused: {_REFUSED[option]}")
        if option == "--dashboard-address":
            if dashboard != "mtls":
                _check_loopback(value)
        elif option not in _MAY_HOLD_URLS:
            _check_scheme(value)
    if role is Role.WORKER:
        check_contact_address(arguments)


def check_contact_address(arguments: Sequence[str]) -> None:
    """Raise PolicyError for an address that the scheduler will refuse, whose answer comes when Dask has started.

    Dask sends it as it stands, and the scheduler takes one that is no other name of another worker's.
    """
    for option, value in pairs(arguments):
        if option == "--contact-address" and value and not is_canonical(value):
            raise PolicyError(
                f"Dask's --contact-address {shown(value)} is refused: the scheduler takes tls://IP:PORT with the "
                "number in its usual spelling, and no name, which might be another worker's",
                hint=f"for example {_usual(value) or 'tls://10.0.0.7:8801 or tls://[fd00::7]:8801'}",
            )


def _usual(address: str) -> str | None:
    """The same address in its usual spelling; None for a name."""
    with suppress(UsageError):
        usual = parse_scheduler(address)
        return usual if is_canonical(usual) else None
    return None


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
        raise PolicyError(f"Dask's address {shown(value)} is refused: only tls:// is spoken here")


def _check_loopback(value: str) -> None:
    host = value.rpartition(":")[0]
    if value and host not in _LOOPBACK:
        raise PolicyError(
            f"Dask's --dashboard-address {shown(value)} is refused: the dashboard has no login, so it stays on "
            "loopback",
            hint="127.0.0.1:8787, and `ssh -L 8787:127.0.0.1:8787` from elsewhere; or --dashboard mtls",
        )

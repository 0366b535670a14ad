"""Errors that daskpki raises on purpose, with the exit codes of commands and the entrypoint.

Each exit code of the contract has its class. `str(error)` is one line that names the failure, its object and the
reason. `hint` says what to do about it, or is None; a traceback shows it below the message. Nothing here ever carries a
key or a passphrase.
"""

from __future__ import annotations

from typing import Any


class DaskpkiError(Exception):
    """Something failed; the base of every error that daskpki raises on purpose (exit code 1)."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")

    @property
    def with_hint(self) -> str:
        """Message and remedy in one line, where a hint has no line of its own."""
        return f"{self} ({self.hint})" if self.hint else str(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Dask carries errors between processes by pickle, which by default calls the class with the message alone."""
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[DaskpkiError], arguments: tuple[object, ...], fields: dict[str, Any]) -> DaskpkiError:
    """Rebuild the error with its hint and notes, whatever arguments the `__init__` of its class takes."""
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(fields)
    return error


class UsageError(DaskpkiError):
    """An argument, option, setting or name breaks a rule of its form (exit code 2)."""

    exit_code = 2


class NotTrustedError(DaskpkiError):
    """A verification failed, or a policy refuses the request (exit code 3)."""

    exit_code = 3


class NotYetValidError(NotTrustedError):
    """Something is valid except for its time, which this machine's clock has not reached yet."""


class PolicyError(NotTrustedError):
    """A request is well-formed, but the CA's policy does not allow it."""


class CorruptError(NotTrustedError):
    """Stored bytes are not what was written: wrong checksum, wrong tag, torn or foreign."""


class NotFoundError(DaskpkiError):
    """The named object does not exist (exit code 4)."""

    exit_code = 4


class AlreadyExistsError(DaskpkiError):
    """The named object exists, and is not overwritten."""


class ConflictError(DaskpkiError):
    """Another writer was first; read again and decide again."""


class NotOursError(DaskpkiError):
    """A secret of that name exists, but does not carry daskpki's ownership labels, so it is not touched."""


class DisabledError(DaskpkiError):
    """A version exists, but is disabled or destroyed, so its payload cannot be read."""


class AccessDeniedError(DaskpkiError):
    """The store, the keyring or the operating system refuses access (exit code 5)."""

    exit_code = 5


class NothingToDo(DaskpkiError):  # noqa: N818 - an answer for --detailed-exit-code rather than a fault
    """Nothing was left to do (exit code 6, only with `--detailed-exit-code`)."""

    exit_code = 6


class Interrupted(DaskpkiError):  # noqa: N818 - a person's wish rather than a fault
    """Ctrl-C ended the command (exit code 130, as shells count SIGINT)."""

    exit_code = 130


class UnavailableError(DaskpkiError):
    """A temporary fault: the same call may succeed later (exit code 75, EX_TEMPFAIL of sysexits.h)."""

    exit_code = 75


class AmbiguousError(UnavailableError):
    """A write was cut off: the other side may or may not have carried it out."""

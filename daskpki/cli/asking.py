"""Questions on a terminal: a passphrase, or whether to go on. Everything else runs without a terminal."""

from __future__ import annotations

import sys

from daskpki.confidential import Confidential
from daskpki.errors import AccessDeniedError, NothingToDo, UsageError


def is_terminal() -> bool:
    """Whether there is somebody to ask: both where answers come from and where questions go to are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str) -> str:
    """Ask for what is no secret, on stderr; UsageError at the end of input."""
    print(question, end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer.strip():
        raise UsageError("the question was not answered, so nothing was changed")
    return answer.strip()


def prompt(question: str, option: str, *, confirm: bool = False) -> Confidential:
    """Ask on the terminal; without one, AccessDeniedError that names the option to use instead."""
    if not sys.stdin.isatty():
        raise AccessDeniedError("a passphrase is needed, and there is no terminal to ask on", hint=f"use {option}")
    from getpass import getpass

    answer = getpass(question)
    if confirm and getpass("Once more: ") != answer:
        raise UsageError("the two passphrases differ")
    if not answer:
        raise UsageError("an empty passphrase protects nothing")
    return Confidential(answer)


def confirm(question: str, *, yes: bool) -> None:
    """Ask on the terminal whether to go on; NothingToDo for any answer but yes.

    Without a terminal, programs decide: nothing is asked, as with `yes`.
    """
    if yes or not sys.stdin.isatty():
        return
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise NothingToDo("nothing was changed")

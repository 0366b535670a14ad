"""Asking for a passphrase: on a terminal only, since everything else runs without one."""

from __future__ import annotations

import sys

from daskpki.confidential import Confidential
from daskpki.errors import AccessDeniedError, UsageError


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

"""A store of each kind, and a runner of commands on it."""

from __future__ import annotations

from tests.support.command_stores import cheap_passphrases, local, run, server

__all__ = ["cheap_passphrases", "local", "run", "server"]

"""Secret Manager, for the tests that ask the doctor about it."""

from __future__ import annotations

from tests.support.command_stores import server

__all__ = ["server"]

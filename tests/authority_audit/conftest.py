"""The runner of commands over both stores and transports, as the command line's own tests have it."""

from tests.cli.conftest import local, run, server

__all__ = ["local", "run", "server"]

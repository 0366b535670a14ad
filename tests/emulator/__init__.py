"""Real protocol servers for tests: Google Secret Manager (gRPC and REST) and the Compute Engine metadata server."""

from __future__ import annotations

from tests.emulator.faults import Fault
from tests.emulator.metadata import MetadataServer
from tests.emulator.server import SecretManagerServer

__all__ = ["Fault", "MetadataServer", "SecretManagerServer"]

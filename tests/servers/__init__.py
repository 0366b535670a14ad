"""Real protocol servers for tests: Google Secret Manager (gRPC and REST) and the Compute Engine metadata server."""

from __future__ import annotations

from tests.servers.faults import Fault
from tests.servers.metadata import MetadataServer
from tests.servers.server import SecretManagerServer

__all__ = ["Fault", "MetadataServer", "SecretManagerServer"]

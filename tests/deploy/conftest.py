"""A Google Cloud on loopback, and the real `gcloud` pointed at it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.emulator import SecretManagerServer
from tests.support.capture_server import Clouds, GoogleCloud

# An image costs a Debian and a build of minutes, and .ci/apt-packages-long.txt: a long run makes it.
collect_ignore = [] if os.environ.get("DASKPKI_NIGHTLY") else ["test_image.py"]


@pytest.fixture
def clouds(tmp_path: Path) -> Iterator[Clouds]:
    with GoogleCloud() as google, SecretManagerServer() as secrets:
        own = {
            "CLOUDSDK_CONFIG": str(tmp_path / "gcloud"),
            "CLOUDSDK_CORE_PROJECT": "project-one",
            "DASKPKI_SECRET_MANAGER_ENDPOINT": f"grpc://{secrets.grpc_target}",
        }
        yield Clouds(google, secrets, {**os.environ, **secrets.gcloud_environment, **google.environment, **own})
